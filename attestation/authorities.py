"""Which makers of TPMs this fabric trusts."""

import hashlib
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from django.db import transaction

from attestation.enrolment import refresh_endorsement
from attestation.errors import ParseError
from attestation.models import Attester, EndorsementAuthority
from ledger import service as ledger

BUNDLE_LIMIT = 1 << 20


def trust_authority(pem: bytes, *, provenance: str, by: str, now: datetime) -> list[EndorsementAuthority]:
    """Trust every certificate of a PEM bundle (at most 1 MiB) as a maker's CA; `by` is an actor of the ledger.

    Hosts that wait because their maker was not trusted are judged again.
    """
    if len(pem) > BUNDLE_LIMIT:
        raise ParseError("The bundle is larger than 1 MiB.")
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ParseError(f"The file holds no readable PEM certificate: {error}") from error
    with transaction.atomic():
        trusted = [_trust(certificate, provenance, by, now) for certificate in certificates]
        for attester in Attester.objects.filter(ek_verdict=Attester.Endorsement.UNTRUSTED):
            refresh_endorsement(attester, now=now)
    return trusted


def _trust(certificate: x509.Certificate, provenance: str, by: str, now: datetime) -> EndorsementAuthority:
    der = certificate.public_bytes(serialization.Encoding.DER)
    fingerprint = hashlib.sha256(der).hexdigest()
    name = certificate.subject.rfc4514_string()[:200]
    authority, created = EndorsementAuthority.objects.get_or_create(
        pk=fingerprint,
        defaults={"name": name, "certificate": der, "provenance": provenance, "added_by": by, "added_at": now},
    )
    if created:
        detail: dict[str, object] = {"name": name, "provenance": provenance}
        ledger.record(actor=by, act="authority.trusted", subject=f"authority:{fingerprint}", detail=detail, now=now)
    return authority
