"""Partition tables name places on a disk; nothing that one says can do harm."""

import pytest

from kps.core.partitions import Partition, parse_partitions
from kps.errors import MalformedDocument
from tests.disks import ESP, ROOT, gpt


def test_partitions_are_told_by_number_name_and_place() -> None:
    assert parse_partitions(gpt(("EFI System", ESP, 2048, 4095), ("root", ROOT, 4096, 8191))) == (
        Partition(1, "EFI System", 2048 * 512, 4096 * 512),
        Partition(2, "root", 4096 * 512, 8192 * 512),
    )


def test_entries_that_are_not_used_keep_their_numbers() -> None:
    (found,) = parse_partitions(gpt(("", bytes(16), 0, 0), ("root", ROOT, 4096, 8191)))
    assert found.number == 2


def test_a_name_that_would_move_the_cursor_is_shown_as_question_marks() -> None:
    (found,) = parse_partitions(gpt(("a\x1b[2Jb\u202e", ROOT, 1, 2)))
    assert found.name == "a?[2Jb?"


def test_a_partition_that_ends_before_it_begins_is_left_out() -> None:
    assert parse_partitions(gpt(("x", ROOT, 2, 1))) == ()


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(17408), id="zeros"),
        pytest.param(gpt(("x", ROOT, 1, 2))[:1000], id="cut in its header"),
        pytest.param(gpt(("x", ROOT, 1, 2))[:2000], id="cut in its entries"),
        pytest.param(gpt(("x", ROOT, 1, 2), count=1 << 31), id="entries without end"),
        pytest.param(gpt(("x", ROOT, 1, 2), size=64), id="small entries"),
        pytest.param(gpt(("x", ROOT, 1, 2), at=1 << 60), id="entries beyond the disk"),
        pytest.param(gpt(("x", ROOT, 1, 2), at=0), id="entries before the header"),
    ],
)
def test_what_is_no_table_is_refused(start: bytes) -> None:
    with pytest.raises(MalformedDocument):
        parse_partitions(start)
