"""Stops of releases, and proposals to lift them."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('attestation', '0017_dossiers'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='Stop',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('scope', models.CharField(choices=[('fabric', 'The whole fabric'), ('group', 'A group of hosts'), ('host', 'A host')], max_length=10)),
                ('at', models.DateTimeField()),
                ('by', models.CharField(max_length=200)),
                ('reason', models.TextField()),
                ('lifted_at', models.DateTimeField(null=True)),
                ('lifted_by', models.CharField(blank=True, max_length=200)),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.RemoveConstraint(
            model_name='proposal',
            name='proposal_has_one_subject',
        ),
        migrations.AddField(
            model_name='stop',
            name='attester',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='stops', to='attestation.attester'),
        ),
        migrations.AddField(
            model_name='stop',
            name='group',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='stops', to='attestation.hostgroup'),
        ),
        migrations.AddField(
            model_name='proposal',
            name='stop',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='proposals', to='attestation.stop'),
        ),
        migrations.AddConstraint(
            model_name='proposal',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('attester__isnull', False), ('baseline__isnull', True), ('draft__isnull', True), ('kerberos_group__isnull', True), ('plan__isnull', True), ('stop__isnull', True)), models.Q(('attester__isnull', True), ('baseline__isnull', False), ('draft__isnull', True), ('kerberos_group__isnull', True), ('plan__isnull', True), ('stop__isnull', True)), models.Q(('attester__isnull', True), ('baseline__isnull', True), ('draft__isnull', False), ('kerberos_group__isnull', True), ('plan__isnull', True), ('stop__isnull', True)), models.Q(('attester__isnull', True), ('baseline__isnull', True), ('draft__isnull', True), ('kerberos_group__isnull', True), ('plan__isnull', False), ('stop__isnull', True)), models.Q(('attester__isnull', True), ('baseline__isnull', True), ('draft__isnull', True), ('kerberos_group__isnull', False), ('plan__isnull', True), ('stop__isnull', True)), models.Q(('attester__isnull', True), ('baseline__isnull', True), ('draft__isnull', True), ('kerberos_group__isnull', True), ('plan__isnull', True), ('stop__isnull', False)), _connector='OR'), name='proposal_is_about_one_thing'),
        ),
        migrations.AddConstraint(
            model_name='proposal',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'open')), fields=('stop',), name='one_open_proposal_per_stop'),
        ),
        migrations.AddConstraint(
            model_name='stop',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('attester', None), ('group', None), ('scope', 'fabric')), models.Q(('attester', None), ('group__isnull', False), ('scope', 'group')), models.Q(('attester__isnull', False), ('group', None), ('scope', 'host')), _connector='OR'), name='stop_has_its_scope'),
        ),
        migrations.AddConstraint(
            model_name='stop',
            constraint=models.UniqueConstraint(condition=models.Q(('lifted_at', None), ('scope', 'fabric')), fields=('scope',), name='one_stop_of_the_fabric'),
        ),
        migrations.AddConstraint(
            model_name='stop',
            constraint=models.UniqueConstraint(condition=models.Q(('lifted_at', None)), fields=('group',), name='one_stop_per_group'),
        ),
        migrations.AddConstraint(
            model_name='stop',
            constraint=models.UniqueConstraint(condition=models.Q(('lifted_at', None)), fields=('attester',), name='one_stop_per_host'),
        ),
    ]
