"""The GUID partition table (UEFI 2.10, section 5.3) as far as a place on a disk needs a name; it decides nothing."""

from dataclasses import dataclass
from struct import Struct
from typing import Final

from kps.errors import MalformedDocument

SECTOR: Final = 512
TABLE_SIZE: Final = 34 * SECTOR  # MBR, header and 128 entries, where every partitioning tool puts them
_HEADER: Final = Struct("<72xQII")  # where the entries begin, how many there are, the size of one
_ENTRY: Final = Struct("<16s16sQQQ72s")
_MOST: Final = 128


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition in use, in bytes from `first` up to `end`. The name is its maker's."""

    number: int
    name: str
    first: int
    end: int


def parse_partitions(start: bytes) -> tuple[Partition, ...]:
    """Return the partitions that the first sectors of a disk describe. Checksums are left aside: see above."""
    header = start[SECTOR : 2 * SECTOR]
    if len(start) < 2 * SECTOR or not header.startswith(b"EFI PART"):
        raise MalformedDocument("The disk has no GUID partition table where one begins.")
    first, count, size = _HEADER.unpack_from(header)
    if size != _ENTRY.size or count > _MOST or not 2 <= first <= 2**32:
        raise MalformedDocument("The disk's partition table has another form than is usual.")
    entries = start[first * SECTOR :][: count * size]
    if len(entries) != count * size:
        raise MalformedDocument("The disk's partition table is cut short.")
    found = (_partition(number, entry) for number, entry in enumerate(_ENTRY.iter_unpack(entries), start=1))
    return tuple(partition for partition in found if partition is not None)


def _partition(number: int, entry: tuple[bytes, bytes, int, int, int, bytes]) -> Partition | None:
    kind, _, first, last, _, name = entry
    if kind == bytes(16) or not first <= last:
        return None
    text = name.decode("utf-16-le", "replace").partition("\0")[0]
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return Partition(number, shown, first * SECTOR, (last + 1) * SECTOR)
