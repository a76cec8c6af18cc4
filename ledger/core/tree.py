"""The Merkle tree of RFC 9162, section 2.1 (that of RFC 6962): heads, inclusion proofs, consistency proofs.

Proofs are made from hashes of full subtrees, which never change once a tree has them, so that making one reads a few
dozen stored hashes and not the log. Verification follows the RFC's own algorithms and shares nothing with it but the
two hash functions.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ledger.errors import Inconsistent, NotIncluded

HASH_SIZE: Final = 32
MOST_LEAVES: Final = 2**53  # what a JSON number holds everywhere
LONGEST_PROOF: Final = 53 + 1
EMPTY_ROOT: Final = hashlib.sha256().digest()

Hash = bytes
Nodes = Callable[[int, int], Hash]
"""The hash of the full subtree of `2 ** level` leaves that is number `index` among those of its level."""


def node_hash(left: Hash, right: Hash) -> Hash:
    """Return SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(size: int, nodes: Nodes) -> Hash:
    """Return the head of the tree of the first `size` leaves."""
    return _range(0, size, nodes) if size else EMPTY_ROOT


def full_root(hashes: Sequence[Hash]) -> Hash:
    """Return the head over a number of hashes that is a power of two."""
    level = hashes
    while len(level) > 1:
        level = [node_hash(*pair) for pair in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def inclusion_proof(index: int, size: int, nodes: Nodes) -> tuple[Hash, ...]:
    """Return the proof that leaf `index` is in the tree of `size` leaves (section 2.1.3.1)."""
    if not 0 <= index < size:
        raise ValueError("there is no such leaf")
    path, start, end = [], 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range(middle, end, nodes))
            end = middle
        else:
            path.append(_range(start, middle, nodes))
            start = middle
    return tuple(reversed(path))


def consistency_proof(old: int, new: int, nodes: Nodes) -> tuple[Hash, ...]:
    """Return the proof that the tree of `new` leaves goes on from that of `old` (section 2.1.4.1)."""
    if not 0 <= old <= new:
        raise ValueError("a tree goes on from a smaller one")
    if old in (0, new):
        return ()
    path, start, end = [], 0, new
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_range(middle, end, nodes))
            end = middle
        else:
            path.append(_range(start, middle, nodes))
            start = middle
    if start:  # else the old tree is itself a subtree of the new one, and its head is known
        path.append(_range(start, end, nodes))
    return tuple(reversed(path))


def _split(size: int) -> int:
    """Return the largest power of two smaller than `size`."""
    return 1 << (size - 1).bit_length() - 1


def _range(start: int, end: int, nodes: Nodes) -> Hash:
    """Return the head over leaves from `start` up to `end`, where `start` is where such a subtree may begin."""
    parts = []
    while start < end:
        level = (end - start).bit_length() - 1
        parts.append(nodes(level, start >> level))
        start += 1 << level
    head = parts.pop()
    while parts:
        head = node_hash(parts.pop(), head)
    return head


def verify_inclusion(leaf: Hash, index: int, size: int, proof: Sequence[Hash], head: Hash) -> None:
    """Raise `NotIncluded` unless the proof leads from the leaf to the head (section 2.1.3.2)."""
    if not 0 <= index < size or len(proof) > LONGEST_PROOF or len(leaf) != HASH_SIZE:
        raise NotIncluded(f"There is no leaf {index} in a tree of {size}.")
    place, last, found = index, size - 1, leaf
    for each in proof:
        if last == 0:
            raise NotIncluded("The proof goes on past the head of the tree.")
        if place & 1 or place == last:
            found = node_hash(each, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, each)
        place, last = place >> 1, last >> 1
    if last != 0 or found != head:
        raise NotIncluded(f"The proof does not lead from leaf {index} to the head of the tree of {size}.")


def verify_consistency(old: int, new: int, old_head: Hash, new_head: Hash, proof: Sequence[Hash]) -> None:
    """Raise `Inconsistent` unless the proof shows that the new tree goes on from the old one (section 2.1.4.2)."""
    if not 0 <= old <= new or len(proof) > LONGEST_PROOF:
        raise Inconsistent(f"A tree of {new} leaves does not go on from one of {old}.")
    if old == new:
        if proof or old_head != new_head or (old == 0 and old_head != EMPTY_ROOT):
            raise Inconsistent(f"There are two different trees of {old} leaves.")
        return
    if old == 0:
        raise Inconsistent("Every tree goes on from the empty one: that is no proof of anything.")
    if _heads(old, new, old_head, proof) != (old_head, new_head):
        raise Inconsistent(f"The tree of {new} leaves does not go on from the one of {old} that was shown before.")


def _heads(old: int, new: int, old_head: Hash, proof: Sequence[Hash]) -> tuple[Hash, Hash] | None:
    """Return both heads as the proof has them; None when it is too short or too long."""
    path = [old_head, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        return None
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    before = after = path[0]
    for each in path[1:]:
        if last == 0:
            return None
        if place & 1 or place == last:
            before, after = node_hash(each, before), node_hash(each, after)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            after = node_hash(after, each)
        place, last = place >> 1, last >> 1
    return (before, after) if last == 0 else None


class GrowingTree:
    """A tree that leaves are added to one by one; it keeps the heads of its full subtrees, the largest first."""

    def __init__(self) -> None:
        self.size = 0
        self._full: list[Hash] = []

    @classmethod
    def resumed(cls, size: int, nodes: Nodes) -> "GrowingTree":
        """Return the tree of the first `size` leaves, to go on from."""
        tree, start = cls(), 0
        for level in reversed(range(size.bit_length())):
            if size >> level & 1:
                tree._full.append(nodes(level, start >> level))
                start += 1 << level
        tree.size = size
        return tree

    def add(self, leaf: Hash) -> None:
        head, rest = leaf, self.size
        while rest & 1:
            head, rest = node_hash(self._full.pop(), head), rest >> 1
        self._full.append(head)
        self.size += 1

    def add_all(self, leaves: Iterable[Hash]) -> None:
        for leaf in leaves:
            self.add(leaf)

    def head(self) -> Hash:
        if not self._full:
            return EMPTY_ROOT
        *parts, head = self._full
        while parts:
            head = node_hash(parts.pop(), head)
        return head
