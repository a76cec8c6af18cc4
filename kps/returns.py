"""Which hosts hold a VM's key now, and how one says that it does no more."""

import hashlib
import logging
from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Max, Q, QuerySet

from attestation import service as attestation
from kps.core import host_message
from kps.core.chain import subject_of
from kps.core.handback import Return, parse_return, verify_return
from kps.errors import ReleaseReplayed
from kps.models import KeyRelease, KeyReturn
from kps.senders import authenticated, held_by_sender
from ledger.service import record

logger = logging.getLogger("guardhouse.releases")


def take_return(token: object, *, now: datetime) -> bool:
    """Note that a VM has stopped on the host that says so; False when this host holds no key of it anyway.

    Raises `MalformedRequest`, `ReleaseRequestRefused`, `ReleaseStale` or `ReleaseReplayed`.
    """
    said = authenticated(parse_return(token), verify_return, log=_log)
    host_message.require_recent(said.at, now=now)
    try:
        with transaction.atomic():
            newest = _newest_release(said, held_by_sender(said.serial, now=now).attester_id)
            if newest is None:
                return False
            _write(said, newest, now=now)
    except IntegrityError as error:
        if not KeyReturn.objects.filter(serial=said.serial, nonce_sha256=_digest(said.nonce)).exists():
            raise
        raise ReleaseReplayed("This return was made before. A new one needs a new nonce.") from error
    return True


def _newest_release(said: Return, attester_id: UUID) -> KeyRelease | None:
    """Return the newest release to this host, unless it has been returned."""
    key, mine = (said.owner_fingerprint, said.protector), {"attester_id": attester_id}
    newest = keys_given(*key).filter(**mine).first()
    returned = _returns(*key).filter(**mine).first()
    if newest is None or (returned is not None and returned.release_id >= newest.pk):
        return None
    return newest


def _write(said: Return, newest: KeyRelease, *, now: datetime) -> None:
    KeyReturn.objects.create(
        at=now,
        owner_fingerprint=said.owner_fingerprint,
        protector_id=said.protector,
        vm=said.vm,
        attester_id=newest.attester_id,
        host=newest.host,
        serial=said.serial,
        release_id=newest.pk,
        nonce_sha256=_digest(said.nonce),
    )
    record(
        actor=f"host:{newest.attester_id}",
        act="key.returned",
        subject=subject_of(said.owner_fingerprint, said.protector),
        detail={
            "owner": said.owner_fingerprint,
            "release": newest.pk,
            "vm": said.vm,
            "host": newest.host,
            "certificate": said.serial,
        },
        now=now,
    )


def keys_given(owner_fingerprint: str, protector_id: UUID) -> QuerySet[KeyRelease]:
    """Return the releases by which hosts got a key of this machine, the newest first: its starts, and its making.

    The host that makes a machine is its first holder, although it asked for the key of the shielding data.
    """
    of_machine = Q(protector_id=protector_id) | Q(made_id=protector_id)
    return KeyRelease.objects.filter(
        of_machine, owner_fingerprint=owner_fingerprint, outcome=KeyRelease.Outcome.RELEASED
    )


def _returns(owner_fingerprint: str, protector_id: UUID) -> QuerySet[KeyReturn]:
    return KeyReturn.objects.filter(owner_fingerprint=owner_fingerprint, protector_id=protector_id)


def holders(owner_fingerprint: str, protector_id: UUID, *, now: datetime) -> Collection[UUID]:
    """Return the hosts that hold the key of a VM now.

    Those that got it, have not said since that the VM stopped, and hold a health certificate in force. A host that
    went away for good stops counting when its last certificate lapses.
    """
    key = (owner_fingerprint, protector_id)
    given = keys_given(*key).order_by().values_list("attester_id")
    returned = dict(_returns(*key).order_by().values_list("attester_id").annotate(Max("release_id")))
    open_ = {host for host, newest in given.annotate(Max("pk")) if newest > returned.get(host, 0)}
    return attestation.hosts_with_certificate(open_, now=now)


def _digest(nonce: bytes) -> str:
    return hashlib.sha256(nonce).hexdigest()


def _log(serial: str, code: str) -> None:
    logger.warning("return refused: certificate %s, code %s", serial, code)
