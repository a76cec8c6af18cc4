"""Keeps secrets inside the processes that need them: no core dumps, no debuggers, keys by pipe only."""

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PR_SET_DUMPABLE = 4


def keep_secrets_in() -> None:
    """No core file of this process or its children, no ptrace by others of the same user, no file that others read."""
    os.umask(0o077)
    leave_no_dumps()


def leave_no_dumps() -> None:
    """No core file of this process or its children, no ptrace by others of the same user."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@contextmanager
def by_pipe(secret: bytes) -> Iterator[int]:
    """A descriptor to read `secret` from, once. A key of this size fits in the pipe, so writing does not block."""
    reader, writer = os.pipe()
    try:
        os.write(writer, secret)
        os.close(writer)
        yield reader
    finally:
        os.close(reader)


def running_pid(pid_file: Path, mark: str) -> int | None:
    """The process that a pid file names, if it still runs and is ours: `mark` is part of its command line.

    A number alone may by now belong to somebody else's process.
    """
    try:
        pid = int(pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return pid if mark.encode() in command else None
