"""What a release allows without the fabric, and what hosts say of it afterwards."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('kps', '0007_made_machines'),
    ]

    operations = [
        migrations.AddField(
            model_name='keyrelease',
            name='offline_starts',
            field=models.PositiveSmallIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='keyrelease',
            name='offline_until',
            field=models.DateTimeField(null=True),
        ),
        migrations.CreateModel(
            name='OfflineAccount',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField()),
                ('release_id', models.BigIntegerField(db_index=True)),
                ('owner_fingerprint', models.CharField(max_length=64)),
                ('protector_id', models.UUIDField()),
                ('vm', models.CharField(max_length=64)),
                ('attester_id', models.UUIDField()),
                ('host', models.CharField(max_length=64)),
                ('serial', models.CharField(max_length=40)),
                ('starts', models.JSONField()),
                ('counted', models.BigIntegerField()),
                ('exceeded', models.BooleanField()),
                ('nonce_sha256', models.CharField(max_length=64)),
            ],
            options={
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['owner_fingerprint', 'protector_id'], name='accounts_by_protector')],
                'constraints': [models.UniqueConstraint(fields=('serial', 'nonce_sha256'), name='one_account_per_nonce')],
            },
        ),
    ]
