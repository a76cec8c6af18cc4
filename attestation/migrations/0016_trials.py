"""Hosts may ask for a verdict that nothing comes of, and what they were told is kept as it was written."""

import django.db.models.deletion
from django.db import migrations, models

from ledger.append_only import append_only


class Migration(migrations.Migration):

    dependencies = [
        ('attestation', '0015_directory_groups'),
    ]

    operations = [
        migrations.AddField(
            model_name='challenge',
            name='trial',
            field=models.BooleanField(default=False),
        ),
        migrations.CreateModel(
            name='Trial',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('at', models.DateTimeField()),
                ('mode', models.CharField(max_length=10)),
                ('status', models.CharField(max_length=30)),
                ('substatus', models.JSONField(default=list)),
                ('code', models.CharField(blank=True, max_length=60)),
                ('findings', models.JSONField(default=list)),
                ('policy_version', models.PositiveIntegerField()),
                ('pcrs', models.JSONField(default=dict)),
                ('evidence', models.JSONField(default=dict)),
                ('attester', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='trials', to='attestation.attester')),
                ('challenge', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='attestation.challenge')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.RunPython(*append_only("attestation_trial")),
    ]
