"""The release request: what a guarded host asks, authenticated by the secret that came with its certificate.

A compact JWS, HS256, `kid` = the certificate's serial number. A stolen certificate and protector do not make one.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from attestation.core.base64url import to_b64u
from kps.core import jose
from kps.core.bundle import NAME
from kps.errors import MalformedDocument, MalformedRequest, ReleaseRequestRefused, ReleaseStale

REQUEST_LIMIT: Final = 120_000
CERTIFICATE_LIMIT: Final = 8 * 1024
CLOCK_SKEW: Final = 60
_SERIAL: Final = re.compile(r"[0-9a-f]{1,40}", re.ASCII)
_NONCE: Final = range(16, 65)


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """What the holder of certificate `serial` asks. The protector in it is still anybody's."""

    serial: str
    certificate: bytes
    vm: str
    nonce: bytes = field(repr=False)
    at: int
    untrusted_protector: jose.Json = field(repr=False)


def build_request(request: ReleaseRequest, secret: bytes) -> str:
    """Return the message that `parse_request` and `verify_request` read; for the agent."""
    payload = {
        "key_protector": request.untrusted_protector,
        "certificate": to_b64u(request.certificate),
        "vm": request.vm,
        "nonce": to_b64u(request.nonce),
        "at": request.at,
    }
    return jose.sign(payload, secret, kid=request.serial)


def parse_request(token: object) -> jose.Unverified:
    """Read a request as far as needed to know whose secret should have authenticated it."""
    try:
        unverified = jose.parse_jws(token, limit=REQUEST_LIMIT)
    except MalformedDocument as error:
        raise MalformedRequest(str(error)) from error
    if not _SERIAL.fullmatch(unverified.kid):
        raise MalformedRequest("The key id of a release request is not a certificate's serial number.")
    return unverified


def verify_request(unverified: jose.Unverified, secret: bytes) -> ReleaseRequest:
    """Return the request when it was made with `secret`; its form is looked at only then."""
    if not jose.holds(unverified, secret):
        raise ReleaseRequestRefused("The request does not prove that its sender holds the certificate.")
    try:
        return _read(unverified)
    except MalformedDocument as error:
        raise MalformedRequest(str(error)) from error


def _read(unverified: jose.Unverified) -> ReleaseRequest:
    names = {"key_protector", "certificate", "vm", "nonce", "at"}
    fields = jose.members(unverified.untrusted_payload, names, what="A release request")
    if not isinstance(fields["vm"], str) or not NAME.fullmatch(fields["vm"]):
        raise MalformedDocument("The name of a virtual machine is 1 to 64 letters, digits, dots, dashes.")
    if not isinstance(fields["key_protector"], dict):
        raise MalformedDocument("The key protector is not an object.")
    return ReleaseRequest(
        serial=unverified.kid,
        certificate=jose.from_b64u(fields["certificate"], size=range(1, CERTIFICATE_LIMIT + 1)),
        vm=fields["vm"],
        nonce=jose.from_b64u(fields["nonce"], size=_NONCE),
        at=jose.whole_number(fields["at"], what="The time of a release request", most=2**40),
        untrusted_protector=fields["key_protector"],
    )


def require_fresh(request: ReleaseRequest, *, now: datetime) -> None:
    """Refuse what was made more than a minute ago, or will be."""
    difference = round(now.timestamp()) - request.at
    if abs(difference) > CLOCK_SKEW:
        side = "behind" if difference > 0 else "ahead of"
        raise ReleaseStale(
            f"The request's time is {abs(difference)} seconds {side} this service's clock;"
            f" at most {CLOCK_SKEW} are accepted. Check the host's clock."
        )
