"""The log's own key: Ed25519, since signed notes know no other kind that witnesses check; sealed under custody.

Custody's keys are on P-256, so what it seals here is a seed, under a key that only it can derive. In use the key is in
this process's memory. Whoever steals it can sign heads of another log, and no more than that: witnesses, receipts and
kept checkpoints show the fork.
"""

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings
from django.db import IntegrityError, transaction

from ledger.core.note import Kind, VerifierKey, verifier_key
from ledger.custody import NONCE_SIZE, Custody, custody, opened_by
from ledger.models import LogKey
from ledger.recording import record

FIRST: Final = 1
_PURPOSE: Final = "log key"


@dataclass(frozen=True, slots=True)
class LogSigner:
    """The log's key, opened, and the name that it signs under."""

    origin: str
    private: Ed25519PrivateKey
    number: int = FIRST  # of the fabric's logs: each that is begun in the place of another has the next one

    @property
    def verifier(self) -> VerifierKey:
        return verifier_key(self.origin, Kind.ED25519, self.private)


class _Opened:
    """The key that this process has opened; a release must not wait for custody, nor for the database, to have it."""

    signer: LogSigner | None = None


def log_signer(*, now: datetime) -> LogSigner:
    """Return the log's key; the first who asks for one has it made, and of two nodes the first one's counts."""
    if _Opened.signer is not None:
        return _Opened.signer
    signer = _read() or _made(now)
    transaction.on_commit(partial(_keep, signer))  # the key of a transaction that fails is nobody's
    return signer


def _keep(signer: LogSigner) -> None:
    _Opened.signer = signer


def forget() -> None:
    """Have the key read anew: custody has moved, or a test begins with another database."""
    _Opened.signer = None


def log_verifier() -> VerifierKey | None:
    """Return what the log's signatures are checked with; None for a log that has signed nothing yet."""
    row = _newest()
    return None if row is None else _verifier(row)


def verifiers() -> list[VerifierKey]:
    """Return the keys of all logs that this fabric has had, the one in use last."""
    return [_verifier(row) for row in LogKey.objects.order_by("number")]


def is_newest(signer: LogSigner) -> bool:
    """Say whether no later log was begun; a process that has this signer opened does not hear of one by itself."""
    return not LogKey.objects.filter(number__gt=signer.number).exists()


def newest_signer(*, now: datetime) -> LogSigner:
    """Return the log's key as `log_signer` does, and surely not that of a log that has ended since it was opened."""
    drop_ended()
    return log_signer(now=now)


def drop_ended() -> None:
    """Forget the key that this process has opened when its log has ended; the next who needs one opens the newer."""
    if _Opened.signer is not None and not is_newest(_Opened.signer):
        forget()


def next_signer(before: LogSigner, *, now: datetime) -> LogSigner:
    """Make the key of a log that begins in the place of another, in the caller's transaction."""
    signer, row = _new(before.number + 1, now)
    row.save(force_insert=True)
    transaction.on_commit(partial(_keep, signer))
    return signer


def reseal(before: Custody, after: Custody) -> None:
    """Hand the key over from one custody to another, in the caller's transaction."""
    for row in LogKey.objects.select_for_update():
        row.sealed = _seal(_unseal(bytes(row.sealed), row.origin, before), row.origin, after)
        row.save(update_fields=["sealed"])
    forget()


def require_opened(by: Custody) -> None:
    """Raise `NotSealedHere` when the log has a key that this custody does not open."""
    for row in LogKey.objects.all():
        _unseal(bytes(row.sealed), row.origin, by)


def _newest() -> LogKey | None:
    return LogKey.objects.order_by("-number").first()


def _verifier(row: LogKey) -> VerifierKey:
    return VerifierKey(row.origin, Kind.ED25519, bytes(row.public))


def _read() -> LogSigner | None:
    row = _newest()
    if row is None:
        return None
    seed = _unseal(bytes(row.sealed), row.origin, custody())
    return LogSigner(row.origin, Ed25519PrivateKey.from_private_bytes(seed), row.number)


def _new(number: int, now: datetime) -> tuple[LogSigner, LogKey]:
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    origin = _origin(settings.FABRIC_NAME, public)
    row = LogKey(number=number, origin=origin, public=public, created_at=now)
    row.sealed = _seal(private.private_bytes_raw(), origin, custody())
    return LogSigner(origin, private, number), row


def _made(now: datetime) -> LogSigner:
    signer, row = _new(FIRST, now)
    detail = {"name": signer.origin, "key": str(signer.verifier)}
    try:
        with transaction.atomic():
            row.save(force_insert=True)
            record(actor="system", act="ledger.begun", subject=f"log:{signer.origin}", detail=detail, now=now)
    except IntegrityError:
        found = _read()
        if found is None:
            raise
        return found
    return signer


def _origin(fabric: str, public: bytes) -> str:
    """Return a name that no other log has, even of a fabric that is called the same."""
    word = re.sub("[^A-Za-z0-9.-]+", "-", fabric).strip("-") or "fabric"
    return f"guardhouse/{word}-{public[:4].hex()}"


def _seal(seed: bytes, origin: str, by: Custody) -> bytes:
    nonce = secrets.token_bytes(NONCE_SIZE)
    return nonce + AESGCM(by.derive(_PURPOSE, b"seal")).encrypt(nonce, seed, origin.encode())


def _unseal(sealed: bytes, origin: str, by: Custody) -> bytes:
    """Raises `NotSealedHere`."""
    return opened_by(by.derive(_PURPOSE, b"seal"), sealed, origin.encode())
