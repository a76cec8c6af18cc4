"""Numbers for pictures that templates draw as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

from attestation.service import Hour

FULL = 100.0
LEAST_VISIBLE = 2.0


@dataclass(frozen=True, slots=True)
class Bar:
    hour: Hour
    passed_y: float
    passed_height: float
    failed_y: float
    failed_height: float
    last: bool


@dataclass(frozen=True, slots=True)
class Chart:
    bars: tuple[Bar, ...]
    top: int
    middle: int
    total: int
    failed: int


def chart(hours: Sequence[Hour]) -> Chart:
    """Scale the hours to a top that is a round number, failures stacked on what passed."""
    top = _round_up(max((hour.passed + hour.failed for hour in hours), default=0))
    bars = tuple(_bar(hour, top, last=hour is hours[-1]) for hour in hours)
    failed = sum(hour.failed for hour in hours)
    return Chart(bars, top, top // 2, failed + sum(hour.passed for hour in hours), failed)


def _bar(hour: Hour, top: int, *, last: bool) -> Bar:
    passed = FULL * hour.passed / top
    failed = max(FULL * hour.failed / top, LEAST_VISIBLE) if hour.failed else 0.0
    return Bar(
        hour,
        round(FULL - passed, 1),
        round(passed, 1),
        round(max(FULL - passed - failed, 0), 1),
        round(failed, 1),
        last,
    )


def _round_up(value: int) -> int:
    """Return the first of 4, 10, 20, 40, 100, 200, 400, … that holds the value."""
    scale = 1
    while True:
        for step in (4, 10, 20):
            if value <= step * scale:
                return step * scale
        scale *= 10
