"""A denial by the fabric's people ends when one of them has put that forward and another has decided it."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('kps', '0012_made_by_release'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='keyprotectorrecord',
            options={
                'ordering': ['-last_released'],
                'permissions': [
                    ('deny', 'May deny releases under a key protector, and put forward that they are allowed again'),
                    ('decide_lift', 'May decide that releases under a key protector are allowed again'),
                ],
            },
        ),
        migrations.AlterField(
            model_name='rotationproposal',
            name='id',
            field=models.BigAutoField(primary_key=True, serialize=False),
        ),
        migrations.AlterField(
            model_name='rotationproposal',
            name='state',
            field=models.CharField(choices=[('open', 'Waits for a decision'), ('approved', 'Approved'), ('rejected', 'Rejected')], db_index=True, default='open', max_length=10),
        ),
        migrations.CreateModel(
            name='DenialLift',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('state', models.CharField(choices=[('open', 'Waits for a decision'), ('approved', 'Approved'), ('rejected', 'Rejected')], db_index=True, default='open', max_length=10)),
                ('proposed_at', models.DateTimeField()),
                ('reason', models.TextField()),
                ('decided_at', models.DateTimeField(null=True)),
                ('decision_reason', models.TextField(blank=True)),
                ('decided_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('proposed_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('record', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='lifts', to='kps.keyprotectorrecord')),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.UniqueConstraint(condition=models.Q(('state', 'open')), fields=('record',), name='one_open_lift_of_a_denial')],
            },
        ),
    ]
