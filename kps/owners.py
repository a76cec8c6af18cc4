"""What an owner learns of its own protector when it asks with its key: no account and no session is needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from attestation import service as attestation
from kps.approvals import pending
from kps.chains import newest_of
from kps.core.chain import VerifiedChain
from kps.core.owner_message import require_recent, verify_question
from kps.errors import OwnerMessageRefused
from kps.models import KeyProtectorRecord, ReleaseApproval


@dataclass(frozen=True, slots=True)
class Waiting:
    """A release that waits for the owner, and what the host had proved when it asked."""

    approval: ReleaseApproval
    mode: str
    policy_version: int
    attested_at: datetime


@dataclass(frozen=True, slots=True)
class OwnersView:
    """The newest chain here, whether this fabric denies the protector, and the releases that wait for the owner."""

    chain: VerifiedChain
    denied: bool
    waiting: Sequence[Waiting]


def answer_question(token: object, *, now: datetime) -> OwnersView:
    """Answer an owner about one of its protectors; who signed the question is who is answered.

    Raises `MalformedDocument`, `OwnerMessageRefused` or `OwnerMessageStale`.
    """
    question = verify_question(token)
    require_recent(question.at, now=now)
    owner = question.owner.fingerprint
    known = KeyProtectorRecord.objects.filter(owner_fingerprint=owner, protector_id=question.protector).first()
    if known is None:
        raise OwnerMessageRefused("This fabric knows no such key protector of this owner.")
    return OwnersView(newest_of(known), known.denied_at is not None, _waiting(known, now=now))


def _waiting(known: KeyProtectorRecord, *, now: datetime) -> list[Waiting]:
    found = pending(owner_fingerprint=known.owner_fingerprint, now=now).filter(record=known)
    proved = attestation.attestations().in_bulk([each.attestation_id for each in found])
    pairs = [(each, proved[each.attestation_id]) for each in found]
    return [Waiting(each, by.mode, by.policy_version, by.at) for each, by in pairs]
