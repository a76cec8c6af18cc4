"""A leaf is one decision in canonical bytes, and its RFC 6962 hash."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

OWNER: Final = "owner"
"""The member of `detail` that names whom an act concerns, by the fingerprint of its owner key."""


@dataclass(frozen=True, slots=True)
class Act:
    """Who did what to what, and why: the content of one leaf.

    `actor` is `user:NAME`, `host:UUID` or `system`; `act` is a dotted word such as `host.approved`; `subject` is
    `kind:ID`; `detail` holds JSON values and never a secret, a nonce or Evidence. `salt` keeps anybody who only knows
    the hash from guessing the rest; acts of the time before there were salts have none.
    """

    at: datetime
    actor: str
    act: str
    subject: str
    detail: Mapping[str, object]
    salt: str

    @property
    def owner(self) -> str:
        """The owner whom this act concerns, and whom it is shown to; "" for an act that concerns the fabric alone."""
        return owner_in(self.detail)


def owner_in(detail: Mapping[str, object]) -> str:
    found = detail.get(OWNER)
    return found if isinstance(found, str) and re.fullmatch("[0-9a-f]{64}", found) else ""


def canonical(act: Act) -> bytes:
    """Return the one byte string that stands for this act, whichever database it was read back from."""
    return canonical_json(members(act))


def members(act: Act) -> dict[str, object]:
    """Return an act as the JSON object that its hash is over."""
    said: dict[str, object] = {
        "act": act.act,
        "actor": act.actor,
        "at": act.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "detail": act.detail,
        "subject": act.subject,
    }
    return said | {"salt": act.salt} if act.salt else said


def canonical_json(value: object) -> bytes:
    """Return the one byte string that stands for a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def leaf_hash(act: Act) -> bytes:
    """Return SHA-256(0x00 || entry), 32 bytes (RFC 6962 section 2.1)."""
    return entry_hash(canonical(act))


def entry_hash(entry: bytes) -> bytes:
    """Return the hash of a leaf whose content is these bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def digest_of(content: object) -> str:
    """Return the SHA-256 of a JSON value, by which a leaf names what lies outside the ledger."""
    return hashlib.sha256(canonical_json(content)).hexdigest()
