"""The door of the ledger: record an act, read the acts."""

from collections.abc import Mapping
from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet
from django.dispatch import Signal

from ledger.core.leaf import Act, leaf_hash
from ledger.models import Leaf

# Sent inside the transaction of the act, with `act: Act`. Whoever wants to tell the world waits for the commit.
recorded = Signal()


def record(*, actor: str, act: str, subject: str, detail: Mapping[str, object], now: datetime) -> Leaf:
    """Write one leaf in the caller's transaction, so that the act and its record stand or fall together.

    Raises `TransactionManagementError` outside a transaction: an act without one could be lost from the record.
    """
    connection = transaction.get_connection()
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("an act is recorded in its own transaction, and there is none")
    done = Act(at=now, actor=actor, act=act, subject=subject, detail=dict(detail))
    leaf = Leaf.objects.create(
        at=now, actor=actor, act=act, subject=subject, detail=dict(detail), hash=leaf_hash(done).hex()
    )
    recorded.send(sender=Leaf, act=done)
    return leaf


def leaves(*, act_prefix: str = "", actor: str = "", subject: str = "") -> QuerySet[Leaf]:
    """Return the leaves, newest first, narrowed by the start of the act's name, the actor, the subject."""
    found = Leaf.objects.all()
    if act_prefix:
        found = found.filter(act__startswith=act_prefix)
    if actor:
        found = found.filter(actor=actor)
    return found.filter(subject=subject) if subject else found


def intact(leaf: Leaf) -> bool:
    """Say whether a leaf still hashes to what was written when it was recorded."""
    return leaf_hash(leaf.content()).hex() == leaf.hash
