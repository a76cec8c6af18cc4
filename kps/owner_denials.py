"""What an owner's people deny in the portal: every release under one of their protectors, until they allow it again.

It rests on this portal and on whoever signs in there, and is quick. What rests on nobody here is the owner's next
statement, in which this fabric is not named.
"""

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from kps.core.chain import subject_of
from kps.errors import DenialUnchanged, DeniedByOwner
from kps.models import KeyProtectorRecord
from ledger.service import record


def deny_by_owner(owner_fingerprint: str, protector_id: UUID, *, actor: str, reason: str, now: datetime) -> None:
    """Refuse every release from now on; who the owner's person is, the caller has made sure of."""
    said = {"owner_denied_at": now, "owner_denied_by": actor.removeprefix("user:"), "owner_denied_reason": reason}
    with transaction.atomic():
        if _known(owner_fingerprint, protector_id).filter(owner_denied_at=None).update(**said) != 1:
            raise DenialUnchanged("It is denied already, or this fabric has not seen its key protector.")
        _record("protector.denied_by_owner", owner_fingerprint, protector_id, actor=actor, reason=reason, now=now)


def allow_by_owner(owner_fingerprint: str, protector_id: UUID, *, actor: str, reason: str, now: datetime) -> None:
    """Take the owner's denial back; one by this fabric's people stays."""
    said = {"owner_denied_at": None, "owner_denied_by": "", "owner_denied_reason": ""}
    with transaction.atomic():
        if _known(owner_fingerprint, protector_id).filter(owner_denied_at__isnull=False).update(**said) != 1:
            raise DenialUnchanged("The owner’s people have not denied it.")
        _record("protector.allowed_by_owner", owner_fingerprint, protector_id, actor=actor, reason=reason, now=now)


def require_not_denied(known: KeyProtectorRecord) -> None:
    """Raise when the owner's people have denied a protector, whose record is locked."""
    if known.owner_denied_at is not None:
        raise DeniedByOwner(
            f"The owner's people have denied all releases of this key since {known.owner_denied_at:%Y-%m-%d %H:%M} UTC:"
            f" {known.owner_denied_reason} An owner can allow them again on the VM's page."
        )


def _known(owner_fingerprint: str, protector_id: UUID) -> QuerySet[KeyProtectorRecord]:
    return KeyProtectorRecord.objects.filter(owner_fingerprint=owner_fingerprint, protector_id=protector_id)


def _record(act: str, owner: str, protector_id: UUID, *, actor: str, reason: str, now: datetime) -> None:
    detail = {"protector": str(protector_id), "owner": owner, "reason": reason}
    record(actor=actor, act=act, subject=subject_of(owner, protector_id), detail=detail, now=now)
