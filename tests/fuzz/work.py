"""Counts what a call costs, so that a test can say how it grows. No clock: what else the machine does is no matter."""

import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any, SupportsIndex


class Counted(bytes):
    """Bytes that count how many of them are copied out of them, which no call shows."""

    copied = 0

    def __getitem__(self, key: SupportsIndex | slice) -> Any:
        taken = super().__getitem__(key)
        if isinstance(taken, bytes):
            Counted.copied += len(taken)
        return taken


def steps(run: Callable[[bytes], object], data: bytes) -> int:
    """How many lines of Python, calls and copied bytes (a thousand count as one step) a run takes."""
    count = 0

    def line(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += 1
        return line

    def call(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += 1

    counted = Counted(data)
    Counted.copied = 0
    before = sys.gettrace(), sys.getprofile()
    sys.settrace(line)
    sys.setprofile(call)
    try:
        run(counted)
    finally:
        sys.setprofile(before[1])
        sys.settrace(before[0])
    return count + Counted.copied // 1000


def peak(run: Callable[[bytes], object], data: bytes) -> int:
    """How many bytes a run holds at its worst moment, beyond what was there before."""
    tracemalloc.start()
    try:
        run(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
