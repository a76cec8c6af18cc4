"""What owners have signed, and what hosts have given back, stays as it was written."""

from django.db import migrations

from ledger.append_only import append_only


class Migration(migrations.Migration):
    dependencies = [("kps", "0005_owner_statements")]
    operations = [
        migrations.RunPython(*append_only("kps_ownerstatement")),
        migrations.RunPython(*append_only("kps_keyreturn")),
    ]
