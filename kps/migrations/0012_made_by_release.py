"""A release of shielding data's key says which machine was made by it, so that its host counts as that one's holder."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('kps', '0011_denied_machines'),
    ]

    operations = [
        migrations.AddField(
            model_name='keyrelease',
            name='made_id',
            field=models.UUIDField(db_index=True, null=True),
        ),
    ]
