"""What an owner says to a fabric beside its chain: an approval of one release, and a question about its protector.

Compact JWS by the owner's signing key, each naming what it is, what it is about and when it was made.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from kps.core import jose
from kps.core.guardian import Guardian, GuardianKeys, parse_card
from kps.errors import MalformedDocument, OwnerMessageRefused, OwnerMessageStale

MESSAGE_LIMIT: Final = 4 * 1024
_APPROVAL: Final = "guardhouse-approval/v1"
_QUESTION: Final = "guardhouse-question/v1"
_CLOCK_SKEW: Final = 300
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Approval:
    """The owner lets one host have the key once: the request that it answers, and what that was about."""

    request: UUID
    protector: UUID
    attester: UUID
    owner_fingerprint: str
    at: int


@dataclass(frozen=True, slots=True)
class Question:
    """The owner asks what this fabric has of one of its protectors."""

    owner: Guardian
    protector: UUID
    at: int


def build_approval(approval: Approval, owner: GuardianKeys) -> str:
    """Return the message that `parse_approval` reads and `verify_approval` verifies."""
    payload = {
        "type": _APPROVAL,
        "request": str(approval.request),
        "id": str(approval.protector),
        "attester": str(approval.attester),
        "owner": approval.owner_fingerprint,
        "at": approval.at,
    }
    return jose.sign(payload, owner.signing, kid=jose.thumbprint(owner.guardian.signing))


def parse_approval(token: object) -> tuple[jose.Unverified, Approval]:
    """Read an approval that anybody may have written, to know which request it is about."""
    unverified = jose.parse_jws(token, limit=MESSAGE_LIMIT)
    names = {"type", "request", "id", "attester", "owner", "at"}
    fields = jose.members(unverified.untrusted_payload, names, what="An approval")
    if fields["type"] != _APPROVAL:
        raise MalformedDocument("This is not an approval of a version known here.")
    if not isinstance(fields["owner"], str) or not _FINGERPRINT.fullmatch(fields["owner"]):
        raise MalformedDocument("The owner in an approval is not named by a fingerprint.")
    return unverified, Approval(
        request=jose.uuid(fields["request"], what="The request that an approval answers"),
        protector=jose.uuid(fields["id"], what="The key protector of an approval"),
        attester=jose.uuid(fields["attester"], what="The host of an approval"),
        owner_fingerprint=fields["owner"],
        at=jose.whole_number(fields["at"], what="The time of an approval", most=2**40),
    )


def verify_approval(unverified: jose.Unverified, owner: Guardian) -> None:
    """Refuse an approval that this owner has not signed."""
    _require_signature(unverified, owner)


def build_question(question: Question, keys: GuardianKeys) -> str:
    """Return the message that `verify_question` reads."""
    payload = {"type": _QUESTION, "owner": question.owner.card, "id": str(question.protector), "at": question.at}
    return jose.sign(payload, keys.signing, kid=jose.thumbprint(keys.guardian.signing))


def verify_question(token: object) -> Question:
    """Return what the owner whose card is in the message asks; the owner has signed it."""
    unverified = jose.parse_jws(token, limit=MESSAGE_LIMIT)
    fields = jose.members(unverified.untrusted_payload, {"type", "owner", "id", "at"}, what="An owner's question")
    if fields["type"] != _QUESTION:
        raise MalformedDocument("This is not an owner's question of a version known here.")
    owner = parse_card(fields["owner"])
    _require_signature(unverified, owner)
    return Question(
        owner=owner,
        protector=jose.uuid(fields["id"], what="The key protector of a question"),
        at=jose.whole_number(fields["at"], what="The time of a question", most=2**40),
    )


def require_recent(at: int, *, now: datetime) -> None:
    """Refuse what was signed more than five minutes ago, or will be: a person is at work here, not a host."""
    difference = round(now.timestamp()) - at
    if abs(difference) > _CLOCK_SKEW:
        side = "behind" if difference > 0 else "ahead of"
        raise OwnerMessageStale(f"The message's time is {abs(difference)} seconds {side} this service's clock.")


def _require_signature(unverified: jose.Unverified, owner: Guardian) -> None:
    if unverified.kid != jose.thumbprint(owner.signing) or not jose.holds(unverified, owner.signing):
        raise OwnerMessageRefused(f"The message was altered, or another key than that of {owner.name} signed it.")
