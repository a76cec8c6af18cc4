"""What hosts have said of their offline starts stays as it was written."""

from django.db import migrations

from ledger.append_only import append_only


class Migration(migrations.Migration):
    dependencies = [("kps", "0008_offline_starts")]
    operations = [migrations.RunPython(*append_only("kps_offlineaccount"))]
