"""What a verdict rested on beside its Evidence, and the digests that the ledger binds. SQLite makes the table anew."""

from django.db import migrations, models

from ledger.append_only import append_only

FORBID, ALLOW = append_only("attestation_attestation")


class Migration(migrations.Migration):

    dependencies = [
        ('attestation', '0016_trials'),
    ]

    operations = [
        migrations.RunPython(ALLOW, FORBID),
        migrations.AddField(
            model_name='attestation',
            name='grounds',
            field=models.JSONField(default=dict),
        ),
        migrations.AddField(
            model_name='attestation',
            name='policy_sha256',
            field=models.CharField(blank=True, default='', max_length=64),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name='attestation',
            name='dossier_sha256',
            field=models.CharField(blank=True, default='', max_length=64),
            preserve_default=False,
        ),
        migrations.RunPython(FORBID, ALLOW),
    ]
