"""QEMU's monitor protocol over the machine's private socket: one short conversation at a time."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from guardedhost.errors import VmFailure

_TIMEOUT = 30.0
_LINE_LIMIT = 1 << 20
_SOCKET_PATH_LIMIT = 107  # sockaddr_un


class Qmp:
    """A connection; raises ConnectionError or FileNotFoundError when no machine is behind the socket."""

    def __init__(self, path: Path) -> None:
        self._file: BufferedReader | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_TIMEOUT)
        try:
            with _short(path) as reachable:
                self._socket.connect(reachable)
            self._file = self._socket.makefile("rb")
            self._read()  # the greeting
            self.execute("qmp_capabilities")
        except OSError:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def execute(self, command: str) -> dict[str, Any]:
        """Run one command without arguments and return its answer; events are passed over."""
        self._socket.sendall(json.dumps({"execute": command}).encode() + b"\n")
        while True:
            message = self._read()
            if "return" in message:
                answer = message["return"]
                return answer if isinstance(answer, dict) else {}
            if "error" in message:
                raise VmFailure(f"QEMU refused {command}: {message['error'].get('desc')}.")

    def _close(self) -> None:
        if self._file:
            self._file.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        line = self._file.readline(_LINE_LIMIT) if self._file else b""
        if not line:
            raise ConnectionResetError("QEMU closed its monitor")
        message = json.loads(line)
        return message if isinstance(message, dict) else {}


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the socket that fits into sockaddr_un, however deep the bundle lies."""
    if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
