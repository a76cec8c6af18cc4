"""The pieces that a code integrity policy's binary form is written with.

Integers are little-endian. Byte runs and UTF-16 texts stand behind their 32-bit length and are filled up with zeros to
a multiple of four bytes; a text ends with four zero bytes more.
"""

from struct import unpack
from typing import Final
from uuid import UUID

from attestation.core.reader import Reader

_LONGEST_EKU: Final = 64

Indices = tuple[int, ...]


class PolicyReader(Reader):
    """A cursor that knows those pieces, and refuses whatever could hide in what fills up between them."""

    __slots__ = ()

    def guid(self) -> UUID:
        return UUID(bytes_le=self.take(16))

    def version(self) -> str:
        """Return four 16-bit numbers, the least significant of which comes first, in dots."""
        return ".".join(map(str, reversed(unpack("<4H", self.take(8)))))

    def indices(self) -> Indices:
        count = self.u32()
        return unpack(f"<{count}I", self.take(4 * count))

    def run(self) -> bytes:
        data = self.take(self.u32())
        if any(self.take(-len(data) % 4)):
            raise self.error("something is hidden in the bytes that fill up")
        return data

    def text(self) -> str:
        data = self.run()
        if self.u32():
            raise self.error("a text does not end where it should")
        try:
            return data.decode("utf-16-le")
        except UnicodeDecodeError as error:
            raise self.error("a text that is not UTF-16") from error

    def texts(self) -> tuple[str, ...]:
        return tuple(self.text() for _ in range(self.u32()))

    def eku(self) -> str:
        """Return an object identifier in dots (DER, but with tag 1); what is none is given in hexadecimal."""
        value = self.run()
        if not 2 < len(value) <= _LONGEST_EKU or len(value) != 2 + value[1] or value[-1] & 0x80:
            return value.hex()
        arcs, number = [], 0
        for byte in value[2:]:
            number = number << 7 | byte & 0x7F
            if not byte & 0x80:
                arcs.append(number)
                number = 0
        first = min(arcs[0] // 40, 2)
        return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))
