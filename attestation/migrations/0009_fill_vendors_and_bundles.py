"""Authorities that were trusted before get what their certificates say, and a bundle that keeps their provenance."""

import hashlib
from typing import Any

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from attestation.core.authority import is_root
from attestation.core.certificate_reader import name_key, read_certificate, short_name
from attestation.core.makers import maker_of, usual_tolerances


def fill(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    Authority: Any = apps.get_model("attestation", "EndorsementAuthority")
    Vendor, Bundle = apps.get_model("attestation", "Vendor"), apps.get_model("attestation", "AuthorityBundle")
    for row in Authority.objects.all():
        read = read_certificate(bytes(row.certificate))
        certificate, maker = read.certificate, maker_of(read.certificate)
        tolerances = sorted(usual_tolerances(maker) | read.tolerances)
        row.vendor, _ = Vendor.objects.get_or_create(name=maker, defaults={"tolerances": tolerances})
        row.bundle = Bundle.objects.create(
            file_name="",
            file_sha256=hashlib.sha256(read.der).hexdigest(),
            content=b"",
            uploaded_by=row.added_by,
            uploaded_at=row.added_at,
            imported_by=row.added_by,
            imported_at=row.added_at,
            provenance=row.provenance,
        )
        row.title = short_name(certificate)
        row.kind = "root" if is_root(certificate) else "intermediate"
        row.subject_key, row.issuer_key = name_key(certificate.subject), name_key(certificate.issuer)
        row.not_before, row.not_after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        row.tolerances = sorted(read.tolerances)
        row.save()


def keep_provenance(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    Authority: Any = apps.get_model("attestation", "EndorsementAuthority")
    for row in Authority.objects.select_related("bundle"):
        row.provenance = row.bundle.provenance[:300] if row.bundle else row.provenance
        row.save(update_fields=["provenance"])


class Migration(migrations.Migration):
    dependencies = [("attestation", "0008_vendors_and_bundles")]
    operations = [migrations.RunPython(fill, keep_provenance)]
