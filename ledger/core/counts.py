"""How many entries concern each owner, counted in the log itself: so none can be left out of what an owner is shown.

The last entry of every checkpoint names the head of a small tree of its own: for each owner how many entries concern
it so far, and a chain over their hashes. An owner gets its line with a proof. A line that is not true is in the log for
good, and everybody who reads the whole log counts again. The chain begins with a secret of the owner's: from hashes
alone nobody can try out which entries are whose.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from ledger.core.leaf import canonical_json, entry_hash
from ledger.core.tree import EMPTY_ROOT, inclusion_proof, node_hash

COUNTED: Final = "ledger.counted"
START_SIZE: Final = 32


@dataclass(frozen=True, slots=True)
class Count:
    """The entries that concern one owner: their number, and the chain over their hashes."""

    owner: str
    count: int
    head: bytes

    def and_one(self, leaf: bytes) -> "Count":
        return Count(self.owner, self.count + 1, hashlib.sha256(self.head + leaf).digest())

    @property
    def hash(self) -> bytes:
        return entry_hash(canonical_json({"count": self.count, "head": self.head.hex(), "owner": self.owner}))


class CountTree:
    """The tree over all owners, in the order of their first entries; a line that changes costs its path alone."""

    def __init__(self) -> None:
        self._levels: list[list[bytes]] = [[]]

    def put(self, position: int, count: Count) -> None:
        """Set the line at a position, or add one at the end."""
        head = count.hash
        for number, level in enumerate(self._levels):
            if position == len(level):
                level.append(head)
            else:
                level[position] = head
            if len(level) == 1:
                break
            position //= 2
            pair = level[2 * position : 2 * position + 2]
            head = node_hash(*pair) if len(pair) == 2 else pair[0]
            if number + 1 == len(self._levels):
                self._levels.append([])

    @property
    def size(self) -> int:
        return len(self._levels[0])

    def head(self) -> bytes:
        return self._levels[-1][0] if self.size else EMPTY_ROOT

    def proof(self, position: int) -> tuple[bytes, ...]:
        return inclusion_proof(position, self.size, lambda level, index: self._levels[level][index])


def said(size: int, tree: CountTree) -> dict[str, object]:
    """Return what the last entry of a checkpoint says."""
    return {"size": size, "owners": tree.size, "root": tree.head().hex()}
