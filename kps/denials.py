"""What people of this fabric deny: every release under one owner's protector, at once, until two of them allow it.

Denied shielding data makes no machines any more. Those that it made go on, unless they are denied with it.
"""

from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet

from attestation.acts import open_proposal, record, require
from kps.core.chain import subject_of
from kps.errors import DenialUnchanged, NotFound
from kps.models import DenialLift, KeyProtectorRecord


def deny_protector(
    owner_fingerprint: str, protector_id: UUID, *, by: User, reason: str, now: datetime, with_machines: bool = False
) -> None:
    """Refuse every release under this owner's protector from now on; VMs that run are not touched.

    `with_machines` denies those too that were made from it, here or elsewhere, where it is shielding data's.
    """
    require(by, "kps.deny")
    said = {"denied_at": now, "denied_by": by.get_username(), "denied_reason": reason}
    with transaction.atomic():
        # The protector first: a machine that is being made from it holds its row, and is among the made ones then.
        allowed = _known(owner_fingerprint, protector_id).filter(denied_at=None)
        if allowed.update(denies_machines=with_machines, **said) != 1:
            raise NotFound("There is no such key protector, or it is denied already.")
        made = made_from(owner_fingerprint, protector_id).filter(denied_at=None)
        number = made.update(denied_with=protector_id, **said) if with_machines else 0
        detail = _detail(owner_fingerprint, protector_id, reason, made=number)
        record(by, "protector.denied", subject_of(owner_fingerprint, protector_id), detail, now)


def propose_lift(owner_fingerprint: str, protector_id: UUID, *, by: User, reason: str, now: datetime) -> DenialLift:
    """Put forward that releases are allowed again. Somebody else decides it; until then they stay denied."""
    require(by, "kps.deny")
    with transaction.atomic():
        known = _known(owner_fingerprint, protector_id).filter(denied_at__isnull=False).select_for_update().first()
        if known is None:
            raise NotFound("There is no such key protector among the denied ones.")
        lift = open_proposal(DenialLift(record=known, proposed_by=by, proposed_at=now, reason=reason))
        detail = _detail(owner_fingerprint, protector_id, reason) | {"proposal": lift.pk}
        record(by, "protector.lift_proposed", known.subject, detail, now)
    return lift


def decide_lift(lift_id: int, *, by: User, approve: bool, reason: str, now: datetime) -> DenialLift:
    """Decide it, once, and let it take effect in the same transaction; with four eyes, by somebody else.

    Machines that were denied by themselves stay so, and what an owner's people deny stays denied.
    """
    require(by, "kps.decide_lift")
    lift = lifts().filter(pk=lift_id).first()
    if lift is None:
        raise NotFound("There is no such proposal.")
    owner, protector_id = lift.record.owner_fingerprint, lift.record.protector_id
    with transaction.atomic():
        lift.close(by=by, approve=approve, reason=reason, now=now)
        made = _allow(owner, protector_id) if approve else 0
        detail = _detail(owner, protector_id, reason, made=made) | {"proposal": lift.pk}
        record(by, "protector.allowed" if approve else "protector.lift_rejected", lift.record.subject, detail, now)
    lift.refresh_from_db()
    return lift


def _allow(owner_fingerprint: str, protector_id: UUID) -> int:
    """Take a denial back, and return for how many machines that were denied with it."""
    none = {"denied_at": None, "denied_by": "", "denied_reason": "", "denied_with": None, "denies_machines": False}
    if _known(owner_fingerprint, protector_id).filter(denied_at__isnull=False).update(**none) != 1:
        raise DenialUnchanged("It is allowed already: the denial of what it was made from was lifted.")
    return _denied_with(owner_fingerprint, protector_id).update(**none)


def lifts(*, state: str = "") -> QuerySet[DenialLift]:
    """Return what was put forward, newest first."""
    found = DenialLift.objects.select_related("record", "proposed_by", "decided_by")
    return found.filter(state=state) if state else found


def denied() -> QuerySet[KeyProtectorRecord]:
    """Return the protectors that are denied, the latest first; those that are denied with another one come with it."""
    return KeyProtectorRecord.objects.filter(denied_at__isnull=False, denied_with=None).order_by("-denied_at")


def _known(owner_fingerprint: str, protector_id: UUID) -> QuerySet[KeyProtectorRecord]:
    return KeyProtectorRecord.objects.filter(owner_fingerprint=owner_fingerprint, protector_id=protector_id)


def made_from(owner_fingerprint: str, protector_id: UUID) -> QuerySet[KeyProtectorRecord]:
    """Return the machines that were made from an owner's shielding data, as far as this fabric has seen them."""
    return KeyProtectorRecord.objects.filter(owner_fingerprint=owner_fingerprint, making__made_from=protector_id)


def denied_with(record: KeyProtectorRecord) -> QuerySet[KeyProtectorRecord]:
    """Return the machines whose denial came with that of what they were made from, and goes with it."""
    return _denied_with(record.owner_fingerprint, record.protector_id)


def _denied_with(owner_fingerprint: str, protector_id: UUID) -> QuerySet[KeyProtectorRecord]:
    return made_from(owner_fingerprint, protector_id).filter(denied_with=protector_id)


def _detail(owner: str, protector_id: UUID, reason: str, *, made: int = 0) -> dict[str, object]:
    return {"protector": str(protector_id), "owner": owner, "reason": reason} | ({"machines": made} if made else {})
