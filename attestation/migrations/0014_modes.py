"""Hosts are known by mode, and the mode is switched by proposal; the history stays append-only."""

import datetime
import django.db.models.deletion
import uuid
from django.conf import settings
from django.db import migrations, models

from ledger.append_only import append_only

FORBID, ALLOW = append_only("attestation_modeswitch")


class Migration(migrations.Migration):

    dependencies = [
        ('attestation', '0013_quick_compression'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RunPython(ALLOW, FORBID),
        migrations.CreateModel(
            name='ModePlan',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('mode', models.CharField(choices=[('kerberos', 'Kerberos'), ('hostkey', 'Host key'), ('tpm', 'TPM')], max_length=10)),
                ('grace', models.DurationField(default=datetime.timedelta)),
                ('impact', models.JSONField(default=dict)),
                ('created_at', models.DateTimeField()),
                ('created_by', models.CharField(max_length=200)),
            ],
        ),
        migrations.RemoveConstraint(
            model_name='attester',
            name='one_attester_per_identity',
        ),
        migrations.RemoveConstraint(
            model_name='attester',
            name='one_approved_per_name',
        ),
        migrations.RemoveConstraint(
            model_name='proposal',
            name='proposal_is_about_one_thing',
        ),
        migrations.AddField(
            model_name='attester',
            name='host_key',
            field=models.BinaryField(null=True),
        ),
        migrations.AddField(
            model_name='attester',
            name='identity',
            field=models.CharField(blank=True, max_length=200),
        ),
        migrations.AddField(
            model_name='attester',
            name='mode',
            field=models.CharField(choices=[('kerberos', 'Kerberos'), ('hostkey', 'Host key'), ('tpm', 'TPM')], default='tpm', max_length=10),
        ),
        migrations.AddField(
            model_name='enrolment',
            name='host_key',
            field=models.BinaryField(null=True),
        ),
        migrations.AddField(
            model_name='modeswitch',
            name='before',
            field=models.CharField(blank=True, choices=[('kerberos', 'Kerberos'), ('hostkey', 'Host key'), ('tpm', 'TPM')], max_length=10),
        ),
        migrations.AddField(
            model_name='modeswitch',
            name='before_until',
            field=models.DateTimeField(null=True),
        ),
        migrations.AlterField(
            model_name='attester',
            name='ak_name',
            field=models.CharField(blank=True, max_length=68),
        ),
        migrations.AlterField(
            model_name='attester',
            name='ak_public',
            field=models.BinaryField(default=bytes),
        ),
        migrations.AlterField(
            model_name='attester',
            name='ek_detail',
            field=models.TextField(blank=True),
        ),
        migrations.AlterField(
            model_name='attester',
            name='ek_fingerprint',
            field=models.CharField(blank=True, db_index=True, max_length=64),
        ),
        migrations.AlterField(
            model_name='attester',
            name='ek_public',
            field=models.BinaryField(default=bytes),
        ),
        migrations.AlterField(
            model_name='attester',
            name='ek_verdict',
            field=models.CharField(blank=True, choices=[('trusted', 'Chain verified'), ('untrusted', 'Issuer not trusted'), ('absent', 'No EK certificate'), ('refused', 'EK certificate refused')], max_length=10),
        ),
        migrations.AlterField(
            model_name='enrolment',
            name='ak_public',
            field=models.BinaryField(default=bytes),
        ),
        migrations.AlterField(
            model_name='enrolment',
            name='ek_public',
            field=models.BinaryField(default=bytes),
        ),
        migrations.AlterField(
            model_name='modeswitch',
            name='mode',
            field=models.CharField(choices=[('kerberos', 'Kerberos'), ('hostkey', 'Host key'), ('tpm', 'TPM')], max_length=10),
        ),
        migrations.AddConstraint(
            model_name='attester',
            constraint=models.UniqueConstraint(condition=models.Q(('mode', 'tpm')), fields=('ek_fingerprint', 'ak_name'), name='one_attester_per_tpm'),
        ),
        migrations.AddConstraint(
            model_name='attester',
            constraint=models.UniqueConstraint(condition=models.Q(('mode', 'tpm'), _negated=True), fields=('mode', 'identity'), name='one_attester_per_identity_of_a_mode'),
        ),
        migrations.AddConstraint(
            model_name='attester',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'approved')), fields=('mode', 'name'), name='one_approved_per_name_and_mode'),
        ),
        migrations.AddField(
            model_name='modeswitch',
            name='plan',
            field=models.OneToOneField(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='switch', to='attestation.modeplan'),
        ),
        migrations.AddField(
            model_name='proposal',
            name='plan',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='proposals', to='attestation.modeplan'),
        ),
        migrations.AddConstraint(
            model_name='proposal',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('attester__isnull', False), ('baseline__isnull', True), ('draft__isnull', True), ('plan__isnull', True)), models.Q(('attester__isnull', True), ('baseline__isnull', False), ('draft__isnull', True), ('plan__isnull', True)), models.Q(('attester__isnull', True), ('baseline__isnull', True), ('draft__isnull', False), ('plan__isnull', True)), models.Q(('attester__isnull', True), ('baseline__isnull', True), ('draft__isnull', True), ('plan__isnull', False)), _connector='OR'), name='proposal_is_about_one'),
        ),
        migrations.AddConstraint(
            model_name='proposal',
            constraint=models.UniqueConstraint(condition=models.Q(('plan__isnull', False), ('state', 'open')), fields=('state',), name='one_open_switch_of_the_mode'),
        ),
        migrations.RunPython(FORBID, ALLOW),
    ]
