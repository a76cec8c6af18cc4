"""The door of key protection: everything that other apps may ask of it. The rooms behind it are private."""

import logging
from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, Max, QuerySet

from kps.approvals import approve_by_key, decide_in_portal, pending, waiting_numbers
from kps.chains import examine_chain, hear, newest_of, remember, take_chain
from kps.core.chain import VerifiedChain
from kps.denials import decide_lift, denied, denied_with, deny_protector, lifts, made_from, propose_lift
from kps.errors import NotFound
from kps.guardianship import card, guardian_fingerprint, held_keys, metadata, newest_named, our_guardian, pairs
from kps.models import DenialLift, GuardianPair, KeyProtectorRecord, KeyRelease, ReleaseApproval, RotationProposal
from kps.offline import accounts, offline_starts, take_account
from kps.our_pairs import all_pairs
from kps.owner_denials import allow_by_owner, deny_by_owner
from kps.owners import OwnersView, answer_question
from kps.places import KeyOnHost, keys_on, places_of
from kps.releases import ReleaseAnswer, release
from kps.returns import holders, take_return
from kps.rotation import (
    Awaits,
    Dependant,
    awaited,
    decide,
    dependants,
    dependants_by_pair,
    impact_of,
    prepare,
    propose,
    rotations,
    waiting_for,
)
from kps.tenant_reads import (
    Refused,
    Told,
    called,
    holding,
    protectors_of,
    refused_lately,
    statements,
    told,
)

__all__ = [
    "Awaits",
    "DenialLift",
    "Dependant",
    "GuardianPair",
    "KeyOnHost",
    "KeyProtectorRecord",
    "OwnersView",
    "Refused",
    "ReleaseAnswer",
    "ReleaseApproval",
    "RotationProposal",
    "Told",
    "accounts",
    "allow_by_owner",
    "answer_question",
    "approve_by_key",
    "awaited",
    "called",
    "card",
    "decide",
    "decide_in_portal",
    "decide_lift",
    "denied",
    "denied_with",
    "deny_by_owner",
    "deny_protector",
    "dependants",
    "dependants_by_pair",
    "examine_chain",
    "guardian_fingerprint",
    "hear",
    "held_keys",
    "holders",
    "holding",
    "impact_of",
    "keys_on",
    "know_protector",
    "lifts",
    "made_from",
    "metadata",
    "newest_chain",
    "newest_named",
    "offline_starts",
    "our_guardian",
    "pairs",
    "pending",
    "places_of",
    "prepare",
    "propose",
    "propose_lift",
    "protectors",
    "protectors_of",
    "refused_lately",
    "release",
    "releases",
    "rotations",
    "starts",
    "statements",
    "take_account",
    "take_chain",
    "take_return",
    "told",
    "waiting_for",
    "waiting_numbers",
]

logger = logging.getLogger("guardhouse.releases")


def releases(*, owner_fingerprint: str | None = None) -> QuerySet[KeyRelease]:
    """Return releases and refusals, newest first. An owner's fingerprint narrows to what its signatures vouch for."""
    found = KeyRelease.objects.all()
    if owner_fingerprint is None:
        return found
    # Rows of protectors that did not verify belong to nobody: an empty fingerprint must not reach them.
    return found.filter(owner_fingerprint=owner_fingerprint) if owner_fingerprint else found.none()


def protectors(*, owner_fingerprint: str | None = None) -> QuerySet[KeyProtectorRecord]:
    """Return the key protectors that this fabric has opened, the latest used first."""
    found = KeyProtectorRecord.objects.all()
    return found if owner_fingerprint is None else found.filter(owner_fingerprint=owner_fingerprint)


def know_protector(chain: VerifiedChain, *, by: User, now: datetime) -> None:
    """Remember a protector before its first release, so that its owner's later words are taken here.

    Raises `LinkForged` when keys of this fabric have signed in its chain what this fabric has not.
    """
    with transaction.atomic():
        known = protectors(owner_fingerprint=chain.statement.owner.fingerprint)
        seen = known.filter(protector_id=chain.statement.id).exists()
        forged = all_pairs().forged_link(chain, seen=seen)
        if forged is not None:
            logger.warning("%s refused: code %s", chain.subject, forged.code)
            raise forged
        remember(chain, by=f"user:{by.get_username()}", now=now)


def newest_chain(owner_fingerprint: str, protector_id: UUID) -> VerifiedChain:
    """Return the chain that binds this fabric, as its owner has signed it."""
    known = protectors(owner_fingerprint=owner_fingerprint).filter(protector_id=protector_id).first()
    if known is None:
        raise NotFound("This fabric knows no such key protector.")
    return newest_of(known)


def starts(wanted: Collection[tuple[str, UUID]]) -> dict[tuple[str, UUID], tuple[int, KeyRelease]]:
    """Return how often the keys of these protectors were released, and the newest release of each; two queries.

    By the owner's fingerprint and the id: an id alone is what anybody can sign into a protector of their own.
    """
    rows = (
        KeyRelease.objects.filter(
            owner_fingerprint__in={owner for owner, _ in wanted},
            protector_id__in={protector_id for _, protector_id in wanted},
            outcome=KeyRelease.Outcome.RELEASED,
        )
        .order_by()
        .values_list("owner_fingerprint", "protector_id")
        .annotate(count=Count("pk"), newest=Max("pk"))
    )
    asked = set(wanted)  # the query has every owner with every id
    counted = {(owner, of): (count, newest) for owner, of, count, newest in rows if of and (owner, of) in asked}
    found = KeyRelease.objects.in_bulk([newest for _, newest in counted.values()])
    return {key: (count, found[newest]) for key, (count, newest) in counted.items()}
