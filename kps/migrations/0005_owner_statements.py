"""The owner's newest word on each protector, approvals, returns; a release says by which word it was decided."""

import django.db.models.deletion
import uuid
from django.db import migrations, models

from ledger.append_only import append_only

FORBID, ALLOW = append_only("kps_keyrelease")


class Migration(migrations.Migration):

    dependencies = [
        ('kps', '0004_rotation_proposals'),
    ]

    operations = [
        migrations.RunPython(ALLOW, FORBID),  # SQLite makes the table anew, and drops its triggers with the old one
        migrations.AddField(
            model_name='keyprotectorrecord',
            name='serial',
            field=models.IntegerField(default=-1),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name='keyprotectorrecord',
            name='statement_sha256',
            field=models.CharField(default='', max_length=64),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name='keyrelease',
            name='approval_id',
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name='keyrelease',
            name='group',
            field=models.CharField(blank=True, max_length=40),
        ),
        migrations.AddField(
            model_name='keyrelease',
            name='owner_serial',
            field=models.IntegerField(null=True),
        ),
        migrations.AddField(
            model_name='keyrelease',
            name='statement_sha256',
            field=models.CharField(blank=True, max_length=64),
        ),
        migrations.AlterField(
            model_name='keyprotectorrecord',
            name='last_released',
            field=models.DateTimeField(null=True),
        ),
        migrations.AlterField(
            model_name='keyprotectorrecord',
            name='last_roll',
            field=models.BigIntegerField(default=0),
        ),
        migrations.CreateModel(
            name='KeyReturn',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField()),
                ('owner_fingerprint', models.CharField(max_length=64)),
                ('protector_id', models.UUIDField()),
                ('vm', models.CharField(max_length=64)),
                ('attester_id', models.UUIDField()),
                ('host', models.CharField(max_length=64)),
                ('serial', models.CharField(max_length=40)),
                ('release_id', models.BigIntegerField()),
                ('nonce_sha256', models.CharField(max_length=64)),
            ],
            options={
                'ordering': ['-id'],
                'indexes': [models.Index(fields=['protector_id', 'owner_fingerprint'], name='returns_by_protector')],
                'constraints': [models.UniqueConstraint(fields=('serial', 'nonce_sha256'), name='one_return_per_nonce')],
            },
        ),
        migrations.CreateModel(
            name='OwnerStatement',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('serial', models.IntegerField()),
                ('sha256', models.CharField(max_length=64)),
                ('token', models.TextField()),
                ('seen_at', models.DateTimeField()),
                ('brought_by', models.CharField(max_length=200)),
                ('record', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='statements', to='kps.keyprotectorrecord')),
            ],
            options={
                'ordering': ['-serial'],
                'constraints': [models.UniqueConstraint(fields=('record', 'serial'), name='one_statement_of_a_serial')],
            },
        ),
        migrations.CreateModel(
            name='ReleaseApproval',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('attester_id', models.UUIDField()),
                ('host', models.CharField(max_length=64)),
                ('vm', models.CharField(max_length=64)),
                ('attestation_id', models.BigIntegerField()),
                ('needs_key', models.BooleanField()),
                ('by_key', models.BooleanField(default=False)),
                ('state', models.CharField(choices=[('pending', 'Waits for the owner'), ('approved', 'Approved'), ('declined', 'Declined'), ('used', 'Used')], default='pending', max_length=10)),
                ('asked_at', models.DateTimeField()),
                ('asked_last', models.DateTimeField()),
                ('decided_at', models.DateTimeField(null=True)),
                ('decided_by', models.CharField(blank=True, max_length=200)),
                ('reason', models.TextField(blank=True)),
                ('expires_at', models.DateTimeField(null=True)),
                ('used_at', models.DateTimeField(null=True)),
                ('record', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='approvals', to='kps.keyprotectorrecord')),
            ],
            options={
                'ordering': ['-asked_last'],
                'constraints': [models.UniqueConstraint(condition=models.Q(('state', 'pending')), fields=('record', 'attester_id'), name='one_open_approval_per_host')],
            },
        ),
        migrations.RunPython(FORBID, ALLOW),
    ]
