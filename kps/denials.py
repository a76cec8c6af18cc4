"""What people of this fabric deny: every release under one owner's protector, at once, until they allow it again.

Denied shielding data makes no machines any more. Those that it made go on, unless they are denied with it.
"""

from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet

from attestation.acts import record
from kps.core.chain import subject_of
from kps.errors import NotAllowed, NotFound
from kps.models import KeyProtectorRecord


def deny_protector(
    owner_fingerprint: str, protector_id: UUID, *, by: User, reason: str, now: datetime, with_machines: bool = False
) -> None:
    """Refuse every release under this owner's protector from now on; VMs that run are not touched.

    `with_machines` denies those too that were made from it, here or elsewhere, where it is shielding data's.
    """
    _require(by)
    said = {"denied_at": now, "denied_by": by.get_username(), "denied_reason": reason}
    with transaction.atomic():
        # The protector first: a machine that is being made from it holds its row, and is among the made ones then.
        allowed = _known(owner_fingerprint, protector_id).filter(denied_at=None)
        if allowed.update(denies_machines=with_machines, **said) != 1:
            raise NotFound("There is no such key protector, or it is denied already.")
        made = _made_from(owner_fingerprint, protector_id).filter(denied_at=None)
        number = made.update(denied_with=protector_id, **said) if with_machines else 0
        detail = _detail(owner_fingerprint, protector_id, reason, made=number)
        record(by, "protector.denied", subject_of(owner_fingerprint, protector_id), detail, now)


def allow_protector(owner_fingerprint: str, protector_id: UUID, *, by: User, reason: str, now: datetime) -> None:
    """Take a denial back; machines that were denied by themselves stay so."""
    _require(by)
    said = {"denied_at": None, "denied_by": "", "denied_reason": "", "denied_with": None, "denies_machines": False}
    with transaction.atomic():
        if _known(owner_fingerprint, protector_id).filter(denied_at__isnull=False).update(**said) != 1:
            raise NotFound("There is no such key protector among the denied ones.")
        made = _made_from(owner_fingerprint, protector_id).filter(denied_with=protector_id)
        detail = _detail(owner_fingerprint, protector_id, reason, made=made.update(**said))
        record(by, "protector.allowed", subject_of(owner_fingerprint, protector_id), detail, now)


def denied() -> QuerySet[KeyProtectorRecord]:
    """Return the protectors that are denied, the latest first; those that are denied with another one come with it."""
    return KeyProtectorRecord.objects.filter(denied_at__isnull=False, denied_with=None).order_by("-denied_at")


def _known(owner_fingerprint: str, protector_id: UUID) -> QuerySet[KeyProtectorRecord]:
    return KeyProtectorRecord.objects.filter(owner_fingerprint=owner_fingerprint, protector_id=protector_id)


def _made_from(owner_fingerprint: str, protector_id: UUID) -> QuerySet[KeyProtectorRecord]:
    return KeyProtectorRecord.objects.filter(owner_fingerprint=owner_fingerprint, making__made_from=protector_id)


def _require(by: User) -> None:
    if not by.has_perm("kps.deny"):
        raise NotAllowed("Your role does not decide about key protectors.")


def _detail(owner: str, protector_id: UUID, reason: str, *, made: int) -> dict[str, object]:
    return {"protector": str(protector_id), "owner": owner, "reason": reason} | ({"machines": made} if made else {})
