"""How a figure is measured and shown: repeated runs, their median and least, and its ratio to another in the same run.

The times of a shared machine drift by half within minutes; two things that were measured in the same run drift alike.
So the ratio is what can be compared between two states of this tree, and the times say of what order things are.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

RUN_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Item:
    """Something to do many times over; `against` names the item that its ratio is to."""

    name: str
    work: Callable[[], object]
    against: str


@dataclass(frozen=True, slots=True)
class Figure:
    """The times of one thing in milliseconds, one for each run."""

    name: str
    runs: tuple[float, ...]
    against: str = ""


def measure(items: Sequence[Item], *, runs: int) -> list[Figure]:
    """Do every item in every run, as often as fills the run."""
    often = {item.name: max(1, int(RUN_SECONDS / max(_once(item.work), 1e-7))) for item in items}
    times: dict[str, list[float]] = {item.name: [] for item in items}
    for _ in range(runs):
        for item in items:
            count, work = often[item.name], item.work
            began = time.perf_counter()
            for _ in range(count):
                work()
            times[item.name].append((time.perf_counter() - began) * 1000 / count)
    return [Figure(item.name, tuple(times[item.name]), item.against) for item in items]


def _once(work: Callable[[], object]) -> float:
    work()  # what is cached is cached by now
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def show(title: str, figures: Sequence[Figure]) -> None:
    """Print a table."""
    by_name = {figure.name: figure for figure in figures}
    print(f"\n{title}")
    print(f"  {'':58} {'median':>9} {'least':>9}   ratio")
    for figure in figures:
        print(f"  {figure.name:58} {_ms(median(figure.runs))} {_ms(min(figure.runs))}   {_ratio(figure, by_name)}")


def _ms(value: float) -> str:
    return f"{value:6.3f} ms" if value < 100 else f"{value:6.0f} ms"


def _ratio(figure: Figure, by_name: Mapping[str, Figure]) -> str:
    if figure.against not in by_name or figure.against == figure.name:
        return ""
    pairs = zip(figure.runs, by_name[figure.against].runs, strict=True)
    ratios = [mine / theirs for mine, theirs in pairs if theirs]
    return f"{median(ratios):6.2f} x {figure.against}" if ratios else ""
