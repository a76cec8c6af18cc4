"""Who sends a message that a certificate's secret authenticates: a host that holds one, or held one lately."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from attestation import service as attestation
from attestation.errors import Refusal
from attestation.service import Holding
from kps.core import jose
from kps.errors import ReleaseRequestRefused

Said = TypeVar("Said")
ANSWERED_AFTER_EXPIRY = timedelta(days=1)


def authenticated(
    unverified: jose.Unverified,
    verify: Callable[[jose.Unverified, bytes], Said],
    *,
    log: Callable[[str, str], object],
) -> Said:
    """Return what the holder of a certificate says; the secret is derived, so no database is asked.

    What does not authenticate its sender leaves no row, only a line in the log: `log` is told serial and code.
    """
    try:
        return verify(unverified, attestation.release_secret(unverified.kid))
    except Refusal as refusal:
        log(unverified.kid, refusal.code)
        raise


def held_by_sender(serial: str, *, now: datetime) -> Holding:
    """Return the certificate of a message that is authentic; nobody writes rows here for ever with one long lapsed."""
    held = attestation.held_certificate(serial, now=now)
    if held is None or held.not_after < now - ANSWERED_AFTER_EXPIRY:
        raise ReleaseRequestRefused("The request does not prove that its sender holds the certificate.")
    return held
