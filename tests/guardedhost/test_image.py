"""Disk images are read as a guest sees them, whatever file holds them; what leads to other files is refused."""

from contextlib import suppress
from itertools import accumulate, chain, repeat
from pathlib import Path
from struct import pack

import pytest

from guardedhost.errors import ImageFailure
from guardedhost.image import opened, parse_format
from guardedhost.luks import encrypt
from kps.core.volume import BLOCK_SIZE, Volume, block_hash, volume_of
from kps.errors import MalformedDocument
from tests.disks import MIB, content, converted, qemu_img, raw

CONTENT = content()
EXPECTED = volume_of(
    (block_hash(CONTENT[at : at + BLOCK_SIZE]) for at in range(0, len(CONTENT), BLOCK_SIZE)), size=len(CONTENT)
)


def hashed(path: Path, passphrase: bytes | None = None) -> Volume:
    with opened(path, passphrase=passphrase) as image:
        return image.volume()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return raw(tmp_path / "disk.raw", CONTENT)


def test_one_content_has_one_hash_in_every_format(disk: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.raw"
    whole.write_bytes(CONTENT)
    images = [
        *(disk, whole),
        converted(disk, tmp_path / "disk.qcow2"),
        converted(disk, tmp_path / "packed.qcow2", "-c"),
        converted(disk, tmp_path / "old.qcow2", "-o", "compat=0.10"),
        converted(disk, tmp_path / "fine.qcow2", "-o", "cluster_size=4k"),
        converted(disk, tmp_path / "whole.qcow2", "-S", "0"),
    ]
    assert [hashed(image) for image in images] == [EXPECTED] * len(images)


def test_holes_are_not_read(disk: Path, tmp_path: Path) -> None:
    """A disk that says of 64 TiB that they are zeros is hashed at once, but for its few blocks with content."""
    with opened(converted(disk, tmp_path / "disk.qcow2")) as image:
        assert image.data == {0, 1, 5, 6, 8}
    qemu_img("resize", "-f", "raw", disk, 1 << 40)
    blocks = (CONTENT[at : at + MIB].ljust(MIB, b"\0") for at in range(0, len(CONTENT), MIB))
    zeros = repeat(block_hash(bytes(MIB)), (1 << 20) - 9)
    with opened(disk) as image:
        assert image.volume() == volume_of(chain(map(block_hash, blocks), zeros), size=1 << 40)


def test_progress_is_told_to_the_last_byte(disk: Path) -> None:
    steps: list[int] = []
    with opened(disk) as image:
        image.volume(steps.append)
    assert list(accumulate(steps))[-1] == len(CONTENT)
    assert len(steps) == 9


@pytest.mark.parametrize("at", [0, 600, MIB + 5, 3 * MIB, 7 * MIB - 1, len(CONTENT) - 1])
def test_any_byte_makes_another_volume(at: int, tmp_path: Path) -> None:
    assert hashed(raw(tmp_path / "disk.raw", content(changed=at))).root != EXPECTED.root


def test_an_encrypted_image_is_read_with_its_passphrase_only(disk: Path, tmp_path: Path) -> None:
    target = tmp_path / "disk.qcow2"
    encrypt(disk, target, b"a passphrase")
    assert b"boot" * 1024 not in target.read_bytes()
    assert hashed(target, b"a passphrase") == EXPECTED
    for passphrase in (b"another", None):
        with pytest.raises(ImageFailure):
            hashed(target, passphrase)


def test_partitions_are_named(disk: Path) -> None:
    with opened(disk) as image:
        assert [(each.number, each.name) for each in image.partitions()] == [(1, "boot"), (2, "root")]


def test_a_disk_without_a_table_names_none(tmp_path: Path) -> None:
    with opened(raw(tmp_path / "disk.raw", bytes(512))) as image:
        assert image.partitions() == ()


def test_an_overlay_is_refused_and_the_file_beneath_it_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 512)
    qemu_img("create", "-f", "qcow2", "-b", tmp_path / "secret", "-F", "raw", tmp_path / "overlay.qcow2")
    with pytest.raises(ImageFailure, match="overlay"):
        hashed(tmp_path / "overlay.qcow2")


def test_an_image_that_keeps_its_data_elsewhere_is_refused(tmp_path: Path) -> None:
    options = f"data_file={tmp_path / 'secret'},data_file_raw=on"
    qemu_img("create", "-f", "qcow2", "-o", options, tmp_path / "split.qcow2", MIB)
    with pytest.raises(ImageFailure, match="another file"):
        hashed(tmp_path / "split.qcow2")


@pytest.mark.parametrize("size", [0, 700, MIB + 1])
def test_what_is_no_disk_of_whole_sectors_is_refused(size: int, tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(b"x" * size)
    with pytest.raises(ImageFailure):
        hashed(tmp_path / "disk.raw")


@pytest.mark.parametrize("keep", [8, 80, 104, 5000, 300_000, 1_500_000])
def test_a_damaged_image_is_refused_in_a_sentence_or_is_another_volume(keep: int, disk: Path, tmp_path: Path) -> None:
    """QEMU takes what is missing at the end of a file for zeros."""
    whole = converted(disk, tmp_path / "disk.qcow2").read_bytes()
    (tmp_path / "cut.qcow2").write_bytes(whole[:keep])
    with suppress(ImageFailure):
        assert hashed(tmp_path / "cut.qcow2").root != EXPECTED.root


def test_a_path_is_a_path_and_no_list_of_options(tmp_path: Path) -> None:
    odd = tmp_path / 'a,driver=x "quoted" json:{} é'
    assert hashed(raw(odd, CONTENT)) == EXPECTED


def header(*, version: int = 3, backing: int = 0, features: int = 0) -> bytes:
    return pack(">4sIQ56xQ", b"QFI\xfb", version, backing, features)


@pytest.mark.parametrize("start", [b"", b"QFI", bytes(80), b"QFI\xfa" + bytes(76)])
def test_what_does_not_say_that_it_is_qcow2_is_raw(start: bytes) -> None:
    assert parse_format(start) == "raw"


@pytest.mark.parametrize("start", [header(), header(version=2), header(version=2, features=4), header(features=3)])
def test_qcow2_says_that_it_is(start: bytes) -> None:
    assert parse_format(start) == "qcow2"


@pytest.mark.parametrize(
    "start", [header()[:79], header(version=1), header(version=4), header(backing=1), header(features=4)]
)
def test_qcow2_of_other_kinds_is_refused(start: bytes) -> None:
    with pytest.raises(MalformedDocument):
        parse_format(start)
