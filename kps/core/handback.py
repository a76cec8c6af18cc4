"""The return: a guarded host says that a VM whose key it got has stopped, so that it counts no longer.

Authenticated as a release request is: a compact JWS, HS256, by the secret that came with a certificate of the host's.
"""

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from attestation.core.base64url import to_b64u
from kps.core import host_message, jose
from kps.errors import MalformedDocument, MalformedRequest

RETURN_LIMIT: Final = 4 * 1024
_RETURN: Final = "guardhouse-return/v1"


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
    return host_message.parse_message(token, limit=RETURN_LIMIT)


def verify_return(unverified: jose.Unverified, secret: bytes) -> Return:
    """Return what is said when it was said with `secret`; its form is looked at only then."""
    host_message.require_sender(unverified, secret)
    try:
        fields = host_message.members(unverified, {"id", "nonce", "at"}, kind=_RETURN, what="A return")
        return Return(
            serial=unverified.kid,
            owner_fingerprint=fields["owner"],
            protector=jose.uuid(fields["id"], what="The key protector of a return"),
            vm=fields["vm"],
            nonce=jose.from_b64u(fields["nonce"], size=host_message.NONCE),
            at=jose.whole_number(fields["at"], what="The time of a return", most=2**40),
        )
    except MalformedDocument as error:
        raise MalformedRequest(str(error)) from error
