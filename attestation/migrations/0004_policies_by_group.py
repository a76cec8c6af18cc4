"""Policies by group, with documents, drafts and dry runs; what baselines pinned by value is written as rules."""

import uuid

import django.db.models.deletion
import django.utils.timezone
from django.apps.registry import Apps
from django.conf import settings
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

REQUIRED = ["boot_log", "counters", "secure_boot"]


def to_documents(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    """A version was a list of baselines; it asked for nothing else."""
    for version in apps.get_model("attestation", "PolicyVersion").objects.all():
        entries = [{"id": each, "from": None, "until": None} for each in version.document]
        version.document = {"baselines": entries, "required": REQUIRED}
        version.effective_at = version.created_at
        version.save()
    for baseline in apps.get_model("attestation", "Baseline").objects.all():
        baseline.explained_pcrs = baseline.pcrs
        baseline.pcrs = {pcr: {"values": [value]} for pcr, value in baseline.pcrs.items()}
        baseline.sources = [baseline.captured_from_id]
        baseline.save()


class Migration(migrations.Migration):
    dependencies = [
        ("attestation", "0003_host_groups"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]
    operations = [
        migrations.CreateModel(
            name='CodeIntegrityPolicy',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=100)),
                ('digests', models.JSONField()),
                ('audits', models.BooleanField()),
                ('trivial', models.JSONField(default=list)),
                ('added_at', models.DateTimeField()),
                ('added_by', models.CharField(max_length=200)),
                ('origin', models.CharField(max_length=300)),
            ],
            options={
                'ordering': ['name', '-added_at'],
            },
        ),
        migrations.CreateModel(
            name='Component',
            fields=[
                ('digest', models.CharField(max_length=128, primary_key=True, serialize=False)),
                ('pcr', models.PositiveSmallIntegerField()),
                ('name', models.CharField(max_length=120)),
                ('text', models.TextField()),
                ('proved', models.BooleanField()),
                ('first_seen_at', models.DateTimeField()),
                ('package', models.CharField(blank=True, max_length=200)),
                ('vouched_by', models.CharField(blank=True, max_length=200)),
                ('vouched_at', models.DateTimeField(null=True)),
            ],
            options={
                'ordering': ['-first_seen_at'],
            },
        ),
        migrations.CreateModel(
            name='DryRun',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('revision', models.PositiveIntegerField()),
                ('base_version', models.PositiveIntegerField()),
                ('total', models.PositiveIntegerField()),
                ('done', models.PositiveIntegerField(default=0)),
                ('after', models.UUIDField(null=True)),
                ('started_at', models.DateTimeField()),
                ('started_by', models.CharField(max_length=200)),
                ('finished_at', models.DateTimeField(null=True)),
            ],
            options={
                'ordering': ['-started_at'],
            },
        ),
        migrations.CreateModel(
            name='DryRunRow',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('passes', models.BooleanField()),
                ('would_pass', models.BooleanField()),
                ('findings', models.JSONField(default=list)),
                ('excepted', models.JSONField(default=list)),
            ],
        ),
        migrations.CreateModel(
            name='ImaProgress',
            fields=[
                ('attester', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, primary_key=True, related_name='ima', serialize=False, to='attestation.attester')),
                ('reset_count', models.BigIntegerField()),
                ('offset', models.PositiveBigIntegerField()),
                ('entries', models.PositiveBigIntegerField()),
                ('pcr_value', models.CharField(max_length=128)),
                ('runtime', models.CharField(blank=True, max_length=36)),
                ('findings', models.JSONField(default=list)),
            ],
        ),
        migrations.CreateModel(
            name='PolicyDraft',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('title', models.CharField(max_length=120)),
                ('state', models.CharField(choices=[('draft', 'Being written'), ('proposed', 'Waits for approval'), ('approved', 'Approved'), ('rejected', 'Rejected'), ('dropped', 'Dropped')], db_index=True, default='draft', max_length=10)),
                ('document', models.JSONField()),
                ('base_version', models.PositiveIntegerField()),
                ('effective_at', models.DateTimeField(null=True)),
                ('revision', models.PositiveIntegerField(default=1)),
                ('created_by', models.CharField(max_length=200)),
                ('created_at', models.DateTimeField()),
                ('changed_at', models.DateTimeField()),
            ],
            options={
                'ordering': ['-changed_at'],
            },
        ),
        migrations.CreateModel(
            name='RuntimePolicy',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=100)),
                ('version', models.PositiveIntegerField()),
                ('entries', models.PositiveIntegerField()),
                ('excludes', models.JSONField(default=list)),
                ('signers', models.JSONField(default=list)),
                ('origin', models.CharField(max_length=300)),
                ('created_at', models.DateTimeField()),
                ('created_by', models.CharField(max_length=200)),
            ],
            options={
                'ordering': ['name', '-version'],
            },
        ),
        migrations.RemoveConstraint(
            model_name='baseline',
            name='one_approved_baseline_name',
        ),
        migrations.RemoveConstraint(
            model_name='proposal',
            name='proposal_is_about_one_thing',
        ),
        migrations.RenameField(
            model_name='policyversion',
            old_name='baselines',
            new_name='document',
        ),
        migrations.AddField(
            model_name='attestation',
            name='boot_count',
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='attestation',
            name='excepted',
            field=models.JSONField(default=list),
        ),
        migrations.AddField(
            model_name='attestation',
            name='ima_from',
            field=models.PositiveBigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='attester',
            name='boot_count',
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='attester',
            name='reset_count',
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='baseline',
            name='amends',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='amended_by', to='attestation.baseline'),
        ),
        migrations.AddField(
            model_name='baseline',
            name='explained_pcrs',
            field=models.JSONField(default=dict),
        ),
        migrations.AddField(
            model_name='baseline',
            name='platform',
            field=models.CharField(default='linux', max_length=10),
        ),
        migrations.AddField(
            model_name='baseline',
            name='source',
            field=models.CharField(choices=[('captured', 'Captured from hosts'), ('uploaded', 'Uploaded'), ('amended', 'Amended')], default='captured', max_length=10),
        ),
        migrations.AddField(
            model_name='baseline',
            name='sources',
            field=models.JSONField(default=list),
        ),
        migrations.AddField(
            model_name='challenge',
            name='ima_from',
            field=models.PositiveBigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='policyversion',
            name='effective_at',
            field=models.DateTimeField(default=django.utils.timezone.now),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name='policyversion',
            name='restores',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='restored_by', to='attestation.policyversion'),
        ),
        migrations.AlterField(
            model_name='baseline',
            name='captured_from',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='attestation.attestation'),
        ),
        migrations.AlterField(
            model_name='baseline',
            name='event_log',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='attestation.blob'),
        ),
        migrations.AddField(
            model_name='codeintegritypolicy',
            name='content',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='attestation.blob'),
        ),
        migrations.AddField(
            model_name='component',
            name='first_seen_on',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='attestation.attester'),
        ),
        migrations.AddField(
            model_name='dryrunrow',
            name='attestation',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='attestation.attestation'),
        ),
        migrations.AddField(
            model_name='dryrunrow',
            name='attester',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='attestation.attester'),
        ),
        migrations.AddField(
            model_name='dryrunrow',
            name='dry_run',
            field=models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='rows', to='attestation.dryrun'),
        ),
        migrations.AddField(
            model_name='attester',
            name='group',
            field=models.ForeignKey(default='default', on_delete=django.db.models.deletion.PROTECT, related_name='attesters', to='attestation.hostgroup'),
        ),
        migrations.AddField(
            model_name='baseline',
            name='group',
            field=models.ForeignKey(default='default', on_delete=django.db.models.deletion.PROTECT, related_name='baselines', to='attestation.hostgroup'),
        ),
        migrations.AddField(
            model_name='policyversion',
            name='group',
            field=models.ForeignKey(default='default', on_delete=django.db.models.deletion.PROTECT, related_name='versions', to='attestation.hostgroup'),
        ),
        migrations.AddField(
            model_name='proposal',
            name='group',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='proposals', to='attestation.hostgroup'),
        ),
        migrations.AddConstraint(
            model_name='baseline',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'approved')), fields=('group', 'name'), name='one_approved_baseline_name'),
        ),
        migrations.AddField(
            model_name='policydraft',
            name='group',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='drafts', to='attestation.hostgroup'),
        ),
        migrations.AddField(
            model_name='policydraft',
            name='restores',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='attestation.policyversion'),
        ),
        migrations.AddField(
            model_name='dryrun',
            name='draft',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='dry_runs', to='attestation.policydraft'),
        ),
        migrations.AddField(
            model_name='proposal',
            name='draft',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='proposals', to='attestation.policydraft'),
        ),
        migrations.AddConstraint(
            model_name='proposal',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('attester__isnull', False), ('baseline__isnull', True), ('draft__isnull', True)), models.Q(('attester__isnull', True), ('baseline__isnull', False), ('draft__isnull', True)), models.Q(('attester__isnull', True), ('baseline__isnull', True), ('draft__isnull', False)), _connector='OR'), name='proposal_is_about_one_thing'),
        ),
        migrations.AddConstraint(
            model_name='proposal',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'open')), fields=('draft',), name='one_open_proposal_per_draft'),
        ),
        migrations.AddField(
            model_name='runtimepolicy',
            name='content',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='attestation.blob'),
        ),
        migrations.AddConstraint(
            model_name='dryrunrow',
            constraint=models.UniqueConstraint(fields=('dry_run', 'attester'), name='one_row_per_host_of_a_dry_run'),
        ),
        migrations.AddConstraint(
            model_name='runtimepolicy',
            constraint=models.UniqueConstraint(fields=('name', 'version'), name='one_runtime_policy_per_version'),
        ),
        migrations.RunPython(to_documents, migrations.RunPython.noop),
    ]
