"""The writing of leaves: each in the transaction of the act that it is about."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from django.db import transaction
from django.dispatch import Signal

from ledger.core.leaf import Act, leaf_hash
from ledger.models import Leaf
from ledger.statements import Change, New, write

# Sent inside the transaction of the act, with `act: Act`; by `record_with`, where that is one statement and no other
# transaction is open, right after it. Whoever wants to tell the world waits for the commit (`transaction.on_commit`).
recorded = Signal()
SALT_SIZE: Final = 16


def record(*, actor: str, act: str, subject: str, detail: Mapping[str, object], now: datetime) -> Leaf:
    """Write one leaf in the caller's transaction, so that the act and its record stand or fall together.

    Raises `TransactionManagementError` outside a transaction: an act without one could be lost from the record.
    """
    connection = transaction.get_connection()
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("an act is recorded in its own transaction, and there is none")
    new = new_leaf(actor=actor, act=act, subject=subject, detail=detail, now=now)
    new.save(force_insert=True)
    _tell(new)
    return new


def new_leaf(*, actor: str, act: str, subject: str, detail: Mapping[str, object], now: datetime) -> Leaf:
    """Return a leaf that nobody has written yet, for `record_with`."""
    done = Act(now, actor, act, subject, dict(detail), salt=secrets.token_hex(SALT_SIZE))
    return Leaf(
        at=now,
        actor=actor,
        act=act,
        subject=subject,
        detail=dict(detail),
        salt=done.salt,
        hash=leaf_hash(done).hex(),
    )


def record_with(change: Change | None, rows: Sequence[New], about: Leaf | None) -> bool:
    """Write an act's rows together with the leaf about it, if there is one; False when `change` applies no more.

    All or nothing is written, in one statement where the database can (`ledger.statements`).
    """
    if about is None:
        return write(change, rows)
    return write(change, [*rows, New(about)], then=lambda: _tell(about))


def _tell(written: Leaf) -> None:
    recorded.send(sender=Leaf, act=written.content())
