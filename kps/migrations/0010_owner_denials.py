"""What an owner's people have denied, beside what this fabric's have."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('kps', '0009_append_only_accounts'),
    ]

    operations = [
        migrations.AddField(
            model_name='keyprotectorrecord',
            name='owner_denied_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='keyprotectorrecord',
            name='owner_denied_by',
            field=models.CharField(blank=True, max_length=200),
        ),
        migrations.AddField(
            model_name='keyprotectorrecord',
            name='owner_denied_reason',
            field=models.TextField(blank=True),
        ),
    ]
