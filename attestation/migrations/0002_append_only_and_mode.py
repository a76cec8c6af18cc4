"""Attestations are kept as they were written, and a new fabric is in TPM mode."""

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.utils import timezone

from ledger.append_only import append_only


def tpm_mode(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("attestation", "ModeSwitch").objects.create(
        mode="tpm", since=timezone.now(), by="system", reason="The mode that every fabric starts in."
    )


class Migration(migrations.Migration):
    dependencies = [("attestation", "0001_initial")]
    operations = [
        migrations.RunPython(*append_only("attestation_attestation")),
        migrations.RunPython(*append_only("attestation_policyversion")),
        migrations.RunPython(*append_only("attestation_modeswitch")),
        migrations.RunPython(*append_only("attestation_denybefore")),
        migrations.RunPython(tpm_mode, migrations.RunPython.noop),
    ]
