"""The account of offline starts: a guarded host says, back at its fabric, when it started a VM without it.

The owner's release policy allows them, so many and for so long after a release; the host counts them in its TPM.
Authenticated as a release request is: a compact JWS, HS256, by the secret that came with a certificate of the host's.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from attestation.core.base64url import to_b64u
from kps.core import host_message, jose
from kps.core.protector import MOST_ROLLS
from kps.core.release_policy import MOST_OFFLINE_STARTS, ReleasePolicy
from kps.errors import MalformedDocument, MalformedRequest

ACCOUNT_LIMIT: Final = 8 * 1024
OFFLINE_MODE: Final = "tpm"  # the other modes have no TPM that could count, nor a boot state to seal to
_ACCOUNT: Final = "guardhouse-offline/v1"
_MOST_STARTS: Final = 2 * MOST_OFFLINE_STARTS  # a host that has started too often shall be able to say so
_LATEST: Final = 2**40


@dataclass(frozen=True, slots=True)
class Grant:
    """What a release allows beside itself: so many starts without the fabric, until then."""

    starts: int
    until: datetime


@dataclass(frozen=True, slots=True)
class Account:
    """What the holder of certificate `serial` says: when it started this VM by the key that it was released.

    `roll` is that key's; `starts` are all starts by it, seconds since 1970; `counted` is how often its TPM has counted.
    """

    serial: str
    owner_fingerprint: str
    protector: UUID
    vm: str
    roll: int
    starts: tuple[int, ...]
    counted: int
    nonce: bytes = field(repr=False)
    at: int


def grant_of(policy: ReleasePolicy, *, mode: str, now: datetime) -> Grant | None:
    """Return what the owner's policy allows a host that attested in this mode; None for nothing."""
    if policy.offline is None or mode != OFFLINE_MODE:
        return None
    return Grant(policy.offline.starts, now + timedelta(hours=policy.offline.hours))


def exceeds(account: Account, grant: Grant | None) -> bool:
    """Say whether a host has started a VM more often than it was allowed, or later."""
    if grant is None:
        return bool(account.starts or account.counted)
    late = any(start > grant.until.timestamp() for start in account.starts)
    return late or max(len(account.starts), account.counted) > grant.starts


def build_account(said: Account, secret: bytes) -> str:
    """Return the message that `parse_account` and `verify_account` read; for the agent."""
    payload = {
        "type": _ACCOUNT,
        "owner": said.owner_fingerprint,
        "id": str(said.protector),
        "vm": said.vm,
        "roll": said.roll,
        "starts": list(said.starts),
        "counted": said.counted,
        "nonce": to_b64u(said.nonce),
        "at": said.at,
    }
    return jose.sign(payload, secret, kid=said.serial)


def parse_account(token: object) -> jose.Unverified:
    """Read an account as far as needed to know whose secret should have authenticated it."""
    return host_message.parse_message(token, limit=ACCOUNT_LIMIT)


def verify_account(unverified: jose.Unverified, secret: bytes) -> Account:
    """Return what is said when it was said with `secret`; its form is looked at only then."""
    host_message.require_sender(unverified, secret)
    try:
        return _read(unverified)
    except MalformedDocument as error:
        raise MalformedRequest(str(error)) from error


def _read(unverified: jose.Unverified) -> Account:
    names = {"id", "roll", "starts", "counted", "nonce", "at"}
    fields = host_message.members(unverified, names, kind=_ACCOUNT, what="An account of offline starts")
    starts = fields["starts"]
    if not isinstance(starts, list) or len(starts) > _MOST_STARTS:
        raise MalformedDocument(f"An account lists at most {_MOST_STARTS} starts.")
    return Account(
        serial=unverified.kid,
        owner_fingerprint=fields["owner"],
        protector=jose.uuid(fields["id"], what="The key protector of an account"),
        vm=fields["vm"],
        roll=jose.whole_number(fields["roll"], what="The roll of a key", most=MOST_ROLLS + 1),
        starts=tuple(jose.whole_number(start, what="The time of a start", most=_LATEST) for start in starts),
        counted=jose.whole_number(fields["counted"], what="What a TPM has counted", most=2**32),
        nonce=jose.from_b64u(fields["nonce"], size=host_message.NONCE),
        at=jose.whole_number(fields["at"], what="The time of an account", most=_LATEST),
    )
