"""Machines that were made from shielding data may be denied with it."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('kps', '0010_owner_denials'),
    ]

    operations = [
        migrations.AddField(
            model_name='keyprotectorrecord',
            name='denied_with',
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name='keyprotectorrecord',
            name='denies_machines',
            field=models.BooleanField(default=False),
        ),
    ]
