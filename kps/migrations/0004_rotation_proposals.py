"""Which pair a key protector depends on, and who decides a change of the keys."""

import django.db.models.deletion
from django.apps.registry import Apps
from django.conf import settings
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def depend_on_the_first(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    """Until now there was one pair, so every protector that was opened names it."""
    pair = apps.get_model("kps", "GuardianPair").objects.filter(number=1).first()
    if pair is not None:
        apps.get_model("kps", "KeyProtectorRecord").objects.update(guardian_fingerprint=pair.fingerprint)


class Migration(migrations.Migration):

    dependencies = [
        ('kps', '0003_guardian_pairs'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='keyprotectorrecord',
            name='guardian_fingerprint',
            field=models.CharField(blank=True, db_index=True, max_length=64),
        ),
        migrations.RunPython(depend_on_the_first, migrations.RunPython.noop),
        migrations.CreateModel(
            name='RotationProposal',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('change', models.CharField(choices=[('promote', 'Take into use'), ('disable', 'Disable'), ('enable', 'Enable again')], max_length=10)),
                ('impact', models.JSONField()),
                ('state', models.CharField(choices=[('open', 'Waits for a decision'), ('approved', 'Approved'), ('rejected', 'Rejected')], default='open', max_length=10)),
                ('proposed_at', models.DateTimeField()),
                ('reason', models.TextField()),
                ('decided_at', models.DateTimeField(null=True)),
                ('decision_reason', models.TextField(blank=True)),
                ('decided_by', models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('pair', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='proposals', to='kps.guardianpair')),
                ('proposed_by', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-id'],
                'constraints': [models.UniqueConstraint(condition=models.Q(('state', 'open')), fields=('pair',), name='one_open_change_of_a_pair')],
            },
        ),
    ]
