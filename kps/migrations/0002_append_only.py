"""What was released, and what was refused, stays as it was written."""

from django.db import migrations

from ledger.append_only import append_only


class Migration(migrations.Migration):
    dependencies = [("kps", "0001_initial")]
    operations = [migrations.RunPython(*append_only("kps_keyrelease"))]
