"""Indexes that nothing is looked up by are given up; SQLite makes the tables anew for it, and their triggers with them."""

from django.db import migrations, models

from ledger.append_only import append_only

FORBID, ALLOW = append_only("ledger_leaf")


class Migration(migrations.Migration):

    dependencies = [
        ('ledger', '0002_append_only'),
    ]

    operations = [
        migrations.RunPython(ALLOW, FORBID),
        migrations.AlterField(
            model_name='leaf',
            name='actor',
            field=models.CharField(max_length=200),
        ),
        migrations.AlterField(
            model_name='leaf',
            name='subject',
            field=models.CharField(max_length=200),
        ),
        migrations.AddIndex(
            model_name='leaf',
            index=models.Index(fields=['actor'], name='leaves_by_actor'),
        ),
        migrations.AddIndex(
            model_name='leaf',
            index=models.Index(fields=['subject'], name='leaves_by_subject'),
        ),
        migrations.RunPython(FORBID, ALLOW),
    ]
