"""How fast a template disk is hashed, in every form in which it comes; holes are told apart from what is read."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

from guardedhost.image import opened
from kps.core.volume import BLOCK_SIZE
from tests.disks import converted

_BLOCKS = 512
_RUNS = 5
_HOLE = 16 << 30


def volume_figures(folder: Path) -> Iterator[str]:
    raw = _disk(folder / "disk.raw")
    block = os.urandom(BLOCK_SIZE)
    plain = _median(lambda: [hashlib.sha256(block).digest() for _ in range(_BLOCKS)])
    yield f"{'SHA-256 alone, one processor':40} {_BLOCKS / plain:7.0f} MiB/s"
    images = {"raw": raw, "qcow2": converted(raw, folder / "disk.qcow2")}
    images["qcow2, compressed"] = converted(raw, folder / "packed.qcow2", "-c")
    for name, image in images.items():
        taken = _median(partial(_hash, image))
        yield f"{name:40} {_BLOCKS / taken:7.0f} MiB/s"
    os.truncate(raw, _BLOCKS * BLOCK_SIZE + _HOLE)
    taken = _median(lambda: _hash(raw))
    yield f"{'raw, with a hole of 16 GiB behind it':40} {_BLOCKS / taken:7.0f} MiB/s of what is there"


def _disk(path: Path) -> Path:
    """Half of what a disk holds can be compressed, as with an operating system."""
    with path.open("wb") as file:
        for _ in range(_BLOCKS // 2):
            file.write(os.urandom(BLOCK_SIZE) + os.urandom(64) * (BLOCK_SIZE // 64))
    return path


def _hash(image: Path) -> bytes:
    with opened(image) as found:
        return found.volume().root


def _median(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times)
