"""The little DER that X.509 libraries do not give: raw pieces of certificates that TPM makers wrote not quite right.

Nothing here decides trust; the pieces go to `cryptography` to be parsed and verified.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from attestation.core.reader import Reader

SEQUENCE: Final = 0x30
SET: Final = 0x31
VERSION: Final = 0xA0
_LARGEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Element:
    """One tag-length-value: `raw` is all of it, `value` the content."""

    tag: int
    raw: bytes
    value: bytes


def read_element(data: bytes) -> Element:
    """Return the first element of `data`; bytes after it are not looked at."""
    return _read(Reader(data, what="DER"), data)


def read_elements(data: bytes) -> Iterator[Element]:
    """Yield the elements that `data` is made of, to its very end."""
    reader = Reader(data, what="DER")
    while reader.remaining:
        yield _read(reader, data)


def sort_sets(name: Element) -> bytes:
    """Return a Name with its SETs in DER order (X.690, 11.6); nothing changes its length."""
    sorted_sets = (
        part.raw[: len(part.raw) - len(part.value)] + b"".join(sorted(item.raw for item in read_elements(part.value)))
        if part.tag == SET
        else part.raw
        for part in read_elements(name.value)
    )
    return name.raw[: len(name.raw) - len(name.value)] + b"".join(sorted_sets)


def _read(reader: Reader, data: bytes) -> Element:
    start = reader.offset
    tag, length = reader.u8(), reader.u8()
    if tag & 0x1F == 0x1F:
        raise reader.error("a tag of more than one byte")
    if length & 0x80:
        width = length & 0x7F
        if not 1 <= width <= 4:
            raise reader.error(f"a length of {width} bytes")
        length = int.from_bytes(reader.take(width), "big")
    if length > _LARGEST:
        raise reader.error(f"an element of {length} bytes")
    value = reader.take(length)
    return Element(tag, data[start : reader.offset], value)
