"""Counts of owners' entries: the small tree is an ordinary one, and a line of it holds for nothing but itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.core.counts import Count, CountTree
from ledger.core.tree import EMPTY_ROOT, GrowingTree, verify_inclusion
from ledger.errors import NotIncluded


def line(position: int, count: int = 0) -> Count:
    return Count(f"{position:064x}", count, bytes([count]) * 32)


@given(st.lists(st.integers(0, 40), max_size=120))
def test_whatever_is_counted_in_whatever_order_the_tree_is_the_one_over_the_lines(changes: list[int]) -> None:
    tree = CountTree()
    lines: list[Count] = []
    for number, change in enumerate(changes):
        position = min(change, len(lines))
        count = line(position, number)
        lines[position : position + 1] = [count]
        tree.put(position, count)
        plain = GrowingTree()
        plain.add_all(each.hash for each in lines)
        assert tree.head() == plain.head()
    for position, each in enumerate(lines):
        verify_inclusion(each.hash, position, tree.size, tree.proof(position), tree.head())


def test_nobody_is_counted_in_an_empty_tree() -> None:
    assert CountTree().head() == EMPTY_ROOT


def test_a_smaller_count_than_the_true_one_has_no_proof() -> None:
    tree = CountTree()
    for position in range(5):
        tree.put(position, line(position, 9))
    with pytest.raises(NotIncluded):
        verify_inclusion(line(3, 8).hash, 3, 5, tree.proof(3), tree.head())


def test_a_chain_depends_on_every_entry_and_their_order() -> None:
    begun = Count("a" * 64, 0, bytes(32))
    one, other = b"1" * 32, b"2" * 32
    heads = {begun.and_one(one).and_one(other).head, begun.and_one(other).and_one(one).head, begun.and_one(one).head}
    assert len(heads) == 3
    assert begun.and_one(one).and_one(other).count == 2
