"""The small words of the templates."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from attestation.service import Hour
from fabric.pictures import chart
from fabric.templatetags import guardhouse as words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (60, "1 min"), (3600, "1 h"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_a_duration_has_its_two_largest_units(seconds: int, said: str) -> None:
    assert words.duration(timedelta(seconds=seconds)) == said


def test_a_moment_is_as_exact_as_it_is_near() -> None:
    now = timezone.localtime()
    assert f"{now:%H:%M:%S}" in words.when(now)
    assert f"{now - timedelta(days=2):%a}" in words.when(now - timedelta(days=2))
    assert "2 Mar 2020" in words.when(datetime(2020, 3, 2, 12, tzinfo=UTC))
    assert words.when(None) == "never"


def test_an_unknown_state_keeps_its_word() -> None:
    assert "&lt;b&gt;" in words.state("<b>")


@pytest.mark.parametrize(
    ("identifier", "said"),
    [
        ("id:49465800", "IFX"),
        ("id:4E544300", "NTC"),
        ("id:00001014", "vendor 00001014"),
        ("id:zz", "id:zz"),
        ("", "vendor "),
    ],
)
def test_a_tpm_maker_is_spelled_in_letters(identifier: str, said: str) -> None:
    assert words.tpm_maker(identifier) == said


@pytest.mark.parametrize(("most", "top"), [(0, 4), (4, 4), (5, 10), (11, 20), (21, 40), (399, 400), (401, 1000)])
def test_the_chart_ends_at_a_round_number(most: int, top: int) -> None:
    hour = Hour(start=datetime(2026, 11, 23, tzinfo=UTC), passed=most, failed=0)
    assert chart([hour]).top == top


def test_one_failure_among_many_is_still_seen() -> None:
    bars = chart([Hour(start=datetime(2026, 11, 23, tzinfo=UTC), passed=999, failed=1)]).bars
    assert bars[0].failed_height == 2
