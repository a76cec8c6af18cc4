"""Reads a disk through `qemu-nbd`, which knows the formats: a client of the NBD protocol that can only read.

Only QEMU's own server on a socket in a private folder is spoken to. The protocol is github.com/NetworkBlockDevice/nbd,
doc/proto.md: fixed newstyle, option EXPORT_NAME, simple replies.
"""

import socket
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Final, Self

from guardedhost.errors import ImageFailure

_GREETING: Final = Struct(">8s8sH")
_OPTION: Final = Struct(">I8sII")  # the client's flags, and one option
_EXPORT: Final = Struct(">QH")
_REQUEST: Final = Struct(">IHHQQI")
_REPLY: Final = Struct(">IIQ")
_FIXED_NEWSTYLE_WITHOUT_ZEROES: Final = 3
_EXPORT_NAME: Final = 1
_REQUEST_MAGIC: Final = 0x25609513
_REPLY_MAGIC: Final = 0x67446698
_READ, _DISCONNECT = 0, 2


class Nbd:
    """One connection; not to be shared between threads."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
            self.size = self._negotiate()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        try:
            self._socket.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, _DISCONNECT, 0, 0, 0))
        except OSError:  # the server is gone, and so is the connection
            pass
        finally:
            self._socket.close()

    def read(self, offset: int, length: int) -> memoryview:
        """Return what the disk holds there."""
        try:
            return self._read(offset, length)
        except ConnectionError as error:
            raise ImageFailure("qemu-nbd ended before the disk was read.") from error

    def _read(self, offset: int, length: int) -> memoryview:
        self._socket.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, _READ, offset, offset, length))
        magic, error, handle = _REPLY.unpack(self._take(_REPLY.size))
        if magic != _REPLY_MAGIC or handle != offset:
            raise ImageFailure("qemu-nbd answers in another way than was agreed.")
        if error:
            raise ImageFailure(f"The disk image cannot be read at {offset} bytes (error {error} of qemu-nbd).")
        return self._take(length)

    def _negotiate(self) -> int:
        word, option, flags = _GREETING.unpack(self._take(_GREETING.size))
        if (word, option) != (b"NBDMAGIC", b"IHAVEOPT") or not flags & 1:
            raise ImageFailure("qemu-nbd greets in another way than is known here.")
        self._socket.sendall(_OPTION.pack(_FIXED_NEWSTYLE_WITHOUT_ZEROES & flags, b"IHAVEOPT", _EXPORT_NAME, 0))
        size, _ = _EXPORT.unpack(self._take(_EXPORT.size if flags & 2 else _EXPORT.size + 124))
        return int(size)

    def _take(self, length: int) -> memoryview:
        content = memoryview(bytearray(length))
        taken = 0
        while taken < length:
            count = self._socket.recv_into(content[taken:], 0, socket.MSG_WAITALL)
            if not count:
                raise ConnectionResetError("qemu-nbd ended")
            taken += count
        return content
