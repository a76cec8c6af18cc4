"""A leaf is one decision in canonical bytes, and its RFC 6962 hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Act:
    """Who did what to what, and why: the content of one leaf.

    `actor` is `user:NAME`, `host:UUID` or `system`; `act` is a dotted word such as `host.approved`; `subject` is
    `kind:ID`; `detail` holds JSON values and never a secret, a nonce or Evidence.
    """

    at: datetime
    actor: str
    act: str
    subject: str
    detail: Mapping[str, object]


def canonical(act: Act) -> bytes:
    """Return the one byte string that stands for this act, whichever database it was read back from."""
    return json.dumps(
        {
            "act": act.act,
            "actor": act.actor,
            "at": act.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "detail": act.detail,
            "subject": act.subject,
        },
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    ).encode()


def leaf_hash(act: Act) -> bytes:
    """Return SHA-256(0x00 || entry), 32 bytes (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\x00" + canonical(act)).digest()
