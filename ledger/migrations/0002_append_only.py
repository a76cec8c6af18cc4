"""The database refuses to change or delete a leaf."""

from django.db import migrations

from ledger.append_only import append_only


class Migration(migrations.Migration):
    dependencies = [("ledger", "0001_initial")]
    operations = [migrations.RunPython(*append_only("ledger_leaf"))]
