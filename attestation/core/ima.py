"""Replays Linux's IMA measurement list against PCR 10.

The list is the kernel's binary_runtime_measurements (Documentation/security/IMA-templates.rst): little-endian, one
record per measured file. The list grows while a host runs, so it may be longer than what the quote covers: what lies
behind the quoted value is unproved and is not looked at.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from attestation.errors import ImaMismatch, ParseError, TooLarge

IMA_LIMIT: Final = 64 << 20

_IMA_PCR: Final = 10
_PCR_COUNT: Final = 24
_U32: Final = Struct("<I")
_BANKS: Final = frozenset({"sha1", "sha256", "sha384", "sha512"})
_LISTED_SIZES: Final = (20, 32, 48, 64)
_LONGEST_TEMPLATE_NAME: Final = 64
_LONGEST_TEMPLATE_DATA: Final = 1 << 20
_LEGACY: Final = b"ima"
_LEGACY_DIGEST: Final = 20
_LEGACY_NAME: Final = 256


@dataclass(frozen=True, slots=True)
class ImaList:
    """How much of the list the quoted PCR 10 vouches for. A violation is a file that changed while it was measured."""

    entries: int
    violations: int


def replay_ima(data: bytes, *, quoted: bytes, bank: str) -> ImaList:
    """Return the extent of the prefix that leads to the quoted PCR 10, or raise ImaMismatch.

    The mark of a violation needs no trust: the wrong reading does not lead to the quoted value.
    """
    if len(data) > IMA_LIMIT:
        raise TooLarge(f"The IMA list has {len(data)} bytes; {IMA_LIMIT} is the limit.")
    if bank not in _BANKS:
        raise ImaMismatch(f"PCR 10: the bank {bank} cannot be replayed.")
    new = getattr(hashlib, bank)
    value = bytes(new().digest_size)
    violation = b"\xff" * len(value)
    entries = violations = 0
    measured = ima_measurements(data, bank=bank)
    while value != quoted:
        pcr, digest = next(measured, (None, b""))
        if pcr is None:
            raise ImaMismatch("PCR 10: no part of the IMA list leads to the value that the TPM signed.")
        if pcr == _IMA_PCR:  # an IMA policy rule may send a measurement to another PCR
            entries += 1
            violations += digest == violation
            value = new(value + digest).digest()
    return ImaList(entries, violations)


def ima_measurements(data: bytes, *, bank: str) -> Iterator[tuple[int, bytes]]:
    """Give the PCR of each entry and what the kernel extended it with, as far as the list can be read.

    The digest in the list may be of another bank (it is SHA-1 in the plain file), so each template is hashed again, as
    the kernel does since 5.8. A listed digest of zeros marks a violation, which the kernel extends as ones.
    """
    new = getattr(hashlib, bank)
    violation = b"\xff" * new().digest_size
    listed = _listed_size(data) if data else 0
    blank = bytes(listed)
    offset = 0
    while offset != len(data):
        pcr, digest, template, offset = _entry(data, offset, listed)
        yield pcr, violation if digest == blank else new(template).digest()


def _entry(data: bytes, offset: int, listed: int) -> tuple[int, bytes, bytes, int]:
    """One record: PCR, listed template digest, the bytes that a template digest is made of, the offset behind it."""
    start = offset
    pcr_bytes, offset = _take(data, offset, 4, start)
    pcr = _U32.unpack(pcr_bytes)[0]
    if pcr >= _PCR_COUNT:
        raise ParseError(f"The entry at byte {start} of the IMA list names PCR {pcr}.")
    digest, offset = _take(data, offset, listed, start)
    name, offset = _sized(data, offset, _LONGEST_TEMPLATE_NAME, start)
    if name == _LEGACY:
        # The legacy template has no length of its own and is hashed with its name padded to 256 bytes.
        file_digest, offset = _take(data, offset, _LEGACY_DIGEST, start)
        file_name, offset = _sized(data, offset, _LEGACY_NAME, start)
        return pcr, digest, file_digest + file_name.ljust(_LEGACY_NAME, b"\0"), offset
    template, offset = _sized(data, offset, _LONGEST_TEMPLATE_DATA, start)
    return pcr, digest, template, offset


def _sized(data: bytes, offset: int, limit: int, start: int) -> tuple[bytes, int]:
    length, offset = _take(data, offset, 4, start)
    size = _U32.unpack(length)[0]
    if size > limit:
        raise ParseError(f"The entry at byte {start} of the IMA list claims a field of {size} bytes.")
    return _take(data, offset, size, start)


def _take(data: bytes, offset: int, size: int, start: int) -> tuple[bytes, int]:
    if size > len(data) - offset:
        raise ParseError(f"The IMA list ends inside the entry at byte {start}.")
    return data[offset : offset + size], offset + size


def _listed_size(data: bytes) -> int:
    """How long the listed digests are: binary_runtime_measurements_sha256 and its like exist beside the SHA-1 file."""
    for size in _LISTED_SIZES:
        at = 4 + size
        length = _U32.unpack_from(data, at)[0] if len(data) >= at + 4 else 0
        name = data[at + 4 : at + 4 + length] if 0 < length <= _LONGEST_TEMPLATE_NAME else b""
        if name and len(name) == length and name.isascii() and name.decode("ascii").isprintable():
            return size
    raise ParseError("The IMA list does not begin with an entry at byte 0.")
