"""Two boots side by side show what differs, once, and fold the rest."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.difference import ALIGNED_EVENTS, Difference, Same, change_in_words, changed_arguments, difference
from attestation.core.replay import VerifiedEvent
from tests.boot_logs import boot

PINNED = (*range(10), 14)


def command(number: int, line: str) -> VerifiedEvent:
    return VerifiedEvent(number, 8, 0xD, line.encode().ljust(32, b"\0"), line.encode(), b"grub_cmd: " + line.encode())


def commands(*lines: str) -> list[VerifiedEvent]:
    return [command(number, line) for number, line in enumerate(lines)]


def told(rows: tuple[Difference | Same, ...]) -> list[tuple[str, str]]:
    return [("same", str(row.count)) if isinstance(row, Same) else (row.kind, row.words.text) for row in rows]


def test_a_boot_does_not_differ_from_its_repetition() -> None:
    rows = difference(boot("secureboot-on").events, boot("secureboot-on-reboot").events, PINNED)
    assert all(isinstance(row, Same) for row in rows)
    assert sum(row.count for row in rows if isinstance(row, Same)) == 45


def test_a_changed_command_line_is_one_row_with_both_texts() -> None:
    rows = difference(boot("secureboot-on").events, boot("cmdline-drift").events, [8])
    changed = [row for row in rows if isinstance(row, Difference)]
    assert [(row.kind, row.words.name) for row in changed] == [
        ("changed", "GRUB command"),
        ("changed", "Kernel command line"),
    ]
    line = changed[1]
    assert line.expected is not None
    assert line.measured is not None
    assert "drift=1" in line.measured.words.text
    assert "drift=1" not in line.expected.words.text
    assert line.expected.digest != line.measured.digest


def test_the_same_file_with_other_content_is_one_changed_row() -> None:
    rows = difference(boot("secureboot-on").events, boot("cmdline-drift").events, [9])
    assert told(rows) == [("changed", "(hd0)/EFI/debian/grub.cfg"), ("same", "2")]


def test_added_and_missing_events_are_told_apart() -> None:
    rows = difference(
        commands("set a=1", "linux /vmlinuz", "boot"), commands("linux /vmlinuz", "insmod evil", "boot"), [8]
    )
    assert told(rows) == [("missing", "set a=1"), ("same", "1"), ("added", "insmod evil"), ("same", "1")]


def test_pcrs_that_were_not_asked_for_are_left_out() -> None:
    assert difference(commands("a"), commands("b"), [7]) == ()


def test_a_pcr_without_events_on_one_side_is_all_added() -> None:
    assert told(difference([], commands("a", "b"), [8])) == [("added", "a"), ("added", "b")]


def test_an_endless_log_is_compared_in_time() -> None:
    many = commands(*(f"set a={number % 7}" for number in range(17 * ALIGNED_EVENTS)))
    other = commands(*(f"set a={number % 5}" for number in range(17 * ALIGNED_EVENTS)))
    began = time.monotonic()
    rows = difference(many, other, [8])
    assert time.monotonic() - began < 5
    assert rows[0] == Same(8, 5)


@pytest.mark.parametrize(
    ("expected", "measured", "sentence"),
    [
        ("ro quiet", "ro quiet drift=1", "drift=1 was added"),
        ("ro quiet", "ro", "quiet was removed"),
        ("ro a=1", "ro a=2 b", "a=2 and b were added and a=1 was removed"),
        ("console=a", "console=a console=a", "console=a was added"),
        ("a b", "b a", "its order, its spacing or its far end changed"),
        ("", " ".join("abcdefgh"), "a, b, c, d, e, f and 2 more were added"),
    ],
)
def test_a_change_is_said_in_words(expected: str, measured: str, sentence: str) -> None:
    assert change_in_words(expected, measured) == sentence


def test_added_and_removed_arguments_keep_their_order() -> None:
    assert changed_arguments("a b c", "c d a e") == (("d", "e"), ("b",))


@given(st.lists(st.sampled_from("abcde"), max_size=30), st.lists(st.sampled_from("abcde"), max_size=30))
def test_every_event_of_both_sides_is_accounted_for(before: list[str], after: list[str]) -> None:
    rows = difference(commands(*before), commands(*after), [8])
    same = sum(row.count for row in rows if isinstance(row, Same))
    changes = [row for row in rows if isinstance(row, Difference)]
    # Two alike events that moved within one run are paired without a row, so the sides may each hold more.
    paired_away = len(before) - same - sum(row.expected is not None for row in changes)
    assert paired_away == len(after) - same - sum(row.measured is not None for row in changes)
    assert paired_away >= 0
    assert (before == after) == (not changes and same == len(after) == len(before))
