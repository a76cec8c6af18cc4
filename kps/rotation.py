"""How this fabric changes its guardian keys without an outage, and who decides it.

A pair is prepared, and owners may grant it already. Taken into use, it is what tenants import; the one before opens
what it opened. When no key protector depends on that one any more, people disable it; they can enable it again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Count, QuerySet

from attestation import standing
from attestation.acts import open_proposal, record, require
from kps.chains import newest_of_each
from kps.core.chain import VerifiedChain
from kps.errors import CannotRotate, NotFound
from kps.guardianship import pair_in_use, pairs, prepare_successor
from kps.models import GuardianPair, KeyProtectorRecord, RotationProposal

State = GuardianPair.State
Change = RotationProposal.Change
MOST_NAMED = 20


class Awaits(StrEnum):
    """What a key protector waits for until it depends on a pair no more."""

    OWNER = "owner"  # grants a newer pair
    START = "start"  # a newer pair is granted; the VM brings it along at its next start
    ITSELF = "itself"  # the owner has allowed successors, so the next start does it
    NOTHING = "nothing"  # the owner names this pair no more, and none after it


_FROM: Mapping[str, tuple[str, ...]] = {
    Change.PROMOTE: (State.PREPARED,),
    Change.DISABLE: (State.PREPARED, State.FORMER),
    Change.ENABLE: (State.DISABLED,),
}
_DONE: Mapping[str, str] = {
    Change.PROMOTE: "guardian.promoted",
    Change.DISABLE: "guardian.disabled",
    Change.ENABLE: "guardian.enabled",
}


def dependants(pair: GuardianPair) -> QuerySet[KeyProtectorRecord]:
    """Return the key protectors that no newer pair opens, as far as this fabric has seen them."""
    return KeyProtectorRecord.objects.filter(guardian_fingerprint=pair.fingerprint)


@dataclass(frozen=True, slots=True)
class Dependant:
    """A key protector that depends on a pair, and what it takes until it does so no more."""

    known: KeyProtectorRecord
    awaits: Awaits


def waiting_for(owner_fingerprint: str) -> QuerySet[KeyProtectorRecord]:
    """Return an owner's key protectors that depend on old pairs."""
    old = GuardianPair.objects.filter(state__in=(State.FORMER, State.DISABLED)).values("fingerprint")
    return KeyProtectorRecord.objects.filter(owner_fingerprint=owner_fingerprint, guardian_fingerprint__in=old)


def awaited(rows: Iterable[KeyProtectorRecord]) -> list[Dependant]:
    """Say of each that depends on a pair of ours what has to happen, by its owner's newest word.

    A signature is checked for each, so pages ask for the rows that they show.
    """
    ours, listed = {each.fingerprint: each for each in pairs()}, list(rows)
    return [
        Dependant(known, _awaits(chain, ours[known.guardian_fingerprint], ours))
        for known, chain in zip(listed, newest_of_each(listed), strict=True)
    ]


def _awaits(chain: VerifiedChain, pair: GuardianPair, ours: Mapping[str, GuardianPair]) -> Awaits:
    named = [ours[each.fingerprint] for each in chain.guardians if each.fingerprint in ours]
    if any(each.number > pair.number and each.state != State.DISABLED for each in named):
        return Awaits.START
    if all(each.number > pair.number for each in named):  # an older one: a succession led from it to this pair
        return Awaits.NOTHING
    by_itself = pair.state == State.FORMER and chain.statement.policy.successors
    return Awaits.ITSELF if by_itself else Awaits.OWNER


def dependants_by_pair() -> dict[str, int]:
    """Return how many key protectors depend on each card of ours."""
    rows = KeyProtectorRecord.objects.exclude(guardian_fingerprint="").order_by().values_list("guardian_fingerprint")
    return dict(rows.annotate(count=Count("pk")))


def impact_of(change: str, pair: GuardianPair) -> dict[str, object]:
    """Return what a change would do to key protectors now."""
    depending = dependants(pair)
    named = depending.values_list("owner_name", "protector_id")[:MOST_NAMED]
    return {
        "protectors": depending.count(),
        "owners": depending.order_by().values("owner_fingerprint").distinct().count(),
        "named": [f"{owner}: {protector}" for owner, protector in named],
    }


def rotations(*, state: str = "") -> QuerySet[RotationProposal]:
    """Return what was put forward, newest first."""
    found = RotationProposal.objects.select_related("pair", "proposed_by", "decided_by")
    return found.filter(state=state) if state else found


def prepare(*, by: User, reason: str, now: datetime) -> GuardianPair:
    """Make a pair for later. Owners can grant it at once; what tenants import stays as it is."""
    require(by, "kps.rotate")
    if GuardianPair.objects.filter(state=State.PREPARED).exists():
        raise CannotRotate("A key pair is prepared already. Take it into use, or disable it.")
    try:
        with transaction.atomic():
            pair = prepare_successor(now=now)
            _record(by, "guardian.prepared", pair, {"reason": reason}, now)
    except IntegrityError:
        raise CannotRotate("Somebody else has prepared a key pair at the same moment.") from None
    return pair


def propose(pair_number: int, change: str, *, by: User, reason: str, now: datetime) -> RotationProposal:
    """Put a change of a pair forward, with what it would do. Somebody else decides it."""
    require(by, "kps.rotate")
    pair = _pair(pair_number)
    with transaction.atomic():
        _require_possible(change, pair)
        impact = impact_of(change, pair)
        proposal = RotationProposal(
            pair=pair, change=change, impact=impact, proposed_by=by, proposed_at=now, reason=reason
        )
        open_proposal(proposal)
        detail = {"change": change, "proposal": proposal.pk, "reason": reason, "protectors": impact["protectors"]}
        _record(by, "guardian.proposed", pair, detail, now)
    return proposal


def decide(proposal_id: int, *, by: User, approve: bool, reason: str, now: datetime) -> RotationProposal:
    """Approve or reject a change, once, and let it take effect in the same transaction.

    With four eyes on, whoever proposed cannot decide. Releases under way end before it, and new ones come after.
    """
    require(by, "kps.decide_rotation")
    proposal = rotations().filter(pk=proposal_id).first()
    if proposal is None:
        raise NotFound("There is no such proposal.")
    with transaction.atomic():
        standing.change()
        proposal.close(by=by, approve=approve, reason=reason, now=now)
        detail: dict[str, object] = {"proposal": proposal.pk, "change": proposal.change, "reason": reason}
        if approve:
            detail["protectors"] = impact_of(proposal.change, proposal.pair)["protectors"]
            _apply(proposal.change, proposal.pair, now)
        _record(by, _DONE[proposal.change] if approve else "guardian.rejected", proposal.pair, detail, now)
    proposal.refresh_from_db()
    return proposal


def _apply(change: str, pair: GuardianPair, now: datetime) -> None:
    """Change the pair if it still is in a state to change from."""
    if change == Change.PROMOTE:
        before = pair_in_use(now=now)
        GuardianPair.objects.filter(pk=before.pk, state=State.PRIMARY).update(state=State.FORMER, primary_until=now)
    became: Mapping[str, dict[str, object]] = {
        Change.PROMOTE: {"state": State.PRIMARY, "primary_since": now},
        Change.DISABLE: {"state": State.DISABLED, "disabled_at": now},
        Change.ENABLE: {"state": State.FORMER, "disabled_at": None},
    }
    if GuardianPair.objects.filter(pk=pair.pk, state__in=_FROM[change]).update(**became[change]) != 1:
        raise CannotRotate(f"{pair.name} is not in a state for this any more.")


def _require_possible(change: str, pair: GuardianPair) -> None:
    if pair.state not in _FROM[change]:
        raise CannotRotate(f"{pair.name} is “{pair.get_state_display().lower()}”, so this cannot be done with it.")


def _pair(number: int) -> GuardianPair:
    found = pairs().filter(number=number).first()
    if found is None:
        raise NotFound("There is no such key pair.")
    return found


def _record(by: User, act: str, pair: GuardianPair, detail: Mapping[str, object], now: datetime) -> None:
    about = {"name": pair.name, "fingerprint": pair.fingerprint}
    record(by, act, pair.subject, {**about, **detail}, now)
