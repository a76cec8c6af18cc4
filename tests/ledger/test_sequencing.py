"""Every leaf gets one place, in batches, whoever is at it and whatever breaks; the tree is the one of those places."""

from datetime import timedelta
from itertools import pairwise

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.utils import DatabaseError

from ledger import sequencing, service
from ledger.core.checkpoint import verify_checkpoint
from ledger.core.counts import COUNTED
from ledger.core.note import parse_note
from ledger.core.tree import (
    GrowingTree,
    consistency_proof,
    inclusion_proof,
    root,
    verify_consistency,
    verify_inclusion,
)
from ledger.log_key import forget, log_signer, log_verifier
from ledger.models import Checkpoint, Entry, Leaf, LogKey, OwnerCount, Tile
from ledger.stored_tree import WIDTH, StoredNodes
from tests.ledger.conftest import NOW, OTHER_OWNER, OWNER, Acting

pytestmark = pytest.mark.django_db


def hashes() -> list[bytes]:
    return [bytes.fromhex(found) for found in Entry.objects.order_by("index").values_list("hash", flat=True)]


def head_of(leaves: list[bytes]) -> bytes:
    tree = GrowingTree()
    tree.add_all(leaves)
    return tree.head()


def test_leaves_get_the_next_places_in_the_order_of_their_numbers(acting: Acting) -> None:
    leaves = acting(5)
    made = service.sequence(now=NOW)
    begun = Leaf.objects.get(act="ledger.begun")
    counted = Leaf.objects.get(act=COUNTED)
    places = list(Entry.objects.order_by("index").values_list("leaf", flat=True))
    assert places == [*(leaf.pk for leaf in leaves), counted.pk]
    assert made is not None
    assert made.size == 6
    assert service.sequence(now=NOW) is not None  # the beginning of the log, recorded while the first batch was made
    assert Entry.objects.get(leaf=begun).index == 6


def test_where_nothing_waits_nothing_is_signed(acting: Acting) -> None:
    acting()
    assert service.sequence_all(now=NOW) is not None
    before = Checkpoint.objects.count()
    assert service.sequence(now=NOW) is None
    assert service.sequence(now=NOW, everywhere=True) is None
    assert Checkpoint.objects.count() == before


def test_a_checkpoint_is_signed_by_the_logs_key_over_the_tree_of_its_entries(acting: Acting) -> None:
    for count in (1, 4, 2):
        acting(count)
        service.sequence_all(now=NOW)
    key = log_verifier()
    assert key is not None
    for row in Checkpoint.objects.all():
        head = verify_checkpoint(parse_note(row.note), key)
        assert (head.size, head.root) == (row.size, bytes(row.root))
        assert head.root == head_of(hashes()[: row.size])


def test_a_large_log_is_proved_from_its_tiles(acting: Acting) -> None:
    for count in (300, 1, 500, 700):
        acting(count)
        service.sequence_all(now=NOW)
    leaves = hashes()
    size = len(leaves)
    assert size > 5 * WIDTH
    assert Tile.objects.filter(level=0).count() == size // WIDTH
    head = head_of(leaves)
    assert root(size, StoredNodes()) == head
    for index in (0, 255, 256, 777, size - 1):
        verify_inclusion(leaves[index], index, size, inclusion_proof(index, size, StoredNodes()), head)
    sizes = sorted(Checkpoint.objects.values_list("size", flat=True))
    for old, new in pairwise(sizes):
        heads = [head_of(leaves[:each]) for each in (old, new)]
        verify_consistency(old, new, heads[0], heads[1], consistency_proof(old, new, StoredNodes()))


def test_tiles_of_the_second_level_are_filled_too(acting: Acting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.stored_tree.HEIGHT", 2)
    monkeypatch.setattr("ledger.stored_tree.WIDTH", 4)
    for count in (3, 9, 30, 1, 40):
        acting(count)
        service.sequence_all(now=NOW)
    leaves = hashes()
    assert set(Tile.objects.values_list("level", flat=True)) == {0, 1, 2}
    for size in range(1, len(leaves) + 1):
        assert root(size, StoredNodes()) == head_of(leaves[:size])


def test_many_leaves_take_several_batches(acting: Acting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencing, "MOST", 3)
    acting(10)
    service.sequence_all(now=NOW)
    assert not Leaf.objects.filter(entry__isnull=True).exists()
    assert hashes() == [bytes.fromhex(entry.leaf.hash) for entry in Entry.objects.order_by("index")]


def test_a_leaf_that_was_committed_late_is_not_lost(acting: Acting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number was drawn long before; other leaves got theirs later and were committed first."""
    (first,) = acting()
    for _ in range(6):
        acting()
        service.sequence_all(now=NOW)
    late = service.new_leaf(actor="system", act="late", subject="x:1", detail={}, now=NOW)
    late.pk = first.pk - 1
    late.save(force_insert=True)
    monkeypatch.setattr(sequencing, "NEAR", 2)
    assert service.sequence(now=NOW) is None
    assert service.sequence(now=NOW, everywhere=True) is not None
    assert Entry.objects.filter(leaf=late).exists()


def test_a_leaf_near_the_newest_place_is_found_without_looking_everywhere(acting: Acting) -> None:
    acting(3)
    service.sequence_all(now=NOW)
    first = Leaf.objects.order_by("pk").first()
    assert first is not None
    late = service.new_leaf(actor="system", act="late", subject="x:1", detail={}, now=NOW)
    late.pk = first.pk - 1
    late.save(force_insert=True)
    assert service.sequence(now=NOW) is not None
    assert Entry.objects.filter(leaf=late).exists()


def test_a_batch_that_breaks_leaves_nothing_behind(acting: Acting, monkeypatch: pytest.MonkeyPatch) -> None:
    acting(3)
    service.sequence_all(now=NOW)
    acting(3)
    before = (Entry.objects.count(), Leaf.objects.count(), Tile.objects.count())

    def breaks(*args: object, **kwargs: object) -> None:
        raise IntegrityError

    monkeypatch.setattr(Checkpoint, "save", breaks)
    with pytest.raises(IntegrityError), transaction.atomic():
        service.sequence(now=NOW)
    monkeypatch.undo()
    assert (Entry.objects.count(), Leaf.objects.count(), Tile.objects.count()) == before
    assert service.sequence(now=NOW) is not None
    newest = Checkpoint.objects.first()
    assert newest is not None
    assert bytes(newest.root) == head_of(hashes())


def test_of_two_batches_over_the_same_leaves_one_is_written(acting: Acting) -> None:
    """Another node was faster: what was worked out meanwhile is thrown away."""
    acting(3)
    service.sequence_all(now=NOW)
    acting(2)
    waiting = sequencing._waiting(None)
    size = Entry.objects.count()
    signer = log_signer(now=NOW)
    mine, theirs = (sequencing._batch(size, waiting, signer, NOW) for _ in range(2))
    assert sequencing._write(theirs)
    assert not sequencing._write(mine)
    assert Entry.objects.count() == theirs.checkpoint.size == mine.checkpoint.size
    assert Leaf.objects.filter(act=COUNTED).count() == Checkpoint.objects.count()


@pytest.mark.parametrize("table", ["entry", "tile", "checkpoint"])
@pytest.mark.parametrize("verb", ["UPDATE ledger_{} SET {} = {}", "DELETE FROM ledger_{}"])
def test_the_database_refuses_to_change_the_log(table: str, verb: str, acting: Acting) -> None:
    acting(WIDTH)
    service.sequence_all(now=NOW)
    column = {"entry": "hash", "tile": "number", "checkpoint": "note"}[table]
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(verb.format(table, column, column))


def test_entries_are_counted_for_their_owners_in_the_last_entry_of_a_checkpoint(acting: Acting) -> None:
    acting(2, owner=OWNER)
    acting(3)
    acting(1, owner=OTHER_OWNER)
    service.sequence_all(now=NOW)
    acting(4, owner=OWNER)
    made = service.sequence_all(now=NOW)
    assert made is not None
    assert dict(OwnerCount.objects.values_list("owner", "count")) == {OWNER: 6, OTHER_OWNER: 1}
    closing = Entry.objects.select_related("leaf").get(index=made.size - 1)
    assert closing.leaf.act == COUNTED
    assert (closing.leaf.detail["size"], closing.leaf.detail["owners"]) == (made.size, 2)
    assert Entry.objects.filter(owner=OWNER).count() == 6


def test_the_key_is_made_once_sealed_and_recorded(acting: Acting) -> None:
    signer = log_signer(now=NOW)
    row = LogKey.objects.get()
    assert signer.private.private_bytes_raw() not in bytes(row.sealed)
    begun = Leaf.objects.get(act="ledger.begun")
    assert begun.detail == {"name": row.origin, "key": str(signer.verifier)}
    forget()
    assert log_signer(now=NOW + timedelta(days=1)).private.private_bytes_raw() == signer.private.private_bytes_raw()
    assert LogKey.objects.count() == 1


def test_a_log_without_a_key_has_none_to_show() -> None:
    assert log_verifier() is None
