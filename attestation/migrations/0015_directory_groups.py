"""Groups of the directory, whose hosts attest in Kerberos mode, and proposals about them."""

import django.db.models.deletion
import uuid
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('attestation', '0014_modes'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='KerberosGroup',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('sid', models.CharField(max_length=190)),
                ('name', models.CharField(max_length=100)),
                ('state', models.CharField(choices=[('proposed', 'Waits for approval'), ('approved', 'Approved'), ('rejected', 'Rejected'), ('retired', 'Retired')], default='proposed', max_length=10)),
                ('proposed_by', models.CharField(max_length=200)),
                ('proposed_at', models.DateTimeField()),
            ],
            options={
                'ordering': ['name', 'proposed_at'],
            },
        ),
        migrations.RemoveConstraint(
            model_name='proposal',
            name='proposal_is_about_one',
        ),
        migrations.AddField(
            model_name='kerberosgroup',
            name='group',
            field=models.ForeignKey(default='default', on_delete=django.db.models.deletion.PROTECT, related_name='+', to='attestation.hostgroup'),
        ),
        migrations.AddField(
            model_name='proposal',
            name='kerberos_group',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='proposals', to='attestation.kerberosgroup'),
        ),
        migrations.AddConstraint(
            model_name='proposal',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('attester__isnull', False), ('baseline__isnull', True), ('draft__isnull', True), ('kerberos_group__isnull', True), ('plan__isnull', True)), models.Q(('attester__isnull', True), ('baseline__isnull', False), ('draft__isnull', True), ('kerberos_group__isnull', True), ('plan__isnull', True)), models.Q(('attester__isnull', True), ('baseline__isnull', True), ('draft__isnull', False), ('kerberos_group__isnull', True), ('plan__isnull', True)), models.Q(('attester__isnull', True), ('baseline__isnull', True), ('draft__isnull', True), ('kerberos_group__isnull', True), ('plan__isnull', False)), models.Q(('attester__isnull', True), ('baseline__isnull', True), ('draft__isnull', True), ('kerberos_group__isnull', False), ('plan__isnull', True)), _connector='OR'), name='proposal_has_one_subject'),
        ),
        migrations.AddConstraint(
            model_name='kerberosgroup',
            constraint=models.UniqueConstraint(condition=models.Q(('state__in', ['proposed', 'approved'])), fields=('sid',), name='one_living_row_per_sid'),
        ),
    ]
