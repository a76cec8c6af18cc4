"""What was decided and proved stays as it was written."""

from django.db import migrations

from ledger.append_only import append_only

TABLES = (
    "attestation_attestation",
    "attestation_policyversion",
    "attestation_runtimepolicy",
    "attestation_codeintegritypolicy",
)


class Migration(migrations.Migration):
    dependencies = [("attestation", "0004_policies_by_group")]
    operations = [migrations.RunPython(*append_only(table)) for table in TABLES]
