"""What messages of a guarded host about a VM of its have in common: a compact JWS, HS256, under its release secret."""

import re
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Final

from kps.core import jose
from kps.core.bundle import NAME
from kps.core.request import CLOCK_SKEW
from kps.errors import MalformedDocument, MalformedRequest, ReleaseRequestRefused, ReleaseStale

NONCE: Final = range(16, 65)  # bytes
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}", re.ASCII)
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def parse_message(token: object, *, limit: int) -> jose.Unverified:
    """Read a message as far as needed to know whose secret should have authenticated it. Raises `MalformedRequest`."""
    try:
        unverified = jose.parse_jws(token, limit=limit)
    except MalformedDocument as error:
        raise MalformedRequest(str(error)) from error
    if not _SERIAL.fullmatch(unverified.kid):
        raise MalformedRequest("The key id of a host's message is not a certificate's serial number.")
    return unverified


def require_sender(unverified: jose.Unverified, secret: bytes) -> None:
    """Refuse what was not said with `secret`."""
    if not jose.holds(unverified, secret):
        raise ReleaseRequestRefused("The message does not prove that its sender holds the certificate.")


def members(unverified: jose.Unverified, names: AbstractSet[str], *, kind: str, what: str) -> jose.Json:
    """Return what is said about an owner's VM: `names` beside its `owner` and `vm`, of the message type `kind`."""
    fields = jose.members(unverified.untrusted_payload, {"type", "owner", "vm", *names}, what=what)
    if fields["type"] != kind:
        raise MalformedDocument(f"{what} is not of a version known here.")
    if not isinstance(fields["owner"], str) or not _FINGERPRINT.fullmatch(fields["owner"]):
        raise MalformedDocument("An owner is named by a fingerprint.")
    if not isinstance(fields["vm"], str) or not NAME.fullmatch(fields["vm"]):
        raise MalformedDocument("The name of a virtual machine is 1 to 64 letters, digits, dots, dashes.")
    return fields


def require_recent(at: int, *, now: datetime) -> None:
    """Refuse what was said more than a minute ago, or will be."""
    if abs(round(now.timestamp()) - at) > CLOCK_SKEW:
        raise ReleaseStale("The message was made by a clock that is wrong, or long ago. Check the host's clock.")
