"""The tree as the database keeps it: proofs from stored hashes, a few rows each, whatever the log's size."""

from collections.abc import Iterator, Sequence
from typing import Final

from ledger.core.tree import HASH_SIZE, Hash, full_root
from ledger.errors import LogDamaged
from ledger.models import Entry, Tile

HEIGHT: Final = 8
WIDTH: Final = 1 << HEIGHT


class StoredNodes:
    """The hashes of full subtrees (`ledger.core.tree.Nodes`), read by whole tiles; each tile once.

    For one proof, or one batch: tiles that are not full are as they were when they were first asked for.
    """

    def __init__(self) -> None:
        self._tiles: dict[tuple[int, int], Sequence[Hash]] = {}

    def __call__(self, level: int, index: int) -> Hash:
        height, within = divmod(level, HEIGHT)
        first, count = index << within, 1 << within
        offset = first % WIDTH
        hashes = self.tile(height, first // WIDTH)[offset : offset + count]
        if len(hashes) != count:
            raise LogDamaged("Entries of the log were taken out of its database. Restore it from a backup.")
        return full_root(hashes)

    def tile(self, level: int, number: int) -> Sequence[Hash]:
        """Return as many of a tile's hashes as the log has."""
        found = self._tiles.get((level, number))
        if found is None:
            found = self._tiles[level, number] = _tile(level, number)
        return found


def _tile(level: int, number: int) -> Sequence[Hash]:
    full = Tile.objects.filter(level=level, number=number).values_list("hashes", flat=True).first()
    if full is not None:
        return split(bytes(full))
    first, end = number * WIDTH, (number + 1) * WIDTH
    if level == 0:
        entries = Entry.objects.filter(index__gte=first, index__lt=end).order_by("index")
        return [bytes.fromhex(found) for found in entries.values_list("hash", flat=True)]
    below = Tile.objects.filter(level=level - 1, number__gte=first, number__lt=end).order_by("number")
    return [bytes(found) for found in below.values_list("root", flat=True)]


def split(hashes: bytes) -> list[Hash]:
    return [hashes[start : start + HASH_SIZE] for start in range(0, len(hashes), HASH_SIZE)]


def filled(size: int, added: Sequence[Hash], nodes: StoredNodes) -> Iterator[Tile]:
    """Yield the tiles that become full when these hashes are added to a log of `size` entries."""
    level = 0
    while added:
        place = size % WIDTH
        hashes = [*nodes.tile(level, size // WIDTH)[:place], *added]
        number = size // WIDTH
        roots = []
        for start in range(0, len(hashes) - WIDTH + 1, WIDTH):
            full = hashes[start : start + WIDTH]
            roots.append(full_root(full))
            yield Tile(level=level, number=number, hashes=b"".join(full), root=roots[-1])
            number += 1
        size, added, level = size // WIDTH, roots, level + 1
