"""Hosts come in groups, each with a policy of its own; the first group is there from the start."""

import django.db.models.deletion
from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.utils import timezone

from ledger.append_only import append_only

# SQLite makes a changed table anew and loses its triggers: they go first, and 0005 puts them back.
KEPT = ("attestation_attestation", "attestation_policyversion")


def first_group(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("attestation", "HostGroup").objects.create(
        slug="default", name="Default", created_at=timezone.now(), created_by="system"
    )


class Migration(migrations.Migration):
    dependencies = [("attestation", "0002_append_only_and_mode")]
    operations = [
        *(migrations.RunPython(append_only(table)[1], append_only(table)[0]) for table in KEPT),
        migrations.CreateModel(
            name='HostGroup',
            fields=[
                ('slug', models.SlugField(max_length=40, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=80, unique=True)),
                ('description', models.TextField(blank=True)),
                ('created_at', models.DateTimeField()),
                ('created_by', models.CharField(max_length=200)),
            ],
            options={
                'ordering': ['name'],
            },
        ),
        migrations.AddField(
            model_name='hostgroup',
            name='canary_of',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='canaries', to='attestation.hostgroup'),
        ),
        migrations.RunPython(first_group, migrations.RunPython.noop),
    ]
