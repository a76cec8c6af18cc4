"""The hash of what is on a disk: the tree of RFC 9162, and what is refused of documents that describe one."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from attestation.core.base64url import to_b64u
from kps.core.volume import (
    BLOCK_SIZE,
    MOST_REGIONS,
    MOST_SIZE,
    Region,
    Volume,
    block_hash,
    differing,
    document_of,
    parse_volume,
    region_size,
    volume_of,
)
from kps.errors import MalformedDocument

MIB = BLOCK_SIZE


def leaf(number: int) -> bytes:
    return block_hash(b"%d" % number)


def of(count: int, *, changed: tuple[int, ...] = ()) -> Volume:
    """A volume of so many blocks, some of which are not what they were."""
    return volume_of((leaf(-1 - n if n in changed else n) for n in range(count)), size=count * MIB)


def mth(leaves: list[bytes]) -> bytes:
    """The definition as it stands in RFC 9162, 2.1.1, over hashes of leaves."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + mth(leaves[:split]) + mth(leaves[split:])).digest()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 1023, 1024, 1025, 2047, 2049, 3000, 4097])
def test_the_root_is_that_of_the_rfc_whatever_the_regions_are(count: int) -> None:
    assert of(count).root == mth([leaf(number) for number in range(count)])


def test_a_leaf_is_told_from_a_node() -> None:
    both = leaf(0) + leaf(1)
    assert block_hash(both) == hashlib.sha256(b"\x00" + both).digest()
    assert of(2).root != block_hash(both)


@pytest.mark.parametrize("size", [512, MIB, MIB + 512, 1024 * MIB, 1024 * MIB + 512, 5000 * MIB, MOST_SIZE])
def test_a_disk_has_at_most_1024_regions_that_cover_it_all(size: int) -> None:
    length = region_size(size)
    assert (length // MIB) & (length // MIB - 1) == 0
    assert -(-size // length) <= MOST_REGIONS
    assert length == MIB or -(-size // (length // 2)) > MOST_REGIONS


def test_a_short_last_block_ends_the_last_region() -> None:
    volume = volume_of([leaf(0), leaf(1)], size=MIB + 512)
    assert [volume.region(number) for number in range(2)] == [Region(0, MIB), Region(MIB, MIB + 512)]


@pytest.mark.parametrize("given", [0, 1, 3])
def test_a_volume_of_other_than_all_its_blocks_is_none(given: int) -> None:
    with pytest.raises(ValueError, match="of 2"):
        volume_of(map(leaf, range(given)), size=2 * MIB)


def test_every_block_counts_and_has_its_place() -> None:
    assert len({of(5, changed=(number,)).root for number in range(5)} | {of(5).root}) == 6
    assert volume_of([leaf(1), leaf(0)], size=2 * MIB).root != of(2).root


def test_differences_are_told_by_their_places() -> None:
    one = of(3000)
    assert differing(one, of(3000)) == ()
    assert differing(one, of(3000, changed=(0,))) == (Region(0, 4 * MIB),)
    changed = of(3000, changed=(4, 9, 100, 2999))
    assert differing(one, changed) == (
        Region(4 * MIB, 12 * MIB),
        Region(100 * MIB, 104 * MIB),
        Region(2996 * MIB, 3000 * MIB),
    )


def test_disks_of_two_sizes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="sizes"):
        differing(of(2), of(3))


@pytest.mark.parametrize("count", [1, 5, 1025])
def test_a_volume_is_read_as_it_was_written(count: int) -> None:
    assert parse_volume(document_of(of(count))) == of(count)


Change = Callable[[dict[str, Any]], object]
REFUSED: dict[str, Change] = {
    "another root": lambda it: it.update(root=to_b64u(bytes(32))),
    "another region": lambda it: it["regions"].__setitem__(0, to_b64u(bytes(32))),
    "regions the other way round": lambda it: it["regions"].reverse(),
    "one region less": lambda it: it["regions"].pop(),
    "one region more": lambda it: it["regions"].append(it["regions"][0]),
    "a region that is short": lambda it: it["regions"].__setitem__(0, to_b64u(bytes(31))),
    "a region that is a number": lambda it: it["regions"].__setitem__(0, 7),
    "regions that are no list": lambda it: it.update(regions="AAAA"),
    "another block size": lambda it: it.update(block_size=4096),
    "half a sector": lambda it: it.update(size=5 * MIB - 1),
    "nothing": lambda it: it.update(size=0),
    "less than nothing": lambda it: it.update(size=-512),
    "a size beyond every disk": lambda it: it.update(size=MOST_SIZE + 512),
    "a size that is text": lambda it: it.update(size="5242880"),
    "a size that is true": lambda it: it.update(size=True),
    "a smaller disk": lambda it: it.update(size=4 * MIB),
    "one more member": lambda it: it.update(more=1),
    "one member less": lambda it: it.pop("root"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_document_that_describes_no_volume_is_refused(name: str) -> None:
    document: dict[str, Any] = document_of(of(5))
    REFUSED[name](document)
    with pytest.raises(MalformedDocument):
        parse_volume(document)
