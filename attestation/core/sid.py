"""Reads security identifiers: who an account or a group of a Windows domain is, whatever it is called."""

from typing import Final

from attestation.core.reader import Reader

_MOST_PARTS: Final = 15
_SHORT_AUTHORITY: Final = 1 << 32


def parse_sid(data: bytes, *, what: str = "SID") -> str:
    """Return a SID of its binary form (MS-DTYP 2.4.2.2) as text (MS-DTYP 2.4.2.1); `what` it is a part of."""
    reader = Reader(data, what=what, order="little")
    revision, count = reader.u8(), reader.u8()
    if revision != 1 or count > _MOST_PARTS:
        raise reader.error(f"a SID of revision {revision} with {count} parts")
    authority = int.from_bytes(reader.take(6), "big")
    named = str(authority) if authority < _SHORT_AUTHORITY else f"0x{authority:012X}"
    parts = [str(reader.u32()) for _ in range(count)]
    reader.finish()
    return "-".join(("S-1", named, *parts))
