"""Hosts that are announced before they come, by the file that Get-PlatformIdentifier writes on Windows.

An announcement approves nothing. It lets the approver see that the TPM which now waits is the one that somebody had
brought from the rack.
"""

from datetime import datetime

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, QuerySet

from attestation.acts import record, require
from attestation.core.platform_identifier import parse_platform_identifier
from attestation.errors import AlreadyDecided
from attestation.models import Attester, ExpectedHost


def announce_host(platform_identifier: bytes, *, by: User, reason: str, now: datetime) -> ExpectedHost:
    """Announce the host that a platform identifier (XML) describes. Raises ParseError, or AlreadyDecided."""
    require(by, "attestation.propose")
    found = parse_platform_identifier(platform_identifier)
    with transaction.atomic():
        try:
            with transaction.atomic():
                host = ExpectedHost.objects.create(
                    ek_fingerprint=found.fingerprint,
                    name=found.untrusted_name or "a host without a name",
                    ek_certificate=found.ek_certificate,
                    serial_number=found.untrusted_serial_number,
                    announced_by=by.get_username(),
                    announced_at=now,
                    reason=reason,
                )
        except IntegrityError:
            raise AlreadyDecided("A host with this TPM was announced already.") from None
        detail = {"name": host.name, "ek": host.ek_fingerprint, "reason": reason}
        record(by, "host.announced", host.subject, detail, now)
    return host


def expected_hosts() -> QuerySet[ExpectedHost]:
    """Return the announced hosts; `came` says whether one with that TPM has enrolled."""
    enrolled = Attester.objects.filter(ek_fingerprint=OuterRef("ek_fingerprint"))
    return ExpectedHost.objects.annotate(came=Exists(enrolled))
