"""Which machines were made from shielding data, and the word of the guardian that made each; it stays as written."""

import django.db.models.deletion
from django.db import migrations, models

from ledger.append_only import append_only


class Migration(migrations.Migration):

    dependencies = [
        ('kps', '0006_append_only_statements'),
    ]

    operations = [
        migrations.CreateModel(
            name='MadeMachine',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('made_from', models.UUIDField(db_index=True)),
                ('link', models.TextField()),
                ('vm', models.CharField(blank=True, max_length=64)),
                ('seen_at', models.DateTimeField()),
                ('brought_by', models.CharField(max_length=200)),
                ('record', models.OneToOneField(on_delete=django.db.models.deletion.PROTECT, related_name='making', to='kps.keyprotectorrecord')),
            ],
            options={
                'ordering': ['-id'],
            },
        ),
        migrations.RunPython(*append_only('kps_mademachine')),
    ]
