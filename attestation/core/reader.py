"""A bounded cursor over untrusted bytes: nothing is read past the end, and nothing is left unread unnoticed.

Every binary parser of the cores reads through it, so a short buffer and trailing bytes are one error, with the offset
at which the structure went wrong.
"""

from typing import Literal

from attestation.errors import ParseError

ByteOrder = Literal["big", "little"]


class Reader:
    """Reads fixed-width integers and byte runs; TPM structures are big-endian, event logs little-endian."""

    __slots__ = ("_data", "_offset", "_order", "_what")

    def __init__(self, data: bytes, *, what: str, order: ByteOrder = "big") -> None:
        self._data = data
        self._what = what
        self._order = order
        self._offset = 0

    @property
    def offset(self) -> int:
        return self._offset

    @property
    def remaining(self) -> int:
        return len(self._data) - self._offset

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes, all of them or none."""
        end = self._offset + count
        if end > len(self._data) or count < 0:
            raise self.error(f"needs {count} bytes, {self.remaining} are left")
        taken = self._data[self._offset : end]
        self._offset = end
        return taken

    def u8(self) -> int:
        return self._integer(1)

    def u16(self) -> int:
        return self._integer(2)

    def u32(self) -> int:
        return self._integer(4)

    def u64(self) -> int:
        return self._integer(8)

    def sized(self, limit: int) -> bytes:
        """Return a byte run behind its 16-bit length, as in every TPM2B; `limit` is the most its type allows."""
        count = self.u16()
        if count > limit:
            raise self.error(f"claims {count} bytes where at most {limit} are allowed")
        return self.take(count)

    def finish(self) -> None:
        """Refuse trailing bytes: what nobody reads, nobody has checked."""
        if self.remaining:
            raise self.error(f"ends here, but {self.remaining} bytes follow")

    def error(self, problem: str) -> ParseError:
        """Return (not raise) a ParseError that names the structure and the offset."""
        return ParseError(f"{self._what} at offset {self._offset}: {problem}.")

    def _integer(self, width: int) -> int:
        return int.from_bytes(self.take(width), self._order)
