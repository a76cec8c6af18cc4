"""Files that are complete or absent, whenever the machine stops, and that only their owner reads."""

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_LOOK_AGAIN = 0.1


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that any crash leaves the old or the new content."""
    write_parts_atomically(path, [content])


def write_parts_atomically(path: Path, parts: Iterable[bytes]) -> None:
    """Replace a file with what comes part by part; what goes wrong on the way leaves the old content."""
    with _written(path, parts) as temporary:
        temporary.replace(path)
    sync_folder(path.parent)


def write_new_parts(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file that must not exist out of what comes part by part: all of it or nothing."""
    with _written(path, parts) as temporary:
        path.hardlink_to(temporary)
    sync_folder(path.parent)


@contextmanager
def _written(path: Path, parts: Iterable[bytes]) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(temporary, parts, os.O_TRUNC)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that must not exist: what is there already is never replaced."""
    _write(path, [content], os.O_EXCL)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, patience: float | None = None) -> Iterator[None]:
    """One process at a time, as long as it lives; the others wait, or get TimeoutError after `patience` seconds."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, patience)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, patience: float | None) -> None:
    if patience is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError("another process holds the lock") from None
            time.sleep(_LOOK_AGAIN)


def _write(path: Path, parts: Iterable[bytes], how: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
