"""Indexes that nothing is looked up by are given up; SQLite makes the tables anew for it, and their triggers with them."""

import django.db.models.deletion
from django.db import migrations, models

from ledger.append_only import append_only

FORBID, ALLOW = append_only("attestation_attestation")


class Migration(migrations.Migration):

    dependencies = [
        ('attestation', '0011_lists_of_approved_hosts'),
    ]

    operations = [
        migrations.RunPython(ALLOW, FORBID),
        migrations.AlterField(
            model_name='attestation',
            name='baseline',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, to='attestation.baseline'),
        ),
        migrations.AlterField(
            model_name='attestation',
            name='event_log',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='attestation.blob'),
        ),
        migrations.AlterField(
            model_name='attestation',
            name='ima_log',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='attestation.blob'),
        ),
        migrations.AlterField(
            model_name='attestation',
            name='status',
            field=models.CharField(max_length=30),
        ),
        migrations.AlterField(
            model_name='attester',
            name='latest',
            field=models.ForeignKey(db_index=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='attestation.attestation'),
        ),
        migrations.AlterField(
            model_name='challenge',
            name='attester',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, to='attestation.attester'),
        ),
        migrations.AlterField(
            model_name='healthcertificate',
            name='signer',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, to='attestation.signerkey'),
        ),
        migrations.AddIndex(
            model_name='attestation',
            index=models.Index(fields=['status'], name='attestations_by_status'),
        ),
        migrations.RunPython(FORBID, ALLOW),
    ]
