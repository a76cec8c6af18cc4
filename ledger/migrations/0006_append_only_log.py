from django.db import migrations

from ledger.append_only import append_only


class Migration(migrations.Migration):

    dependencies = [
        ('ledger', '0005_the_log'),
    ]

    operations = [
        migrations.RunPython(*append_only("ledger_entry")),
        migrations.RunPython(*append_only("ledger_tile")),
        migrations.RunPython(*append_only("ledger_checkpoint")),
        migrations.RunPython(*append_only("ledger_cosignature")),
    ]
