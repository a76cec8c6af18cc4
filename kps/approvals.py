"""The owner's yes to one release: asked for by a host that was refused, given by the owner, used once and not for long.

Two ways to give it: a click of the tenant's owner in the portal, where the policy is content with that, and a message
signed with the owner's key, which always will do. The first rests on this portal, the second on nobody here.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F, QuerySet

from kps.chains import newest_of
from kps.core.owner_message import parse_approval, require_recent, verify_approval
from kps.errors import ApprovalNeedsKey, ApprovalRequired, ApprovalUnknown, OwnerMessageRefused
from kps.models import KeyProtectorRecord, ReleaseApproval
from ledger.service import record

ASKED_FOR = timedelta(days=1)  # a host that has given up is not approved a week later
APPROVED_FOR = timedelta(minutes=30)

State = ReleaseApproval.State


def pending(*, owner_fingerprint: str, now: datetime) -> QuerySet[ReleaseApproval]:
    """Return the releases that wait for this owner."""
    return _open(now=now).select_related("record").filter(record__owner_fingerprint=owner_fingerprint)


def _open(*, now: datetime) -> QuerySet[ReleaseApproval]:
    """Return what was asked lately and under the owner's newest word: a newer one may ask for nothing, or for more."""
    return ReleaseApproval.objects.filter(
        state=State.PENDING,
        asked_last__gt=now - ASKED_FOR,
        record__statements__serial=F("record__serial"),
        record__statements__seen_at__lte=F("asked_last"),
    )


def approvals(known: KeyProtectorRecord) -> QuerySet[ReleaseApproval]:
    """Return every approval that was asked for under this protector, the latest first."""
    return known.approvals.all()


def standing_approval(
    known: KeyProtectorRecord, attester_id: UUID, *, by_key: bool, now: datetime
) -> ReleaseApproval | None:
    """Return a yes that covers a release to this host now; `by_key` when a click in the portal is none."""
    given = known.approvals.filter(attester_id=attester_id, state=State.APPROVED, expires_at__gt=now)
    return (given.filter(by_key=True) if by_key else given).first()


def use(approval: ReleaseApproval, *, now: datetime) -> None:
    """Spend a yes in the release's own transaction; of two releases that saw it, one gets it."""
    live = ReleaseApproval.objects.filter(pk=approval.pk, state=State.APPROVED, expires_at__gt=now)
    if live.update(state=State.USED, used_at=now) != 1:
        raise ApprovalRequired("The owner's approval was used meanwhile. Ask for another one by starting the VM again.")


def ask(
    known: KeyProtectorRecord,
    *,
    attester_id: UUID,
    host: str,
    vm: str,
    attestation_id: int,
    needs_key: bool,
    now: datetime,
) -> ReleaseApproval:
    """Put a refused release on its owner's list, in the caller's transaction; a host is there once."""
    asked = {"host": host, "vm": vm, "attestation_id": attestation_id, "needs_key": needs_key}
    open_ = known.approvals.select_for_update().filter(attester_id=attester_id, state=State.PENDING).first()
    if open_ is not None:
        for name, value in asked.items():
            setattr(open_, name, value)
        open_.asked_last = now
        open_.save(update_fields=[*asked, "asked_last"])
        return open_
    return ReleaseApproval.objects.create(record=known, attester_id=attester_id, asked_at=now, asked_last=now, **asked)


def approve_by_key(token: object, *, now: datetime) -> ReleaseApproval:
    """Take an approval that the owner has signed.

    Raises `MalformedDocument`, `OwnerMessageRefused`, `OwnerMessageStale` or `ApprovalUnknown`.
    """
    unverified, said = parse_approval(token)
    waiting = ReleaseApproval.objects.select_related("record").filter(
        pk=said.request,
        attester_id=said.attester,
        record__protector_id=said.protector,
        record__owner_fingerprint=said.owner_fingerprint,
    )
    found = waiting.first()
    if found is None:
        raise OwnerMessageRefused("No release waits for this approval, or its owner is another.")
    verify_approval(unverified, newest_of(found.record).statement.owner)
    require_recent(said.at, now=now)
    actor = f"owner:{said.owner_fingerprint}"
    return _decide(found, State.APPROVED, actor=actor, reason="", signed=unverified.token, now=now)


def decide_in_portal(
    approval_id: UUID, *, owner_fingerprint: str, approve: bool, actor: str, reason: str, now: datetime
) -> ReleaseApproval:
    """Give or refuse the yes for an owner's person; who that is, the caller has made sure of."""
    found = pending(owner_fingerprint=owner_fingerprint, now=now).filter(pk=approval_id).first()
    if found is None:
        raise ApprovalUnknown("No release waits for this: it was decided already, or the host gave up a day ago.")
    if approve and found.needs_key:
        raise ApprovalNeedsKey(
            "The owner's policy asks for an approval with the owner's key: `guardhouse tenant approve`."
        )
    return _decide(found, State.APPROVED if approve else State.DECLINED, actor=actor, reason=reason, now=now)


def _decide(
    found: ReleaseApproval, state: str, *, actor: str, reason: str, now: datetime, signed: str = ""
) -> ReleaseApproval:
    until = now + APPROVED_FOR if state == State.APPROVED else None
    with transaction.atomic():
        open_ = ReleaseApproval.objects.filter(pk=found.pk, state=State.PENDING, asked_last__gt=now - ASKED_FOR)
        decided = {"state": state, "by_key": bool(signed), "expires_at": until}
        if open_.update(decided_at=now, decided_by=actor, reason=reason, **decided) != 1:
            raise ApprovalUnknown("No release waits for this: it was decided already, or the host gave up a day ago.")
        record(
            actor=actor,
            act="approval.given" if state == State.APPROVED else "approval.declined",
            subject=found.record.subject,
            detail=_detail(found, reason) | ({"until": until.isoformat()} if until else {}) | _signature(signed),
            now=now,
        )
    found.refresh_from_db()
    return found


def _detail(found: ReleaseApproval, reason: str) -> dict[str, object]:
    return {
        "approval": str(found.pk),
        "owner": found.record.owner_fingerprint,
        "vm": found.vm,
        "host": found.host,
        "attester": str(found.attester_id),
        "attestation": found.attestation_id,
        "reason": reason,
    }


def _signature(signed: str) -> dict[str, object]:
    """The owner's own words go into the leaf: whoever audits can verify them without this fabric."""
    return {"signed": signed} if signed else {}


def waiting_numbers(owners: Sequence[str], *, now: datetime) -> int:
    """Return how many releases wait for these owners."""
    return _open(now=now).filter(record__owner_fingerprint__in=owners).count()
