"""Starts without the fabric: what a release has allowed, and the accounts that hosts give of it afterwards."""

import hashlib
import logging
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Max, QuerySet

from kps.core import host_message
from kps.core.chain import subject_of
from kps.core.offline import Account, Grant, exceeds, parse_account, verify_account
from kps.errors import OfflineUnknown, ReleaseReplayed
from kps.models import KeyRelease, OfflineAccount
from kps.senders import authenticated, held_by_sender
from ledger.service import record

logger = logging.getLogger("guardhouse.releases")
ACCOUNTED: Final = "offline.accounted"
EXCEEDED: Final = "offline.exceeded"


def take_account(token: object, *, now: datetime) -> bool:
    """Note which starts a host made by a key without this fabric; True when that was more than it was allowed.

    A host gives the same account again when an answer was lost; what says nothing new is not written twice. Raises
    `MalformedRequest`, `ReleaseRequestRefused`, `ReleaseStale`, `OfflineUnknown` or `ReleaseReplayed`.
    """
    said = authenticated(parse_account(token), verify_account, log=_log)
    host_message.require_recent(said.at, now=now)
    try:
        with transaction.atomic():
            released = _release_of(said, now=now)
            exceeded = exceeds(said, grant_of_release(released))
            if _is_news(said, released):
                _write(said, released, exceeded, now=now)
    except IntegrityError as error:
        if not OfflineAccount.objects.filter(serial=said.serial, nonce_sha256=_digest(said.nonce)).exists():
            raise
        raise ReleaseReplayed("This account was given before. A new one needs a new nonce.") from error
    return exceeded


def grant_of_release(released: KeyRelease) -> Grant | None:
    """Return the offline starts that a release has allowed."""
    if released.offline_starts is None or released.offline_until is None:
        return None
    return Grant(released.offline_starts, released.offline_until)


def accounts(*, owner_fingerprint: str) -> QuerySet[OfflineAccount]:
    """Return what hosts have said of starts of this owner's VMs without the fabric, the latest first."""
    return OfflineAccount.objects.filter(owner_fingerprint=owner_fingerprint)


def offline_starts(owner_fingerprint: str, protector_id: UUID, *, most: int) -> list[OfflineAccount]:
    """Return the last word on each release by which a VM was started without the fabric, the latest first."""
    mine = accounts(owner_fingerprint=owner_fingerprint).filter(protector_id=protector_id)
    newest = mine.order_by().values("release_id").annotate(newest=Max("pk")).values("newest")
    return list(mine.filter(pk__in=newest)[:most])


def _release_of(said: Account, *, now: datetime) -> KeyRelease:
    """Return the release that gave this host the key it speaks of."""
    host = held_by_sender(said.serial, now=now).attester_id
    key = {"owner_fingerprint": said.owner_fingerprint, "protector_id": said.protector, "attester_id": host}
    released = KeyRelease.objects.filter(**key, outcome=KeyRelease.Outcome.RELEASED, roll=said.roll - 1).first()
    if released is None:
        raise OfflineUnknown("This host was not released the key that it gives an account of.")
    return released


def _is_news(said: Account, released: KeyRelease) -> bool:
    last = OfflineAccount.objects.filter(release_id=released.pk).first()
    before = ([], 0) if last is None else (last.starts, last.counted)
    return (list(said.starts), said.counted) != before


def _write(said: Account, released: KeyRelease, exceeded: bool, *, now: datetime) -> None:
    OfflineAccount.objects.create(
        at=now,
        release_id=released.pk,
        owner_fingerprint=said.owner_fingerprint,
        protector_id=said.protector,
        vm=said.vm,
        attester_id=released.attester_id,
        host=released.host,
        serial=said.serial,
        starts=list(said.starts),
        counted=said.counted,
        exceeded=exceeded,
        nonce_sha256=_digest(said.nonce),
    )
    record(
        actor=f"host:{released.attester_id}",
        act=EXCEEDED if exceeded else ACCOUNTED,
        subject=subject_of(said.owner_fingerprint, said.protector),
        detail={
            "owner": said.owner_fingerprint,
            "release": released.pk,
            "vm": said.vm,
            "host": released.host,
            "certificate": said.serial,
            "starts": list(said.starts),
            "counted": said.counted,
            "allowed": released.offline_starts or 0,
            "until": "" if released.offline_until is None else released.offline_until.isoformat(),
        },
        now=now,
    )


def _digest(nonce: bytes) -> str:
    return hashlib.sha256(nonce).hexdigest()


def _log(serial: str, code: str) -> None:
    logger.warning("account of offline starts refused: certificate %s, code %s", serial, code)
