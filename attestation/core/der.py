"""The little DER that X.509 libraries do not give: raw pieces of certificates that TPM makers wrote not quite right.

Nothing here decides trust; the pieces go to `cryptography` to be parsed and verified.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from attestation.core.reader import Reader
from attestation.errors import ParseError

SEQUENCE: Final = 0x30
SET: Final = 0x31
VERSION: Final = 0xA0
_OCTET_STRING: Final = 0x04
_CONSTRUCTED: Final = 0x20
_SUBJECT_ALT_NAME: Final = bytes.fromhex("0603551d11")
LARGEST: Final = 64 * 1024
_DEEPEST: Final = 16


@dataclass(frozen=True, slots=True)
class Element:
    """One tag-length-value: `raw` is all of it, `value` the content."""

    tag: int
    raw: bytes
    value: bytes


def read_element(data: bytes, *, largest: int = LARGEST) -> Element:
    """Return the first element of `data`, with a content of `largest` bytes at most; what follows is not looked at."""
    return _read(Reader(data, what="DER"), data, largest)


def read_elements(data: bytes, *, largest: int = LARGEST) -> Iterator[Element]:
    """Yield the elements that `data` is made of, to its very end."""
    reader = Reader(data, what="DER")
    while reader.remaining:
        yield _read(reader, data, largest)


def encode_element(tag: int, value: bytes) -> bytes:
    """Return the element with its shortest length, as DER has it (X.690, 10.1)."""
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + value


def sort_sets(element: Element, *, depth: int = _DEEPEST) -> bytes:
    """Return `element` with every SET in it in DER order (X.690, 11.6), also in a subjectAltName; no length changes."""
    if not element.tag & _CONSTRUCTED:
        return element.raw
    if not depth:
        raise ParseError("DER nested too deeply.")
    children = list(read_elements(element.value))
    parts = [sort_sets(child, depth=depth - 1) for child in children]
    if element.tag == SET:
        parts.sort()
    elif len(children) > 1 and children[0].raw == _SUBJECT_ALT_NAME and children[-1].tag == _OCTET_STRING:
        inside = [sort_sets(child, depth=depth - 1) for child in read_elements(children[-1].value)]
        parts[-1] = _header(children[-1]) + b"".join(inside)
    return _header(element) + b"".join(parts)


def _header(element: Element) -> bytes:
    return element.raw[: len(element.raw) - len(element.value)]


def _read(reader: Reader, data: bytes, largest: int) -> Element:
    start = reader.offset
    tag, length = reader.u8(), reader.u8()
    if tag & 0x1F == 0x1F:
        raise reader.error("a tag of more than one byte")
    if length & 0x80:
        width = length & 0x7F
        if not 1 <= width <= 4:
            raise reader.error(f"a length of {width} bytes")
        length = int.from_bytes(reader.take(width), "big")
    if length > largest:
        raise reader.error(f"an element of {length} bytes")
    value = reader.take(length)
    return Element(tag, data[start : reader.offset], value)
