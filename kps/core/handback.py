"""The return: a guarded host says that a VM whose key it got has stopped, so that it counts no longer.

Authenticated as a release request is: a compact JWS, HS256, by the secret that came with a certificate of the host's.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from attestation.core.base64url import to_b64u
from kps.core import jose
from kps.core.bundle import NAME
from kps.core.request import CLOCK_SKEW
from kps.errors import MalformedDocument, MalformedRequest, ReleaseRequestRefused, ReleaseStale

RETURN_LIMIT: Final = 4 * 1024
_RETURN: Final = "guardhouse-return/v1"
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}", re.ASCII)
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NONCE: Final = range(16, 65)


@dataclass(frozen=True, slots=True)
class Return:
    """What the holder of certificate `serial` says: this VM, under this owner's key protector, runs here no more."""

    serial: str
    owner_fingerprint: str
    protector: UUID
    vm: str
    nonce: bytes = field(repr=False)
    at: int


def build_return(said: Return, secret: bytes) -> str:
    """Return the message that `parse_return` and `verify_return` read; for the agent."""
    payload = {
        "type": _RETURN,
        "owner": said.owner_fingerprint,
        "id": str(said.protector),
        "vm": said.vm,
        "nonce": to_b64u(said.nonce),
        "at": said.at,
    }
    return jose.sign(payload, secret, kid=said.serial)


def parse_return(token: object) -> jose.Unverified:
    """Read a return as far as needed to know whose secret should have authenticated it."""
    try:
        unverified = jose.parse_jws(token, limit=RETURN_LIMIT)
    except MalformedDocument as error:
        raise MalformedRequest(str(error)) from error
    if not _SERIAL.fullmatch(unverified.kid):
        raise MalformedRequest("The key id of a return is not a certificate's serial number.")
    return unverified


def verify_return(unverified: jose.Unverified, secret: bytes) -> Return:
    """Return what is said when it was said with `secret`; its form is looked at only then."""
    if not jose.holds(unverified, secret):
        raise ReleaseRequestRefused("The return does not prove that its sender holds the certificate.")
    try:
        return _read(unverified)
    except MalformedDocument as error:
        raise MalformedRequest(str(error)) from error


def _read(unverified: jose.Unverified) -> Return:
    fields = jose.members(unverified.untrusted_payload, {"type", "owner", "id", "vm", "nonce", "at"}, what="A return")
    if fields["type"] != _RETURN:
        raise MalformedDocument("This is not a return of a version known here.")
    if not isinstance(fields["owner"], str) or not _FINGERPRINT.fullmatch(fields["owner"]):
        raise MalformedDocument("The owner in a return is not named by a fingerprint.")
    if not isinstance(fields["vm"], str) or not NAME.fullmatch(fields["vm"]):
        raise MalformedDocument("The name of a virtual machine is 1 to 64 letters, digits, dots, dashes.")
    return Return(
        serial=unverified.kid,
        owner_fingerprint=fields["owner"],
        protector=jose.uuid(fields["id"], what="The key protector of a return"),
        vm=fields["vm"],
        nonce=jose.from_b64u(fields["nonce"], size=_NONCE),
        at=jose.whole_number(fields["at"], what="The time of a return", most=2**40),
    )


def require_recent(said: Return, *, now: datetime) -> None:
    """Refuse what was said more than a minute ago, or will be."""
    if abs(round(now.timestamp()) - said.at) > CLOCK_SKEW:
        raise ReleaseStale("The return was made by a clock that is wrong, or long ago. Check the host's clock.")
