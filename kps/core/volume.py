"""What a disk shows to the machine that boots from it, as one hash: a Merkle tree over its blocks.

Every byte that a guest can read is covered (partition table, boot partitions, root, the gaps between them), and nothing
of the file that holds them: the same disk as raw and as qcow2 is the same volume. The tree is that of RFC 9162, 2.1.1,
over blocks of 1 MiB; hashes of whole subtrees are kept as *regions*, so that a difference has a place.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from attestation.core.base64url import to_b64u
from kps.core import jose
from kps.errors import MalformedDocument

BLOCK_SIZE: Final = 1 << 20
SECTOR: Final = 512
MOST_REGIONS: Final = 1024
MOST_SIZE: Final = 1 << 46  # 64 TiB
_HASH_SIZE: Final = range(32, 33)


@dataclass(frozen=True, slots=True)
class Region:
    """Some bytes of a volume, from `first` up to `end`."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Volume:
    """A disk by what is on it: its size in bytes, and the hash of each region."""

    size: int
    regions: tuple[bytes, ...]

    @property
    def root(self) -> bytes:
        return _tree(self.regions)

    def region(self, number: int) -> Region:
        length = region_size(self.size)
        return Region(number * length, min((number + 1) * length, self.size))


def require_size(size: int) -> int:
    """Return `size` when a disk can have it: whole sectors, and at least one."""
    if not 0 < size <= MOST_SIZE or size % SECTOR:
        raise MalformedDocument(f"A disk of {size} bytes is not one of whole sectors of {SECTOR} bytes, up to 64 TiB.")
    return size


def region_size(size: int) -> int:
    """Return how much of a disk a region covers: the least power of two of blocks that makes at most 1024 regions."""
    length = BLOCK_SIZE
    while length * MOST_REGIONS < size:
        length *= 2
    return length


def block_count(size: int) -> int:
    return -(-size // BLOCK_SIZE)


def block_hash(block: bytes | memoryview) -> bytes:
    """Return the leaf of one block (RFC 9162: the prefix tells leaves from nodes)."""
    leaf = hashlib.sha256(b"\x00")
    leaf.update(block)
    return leaf.digest()


def volume_of(leaves: Iterable[bytes], *, size: int) -> Volume:
    """Return the volume whose blocks have these hashes, in order. They may be a stream: few are held at a time."""
    count, of_region = block_count(require_size(size)), region_size(size) // BLOCK_SIZE
    stream, taken, regions = iter(leaves), 0, []
    while region := list(islice(stream, of_region)):
        taken += len(region)
        regions.append(_tree(region))
    if taken != count:
        raise ValueError(f"{taken} blocks were given of {count}")
    return Volume(size, tuple(regions))


def _tree(hashes: Sequence[bytes]) -> bytes:
    """Return the root over these nodes. Pairing them level by level, the odd one kept, gives the tree of RFC 9162."""
    level = list(hashes)
    while len(level) > 1:
        paired = [hashlib.sha256(b"\x01" + one + other).digest() for one, other in _pairs(level)]
        level = paired + level[2 * len(paired) :]
    return level[0]


def _pairs(level: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(level[::2], level[1::2], strict=False)


def differing(one: Volume, other: Volume) -> tuple[Region, ...]:
    """Return where two volumes of one size are not the same, neighbours as one."""
    if one.size != other.size:
        raise ValueError("volumes of different sizes have no regions in common")
    found: list[Region] = []
    for number, (mine, theirs) in enumerate(zip(one.regions, other.regions, strict=True)):
        if mine == theirs:
            continue
        region = one.region(number)
        if found and found[-1].end == region.first:
            region = Region(found.pop().first, region.end)
        found.append(region)
    return tuple(found)


def document_of(volume: Volume) -> dict[str, object]:
    return {
        "block_size": BLOCK_SIZE,
        "regions": [to_b64u(region) for region in volume.regions],
        "root": to_b64u(volume.root),
        "size": volume.size,
    }


def parse_volume(value: object) -> Volume:
    """Return the volume that a document describes: as many regions as its size makes, under the root that is theirs."""
    fields = jose.members(value, {"block_size", "regions", "root", "size"}, what="A volume")
    size = require_size(jose.whole_number(fields["size"], what="The size of a volume", most=MOST_SIZE))
    if fields["block_size"] != BLOCK_SIZE:
        raise MalformedDocument(f"A volume is hashed in blocks of another size than {BLOCK_SIZE} bytes.")
    regions = fields["regions"]
    if not isinstance(regions, list) or len(regions) != -(-size // region_size(size)):
        raise MalformedDocument("A volume does not have the number of regions that its size makes.")
    volume = Volume(size, tuple(jose.from_b64u(region, size=_HASH_SIZE) for region in regions))
    if jose.from_b64u(fields["root"], size=_HASH_SIZE) != volume.root:
        raise MalformedDocument("The root of a volume is not that of its regions.")
    return volume
