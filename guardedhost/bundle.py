"""The protected secrets in a bundle: state.N.json, one per start, each complete or absent.

Every start rolls the key that protects the secrets, so a state is only replaced when a newer one is safely on disk,
and the one that last started the machine is kept until the newer one has. The highest number that can be opened wins.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from guardedhost import files
from kps.core.bundle import VmState, build_state, parse_state, state_file
from kps.errors import MalformedDocument

RECEIPT = "receipt"
RECEIPT_LIMIT = 4096
_STATE = re.compile(r"state\.(0|[1-9][0-9]{0,8})\.json")
# What write_atomically leaves behind when it is killed.
_UNFINISHED = re.compile(r"\.state\.[0-9]+\.json\.[0-9]+")


@dataclass(frozen=True, slots=True)
class State:
    """One of the bundle's states. Where it stands in the order is the host's; what it says is the tenant's."""

    number: int
    content: VmState


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One start at a time per bundle."""
    (folder / "run").mkdir(mode=0o700, exist_ok=True)
    with files.locked(folder / "run" / "lock"):
        yield


def read_states(folder: Path) -> list[State]:
    """The complete states, newest first. A damaged file is passed over, because an older state may still open."""
    found = [_read(folder, number) for number in sorted(_numbers(folder), reverse=True)]
    return [state for state in found if state is not None]


def add_state(folder: Path, content: VmState) -> int:
    """Write a state that is newer than all others, damaged ones included, and return its number."""
    number = max(_numbers(folder), default=-1) + 1
    files.write_atomically(folder / state_file(number), build_state(content))
    return number


def keep_states(folder: Path, numbers: set[int]) -> None:
    """Remove every other state and what killed writers left."""
    for number in _numbers(folder) - numbers:
        (folder / state_file(number)).unlink()
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            path.unlink()
    files.sync_folder(folder)


def keep_receipt(folder: Path, receipt: str) -> None:
    """Keep the log's promise to have the newest release in it, for `guardhouse audit verify --receipt`."""
    if 0 < len(receipt) <= RECEIPT_LIMIT:
        files.write_atomically(folder / RECEIPT, receipt.encode(errors="replace"))


def _numbers(folder: Path) -> set[int]:
    return {int(match[1]) for path in folder.iterdir() if (match := _STATE.fullmatch(path.name))}


def _read(folder: Path, number: int) -> State | None:
    try:
        return State(number, parse_state((folder / state_file(number)).read_bytes()))
    except MalformedDocument:
        return None
