"""The door of key protection: everything that other apps may ask of it. The rooms behind it are private."""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Count, Max, QuerySet

from kps.errors import NotAllowed, NotFound
from kps.guardianship import guardian_fingerprint, metadata
from kps.models import KeyProtectorRecord, KeyRelease
from kps.releases import ReleaseAnswer, release
from ledger.service import record

__all__ = [
    "ReleaseAnswer",
    "allow_protector",
    "deny_protector",
    "guardian_fingerprint",
    "metadata",
    "protectors",
    "release",
    "releases",
    "starts",
]


def releases(*, owner_fingerprint: str | None = None, protector_id: UUID | None = None) -> QuerySet[KeyRelease]:
    """Return releases and refusals, newest first. An owner's fingerprint narrows to what its signatures vouch for."""
    found = KeyRelease.objects.all()
    if owner_fingerprint is not None:
        # Rows of protectors that did not verify belong to nobody: an empty fingerprint must not reach them.
        found = found.filter(owner_fingerprint=owner_fingerprint) if owner_fingerprint else found.none()
    return found if protector_id is None else found.filter(protector_id=protector_id)


def protectors(*, owner_fingerprint: str | None = None) -> QuerySet[KeyProtectorRecord]:
    """Return the key protectors that this fabric has opened, the latest used first."""
    found = KeyProtectorRecord.objects.all()
    return found if owner_fingerprint is None else found.filter(owner_fingerprint=owner_fingerprint)


def starts(protector_ids: Collection[UUID]) -> dict[tuple[str, UUID], tuple[int, KeyRelease]]:
    """Return how often the keys of these protectors were released, and the newest release of each; two queries.

    By owner and id: an id alone is what anybody can sign into a protector of their own.
    """
    released = KeyRelease.objects.filter(protector_id__in=protector_ids, outcome=KeyRelease.Outcome.RELEASED)
    rows = (
        released.order_by()
        .values_list("owner_fingerprint", "protector_id")
        .annotate(count=Count("pk"), newest=Max("pk"))
    )
    counted = {newest: count for _, _, count, newest in rows}
    found = KeyRelease.objects.in_bulk(counted)
    return {
        (row.owner_fingerprint, row.protector_id): (counted[pk], row) for pk, row in found.items() if row.protector_id
    }


def deny_protector(protector_id: UUID, *, by: User, reason: str, now: datetime) -> None:
    """Refuse every release under this protector from now on; VMs that run are not touched."""
    _require(by)
    with transaction.atomic():
        allowed = KeyProtectorRecord.objects.filter(pk=protector_id, denied_at=None)
        if allowed.update(denied_at=now, denied_by=by.get_username(), denied_reason=reason) != 1:
            raise NotFound("There is no such key protector, or it is denied already.")
        _record(by, "protector.denied", protector_id, reason, now)


def allow_protector(protector_id: UUID, *, by: User, reason: str, now: datetime) -> None:
    """Take a denial back."""
    _require(by)
    with transaction.atomic():
        denied = KeyProtectorRecord.objects.filter(pk=protector_id, denied_at__isnull=False)
        if denied.update(denied_at=None, denied_by="", denied_reason="") != 1:
            raise NotFound("There is no such key protector among the denied ones.")
        _record(by, "protector.allowed", protector_id, reason, now)


def _require(by: User) -> None:
    if not by.has_perm("kps.deny"):
        raise NotAllowed("Your role does not decide about key protectors.")


def _record(by: User, act: str, protector_id: UUID, reason: str, now: datetime) -> None:
    record(
        actor=f"user:{by.get_username()}",
        act=act,
        subject=f"protector:{protector_id}",
        detail={"reason": reason},
        now=now,
    )
