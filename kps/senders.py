"""Who sends a message that a certificate's secret authenticates: a host that holds one, or held one lately."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from attestation import service as attestation
from attestation.errors import NotFound, Refusal
from kps.core import jose
from kps.errors import ReleaseRequestRefused

Said = TypeVar("Said")
ANSWERED_AFTER_EXPIRY = timedelta(days=1)


def authenticated(
    unverified: jose.Unverified,
    verify: Callable[[jose.Unverified, bytes], Said],
    *,
    log: Callable[[str, str], object],
    now: datetime,
) -> Said:
    """Return what the holder of a certificate says; nobody writes rows here for ever with one that lapsed long ago.

    What does not authenticate its sender leaves no row, only a line in the log: `log` is told serial and code.
    """
    serial = unverified.kid
    try:
        said = verify(unverified, attestation.release_secret(serial))
        if attestation.certificate(serial).not_after < now - ANSWERED_AFTER_EXPIRY:
            raise NotFound("The certificate lapsed long ago.")
    except NotFound as error:
        raise ReleaseRequestRefused("The request does not prove that its sender holds the certificate.") from error
    except Refusal as refusal:
        log(serial, refusal.code)
        raise
    return said
