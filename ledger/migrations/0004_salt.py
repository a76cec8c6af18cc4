from django.db import migrations, models

from ledger.append_only import append_only

FORBID, ALLOW = append_only("ledger_leaf")


class Migration(migrations.Migration):

    dependencies = [
        ('ledger', '0003_lean_indexes'),
    ]

    operations = [
        migrations.RunPython(ALLOW, FORBID),
        migrations.AddField(
            model_name='leaf',
            name='salt',
            field=models.CharField(blank=True, default='', max_length=32),
            preserve_default=False,
        ),
        migrations.RunPython(FORBID, ALLOW),
    ]
