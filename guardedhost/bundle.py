"""The protected secrets in a bundle: state.N.json, one per start, each complete or absent.

Every start rolls the key that protects the secrets, so a state is only replaced when a newer one is safely on disk,
and the one that last started the machine is kept until the newer one has. The highest number that can be opened wins.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardedhost.store import sync_folder, write_atomically

_STATE = re.compile(r"state\.(0|[1-9][0-9]{0,8})\.json")
# What write_atomically leaves behind when it is killed.
_UNFINISHED = re.compile(r"\.state\.[0-9]+\.json\.[0-9]+")


@dataclass(frozen=True, slots=True)
class State:
    """A key protector, and the secrets encrypted under its key."""

    number: int
    protector: dict[str, Any] = field(repr=False)
    secrets: str = field(repr=False)  # JWE, compact


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One start at a time per bundle."""
    (folder / "run").mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / "run" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_states(folder: Path) -> list[State]:
    """The complete states, newest first. A damaged file is passed over, because an older state may still open."""
    found = [_read(folder, number) for number in sorted(_numbers(folder), reverse=True)]
    return [state for state in found if state is not None]


def add_state(folder: Path, protector: dict[str, Any], secrets: str) -> int:
    """Write a state that is newer than all others, damaged ones included, and return its number."""
    number = max(_numbers(folder), default=-1) + 1
    content = json.dumps({"protector": protector, "secrets": secrets}).encode()
    write_atomically(folder / _name(number), content)
    return number


def keep_states(folder: Path, numbers: set[int]) -> None:
    """Remove every other state and what killed writers left."""
    for number in _numbers(folder) - numbers:
        (folder / _name(number)).unlink()
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            path.unlink()
    sync_folder(folder)


def _numbers(folder: Path) -> set[int]:
    return {int(match[1]) for path in folder.iterdir() if (match := _STATE.fullmatch(path.name))}


def _read(folder: Path, number: int) -> State | None:
    try:
        fields = json.loads((folder / _name(number)).read_bytes())
        protector, secrets = fields["protector"], fields["secrets"]
    except (KeyError, ValueError, TypeError):
        return None
    return State(number, protector, secrets) if isinstance(protector, dict) and isinstance(secrets, str) else None


def _name(number: int) -> str:
    return f"state.{number}.json"
