"""Leaves get their places in the log: in batches, after the acts, so that no act ever waits for the tree.

Whoever records an act inserts a leaf and is done. Some time later, in any process, one batch takes the leaves that have
no place yet, gives them the next ones, and signs the new head; all of it in one transaction, or none of it. Two batches
never run at once: on PostgreSQL an advisory lock keeps them apart, on SQLite the one writer that there can be, and in
both a place can be given once only.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import connection, transaction
from django.db.models import Max
from django.dispatch import Signal

from ledger.core import counts
from ledger.core.checkpoint import Checkpoint as Head
from ledger.core.checkpoint import sign_checkpoint
from ledger.core.leaf import owner_in
from ledger.core.tree import GrowingTree
from ledger.log_key import LogSigner, drop_ended, forget, is_newest, newest_signer
from ledger.models import Checkpoint, Entry, Leaf, OwnerCount, Tile
from ledger.owners import OwnerCounts
from ledger.recording import new_leaf
from ledger.stored_tree import StoredNodes, filled

log = logging.getLogger(__name__)

# Sent after the commit of a batch, with `size: int` and `owners: set[str]`, whom the new entries concern.
sequenced = Signal()

MOST: Final = 4096
NEAR: Final = 10_000
LOCK: Final = 0x6775_6172_646C_6F67  # "guardlog"


@dataclass(frozen=True, slots=True)
class _Batch:
    """What a batch writes: worked out before its transaction, which then only inserts."""

    size: int
    signer: LogSigner
    entries: Sequence[Entry]
    tiles: Sequence[Tile]
    owners: Sequence[OwnerCount]
    closing: Leaf  # the last of the entries, which counts the owners'
    checkpoint: Checkpoint


def sequence(*, now: datetime, everywhere: bool = False) -> Checkpoint | None:
    """Give the oldest leaves that wait their places; None when none waits, or another node is at it.

    Leaves may be committed in another order than they were numbered in. What is near the newest place is looked
    through each time, and with `everywhere` all of the ledger, for what an unusually long transaction has left behind.
    """
    newest = Entry.objects.order_by("-index").values_list("index", "leaf_id").first()
    size, near = (0, 0) if newest is None else (newest[0] + 1, newest[1] - NEAR)
    waiting = _waiting(None if everywhere else near)
    if not waiting:
        drop_ended()
        return None
    return _placed(size, waiting, newest_signer(now=now), now)


def place_first(leaf: Leaf, signer: LogSigner, *, size: int, now: datetime) -> Checkpoint | None:
    """Give a leaf the place after `size` entries, under a log that it begins; None when others came first."""
    return _placed(size, [leaf], signer, now)


def _placed(size: int, waiting: Sequence[Leaf], signer: LogSigner, now: datetime) -> Checkpoint | None:
    batch = _batch(size, waiting, signer, now)
    if not _write(batch):
        return None
    log.debug("the log has %s entries, %s of them new", batch.checkpoint.size, len(batch.entries))
    owners = {entry.owner for entry in batch.entries} - {""}
    sequenced.send(sender=Checkpoint, size=batch.checkpoint.size, owners=owners)
    return batch.checkpoint


def sequence_all(*, now: datetime) -> Checkpoint | None:
    """Give every leaf that waits its place; return the last checkpoint that was made for it."""
    made = None
    while (next_one := sequence(now=now, everywhere=True)) is not None:
        made = next_one
    return made


def _waiting(after: int | None) -> list[Leaf]:
    found = Leaf.objects.filter(entry__isnull=True).order_by("pk")
    if after is not None:
        found = found.filter(pk__gt=after)
    return list(found.only("pk", "detail", "hash")[:MOST])


def _batch(size: int, waiting: Sequence[Leaf], signer: LogSigner, now: datetime) -> _Batch:
    nodes, owners = StoredNodes(), OwnerCounts()
    for leaf in waiting:
        if owner := owner_in(leaf.detail):
            owners.add(owner, bytes.fromhex(leaf.hash))
    closing_size = size + len(waiting) + 1
    closing = new_leaf(
        actor="system",
        act=counts.COUNTED,
        subject=f"log:{signer.origin}",
        detail=counts.said(closing_size, owners.tree),
        now=now,
    )
    entries = [
        Entry(index=index, leaf=leaf, hash=leaf.hash, owner=owner_in(leaf.detail))
        for index, leaf in enumerate((*waiting, closing), start=size)
    ]
    added = [bytes.fromhex(entry.hash) for entry in entries]
    grown = GrowingTree.resumed(size, nodes)
    grown.add_all(added)
    note = sign_checkpoint(Head(signer.origin, grown.size, grown.head()), signer.private)
    checkpoint = Checkpoint(size=grown.size, root=grown.head(), note=str(note), at=now)
    tiles = list(filled(size, added, nodes))
    return _Batch(size, signer, entries, tiles, list(owners.changed.values()), closing, checkpoint)


def _write(batch: _Batch) -> bool:
    """Write a batch; False, with nothing written, when another one is being written, or was since this one began.

    Nor is it written when it was signed for a log that has ended: another process may have begun the next one.
    """
    with transaction.atomic():
        if not _alone() or _size() != batch.size:
            return False
        if not is_newest(batch.signer):
            forget()
            return False
        batch.closing.save(force_insert=True)
        Entry.objects.bulk_create(batch.entries)
        Tile.objects.bulk_create(batch.tiles)
        OwnerCount.objects.bulk_create(
            batch.owners, update_conflicts=True, unique_fields=["position"], update_fields=["count", "head"]
        )
        batch.checkpoint.save(force_insert=True)
    return True


def _alone() -> bool:
    """Say whether no other node writes a batch, and keep it so until this transaction ends."""
    if connection.vendor != "postgresql":
        return True  # SQLite: the transaction has begun as the one that writes
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
        return bool(cursor.fetchone()[0])


def _size() -> int:
    newest = Entry.objects.aggregate(newest=Max("index"))["newest"]
    return 0 if newest is None else newest + 1
