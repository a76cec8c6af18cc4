"""Releases have fewer indexes, for what is asked: each costs every release. SQLite makes the table anew, and its triggers."""

from django.db import migrations, models

from ledger.append_only import append_only

FORBID, ALLOW = append_only("kps_keyrelease")


class Migration(migrations.Migration):

    dependencies = [
        ('kps', '0013_two_lift_denials'),
    ]

    operations = [
        migrations.RunPython(ALLOW, FORBID),
        migrations.AlterField(
            model_name='keyrelease',
            name='at',
            field=models.DateTimeField(),
        ),
        migrations.AlterField(
            model_name='keyrelease',
            name='made_id',
            field=models.UUIDField(null=True),
        ),
        migrations.AlterField(
            model_name='keyrelease',
            name='owner_fingerprint',
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AlterField(
            model_name='keyrelease',
            name='protector_id',
            field=models.UUIDField(null=True),
        ),
        migrations.AddIndex(
            model_name='keyrelease',
            index=models.Index(fields=['owner_fingerprint', 'protector_id'], name='releases_by_protector'),
        ),
        migrations.AddIndex(
            model_name='keyrelease',
            index=models.Index(fields=['owner_fingerprint', 'id'], name='releases_by_owner'),
        ),
        migrations.AddIndex(
            model_name='keyrelease',
            index=models.Index(condition=models.Q(('made_id__isnull', False)), fields=['made_id'], name='releases_by_made'),
        ),
        migrations.RunPython(FORBID, ALLOW),
    ]
