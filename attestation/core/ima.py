"""Replays Linux's IMA measurement list against PCR 10.

The list is the kernel's binary_runtime_measurements (Documentation/security/IMA-templates.rst): little-endian, one
record per measured file. The list grows while a host runs, so it may be longer than what the quote covers: what lies
behind the quoted value is unproved and is not looked at.

A *line* is what one record says, without its PCR and its listed digest: length and name of the template, length and
content of the template data. It stands by itself, so it is what is remembered, compared and decoded.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from struct import Struct
from struct import error as struct_error
from typing import Final

from attestation.errors import ImaMismatch, ParseError, TooLarge

IMA_LIMIT: Final = 128 << 20
IMA_BANKS: Final = ("sha1", "sha256", "sha384", "sha512")
IMA_PCR: Final = 10

_PCR_COUNT: Final = 24
_U32: Final = Struct("<I")
_LISTED_SIZES: Final = (20, 32, 48, 64)
_LONGEST_TEMPLATE_NAME: Final = 64
_LONGEST_TEMPLATE_DATA: Final = 1 << 20
_LEGACY: Final = b"ima"
_LEGACY_DIGEST: Final = 20
_LEGACY_NAME: Final = 256
_SHA1_SIZE: Final = 20
_NO_PREFIX: Final = "PCR 10: no part of the IMA list leads to the value that the TPM signed."

# PCR, listed digest, line, where the template data begins in the line, offset behind the record.
Record = tuple[int, bytes, bytes, int, int]


class Extension(Enum):
    """What a kernel extends a bank with for one record.

    Since 5.8 it hashes the template anew for each bank. Before, it extended every bank with the SHA-1 digest and zeros:
    who can make SHA-1 collide can then swap files under a PCR of any bank, so a caller has to ask for it by name.
    """

    REHASHED = "rehashed"
    INSECURE_PADDED_SHA1 = "padded_sha1"


@dataclass(frozen=True, slots=True)
class ImaPosition:
    """Up to where a list is proved, to go on from there: plain values, made to be stored.

    `offset` and `entries` count bytes and records of any PCR; `pcrs` holds PCR 10 by bank. It is good for one boot:
    when resetCount grew, the list began anew, and so must the caller.
    """

    offset: int = 0
    entries: int = 0
    pcrs: Mapping[str, bytes] = field(default_factory=dict)


START: Final = ImaPosition()


@dataclass(frozen=True, slots=True)
class ImaList:
    """How much of the list the quoted PCR 10 vouches for. A violation is a file that changed while it was measured."""

    entries: int
    violations: int


@dataclass(frozen=True, slots=True)
class ImaReplay:
    """The part of a list that leads to the quoted PCR 10.

    `fresh` are the proved lines that were not known before, in their order, and `digests` what was extended for each.
    `untrusted_violations` are the lines of violations: the kernel extends ones for them, so no digest covers a word.
    """

    bank: str
    extension: Extension
    from_start: bool
    position: ImaPosition
    entries: int
    fresh: tuple[bytes, ...]
    digests: tuple[bytes, ...]
    untrusted_violations: tuple[bytes, ...]


def replay_ima(data: bytes, *, quoted: bytes, bank: str) -> ImaList:
    """Return the extent of the prefix that leads to the quoted PCR 10, or raise ImaMismatch.

    The mark of a violation needs no trust: the wrong reading does not lead to the quoted value.
    """
    if len(data) > IMA_LIMIT:
        raise TooLarge(f"The IMA list has {len(data)} bytes; the limit is reached at byte {IMA_LIMIT}.")
    _, value, violation = _bank(bank, Extension.REHASHED)
    extend = getattr(hashlib, bank)
    entries = violations = 0
    for pcr, digest in ima_measurements(data, bank=bank) if value != quoted else ():
        if pcr == IMA_PCR:  # an IMA policy rule may send a measurement to another PCR
            entries += 1
            violations += digest == violation
            value = extend(value + digest).digest()
            if value == quoted:
                break
    if value != quoted:
        raise ImaMismatch(_NO_PREFIX)
    return ImaList(entries, violations)


def replay_list(
    data: bytes,
    *,
    quoted: bytes,
    bank: str,
    extension: Extension,
    after: ImaPosition = START,
    known: Mapping[bytes, bytes] | None = None,
) -> ImaReplay:
    """Return the prefix of a binary list, or of its continuation from `after`, that leads to the quoted PCR 10.

    `known` maps lines to what is extended for them in this bank; they are neither hashed nor returned again. What it
    says needs no trust here: a wrong digest does not lead to the quoted value.
    """
    if len(data) > IMA_LIMIT:
        raise TooLarge(f"The IMA list has {len(data)} bytes; the limit is reached at byte {IMA_LIMIT}.")
    digest_of, blank, violation = _bank(bank, extension)
    extend = getattr(hashlib, bank)
    value = _value_at(after, bank, blank)
    get_known = (known or {}).get
    fresh: list[bytes] = []
    digests: list[bytes] = []
    violated: list[bytes] = []
    records = entries = proved = 0
    no_digest = bytes(_listed_size(data)) if data and value != quoted else b""
    for pcr, listed, line, start, end in ima_records(data) if value != quoted else ():
        records += 1
        if pcr != IMA_PCR:
            continue
        entries += 1
        digest = get_known(line)
        if listed == no_digest:
            violated.append(line)
            digest = violation
        elif digest is None:
            digest = digest_of(line[start:] if start else _legacy_form(line))
            fresh.append(line)
            digests.append(digest)
        value = extend(value + digest).digest()
        if value == quoted:
            proved = end
            break
    if value != quoted:
        raise ImaMismatch(_NO_PREFIX)
    position = ImaPosition(after.offset + proved, after.entries + records, {bank: value})
    return ImaReplay(
        bank, extension, after.entries == 0, position, entries, tuple(fresh), tuple(digests), tuple(violated)
    )


def ima_measurements(data: bytes, *, bank: str) -> Iterator[tuple[int, bytes]]:
    """Give the PCR of each entry and what the kernel extended it with, as far as the list can be read.

    The digest in the list may be of another bank (it is SHA-1 in the plain file), so each template is hashed again. A
    listed digest of zeros marks a violation, which the kernel extends as ones.
    """
    digest_of, _, violation = _bank(bank, Extension.REHASHED)
    for pcr, listed, line, start, _ in ima_records(data):
        yield pcr, digest_of(line[start:] if start else _legacy_form(line)) if any(listed) else violation


def ima_values(data: bytes, *, bank: str, extension: Extension) -> dict[int, bytes]:
    """Return the value of every PCR that the whole list extends. It proves nothing: compare it with a quote."""
    digest_of, blank, violation = _bank(bank, extension)
    extend = getattr(hashlib, bank)
    values: dict[int, bytes] = {}
    for pcr, listed, line, start, _ in ima_records(data):
        digest = digest_of(line[start:] if start else _legacy_form(line)) if any(listed) else violation
        values[pcr] = extend(values.get(pcr, blank) + digest).digest()
    return values


def ima_records(data: bytes) -> Iterator[Record]:
    """Read a binary list, record by record, in time and memory linear in its length; ParseError names the byte.

    Nearly all records of a list have the same template, so one unpacking of the head that the last record had reads
    the next one; where that does not fit, the record is read with care.
    """
    if len(data) > IMA_LIMIT:
        raise TooLarge(f"The IMA list has {len(data)} bytes; the limit is reached at byte {IMA_LIMIT}.")
    offset, end = 0, len(data)
    listed_size = _listed_size(data) if data else 0
    head = 4 + listed_size
    expected, start, unpack = b"not a head yet", 0, Struct("").unpack_from
    while offset < end:
        begin = offset + head
        try:
            pcr, listed, sized_name, size = unpack(data, offset)
        except (struct_error, ValueError):  # no head yet, or the rest of the list is shorter than one
            pcr, listed, sized_name, size = 0, b"", b"", 0
        if sized_name == expected and pcr < _PCR_COUNT and size <= _LONGEST_TEMPLATE_DATA:
            offset = begin + start + size
            if offset > end:
                raise ParseError(f"The IMA list ends inside the entry at byte {begin - head}.")
            yield pcr, listed, data[begin:offset], start, offset
            continue
        record = _record(data, offset, listed_size)
        yield record
        offset = record[4]
        if record[3]:  # the legacy template has another head
            start = record[3]
            expected = record[2][: start - 4]
            unpack = Struct(f"<I{listed_size}s{len(expected)}sI").unpack_from


def _record(data: bytes, offset: int, listed_size: int) -> Record:
    """Read one record with every check."""
    start = offset
    pcr_bytes, offset = _take(data, offset, 4, start)
    pcr = _U32.unpack(pcr_bytes)[0]
    if pcr >= _PCR_COUNT:
        raise ParseError(f"The entry at byte {start} of the IMA list names PCR {pcr}.")
    listed, begin = _take(data, offset, listed_size, start)
    name, offset = _sized(data, begin, _LONGEST_TEMPLATE_NAME, start)
    if name == _LEGACY:  # this template has no length of its own
        _, offset = _take(data, offset, _LEGACY_DIGEST, start)
        _, offset = _sized(data, offset, _LEGACY_NAME, start)
        return pcr, listed, data[begin:offset], 0, offset
    template = offset + 4
    _, offset = _sized(data, offset, _LONGEST_TEMPLATE_DATA, start)
    return pcr, listed, data[begin:offset], template - begin, offset


def _legacy_form(line: bytes) -> bytes:
    """What a digest of the legacy template covers: the file's digest, and its name padded to 256 bytes."""
    at = 4 + len(_LEGACY)
    return line[at : at + _LEGACY_DIGEST] + line[at + _LEGACY_DIGEST + 4 :].ljust(_LEGACY_NAME, b"\0")


def _value_at(position: ImaPosition, bank: str, blank: bytes) -> bytes:
    if not position.entries:
        return blank
    if bank not in position.pcrs:
        raise ImaMismatch(f"PCR 10: the position to go on from has no value of the bank {bank}.")
    return position.pcrs[bank]


def _bank(bank: str, extension: Extension) -> tuple[Callable[[bytes], bytes], bytes, bytes]:
    """How a template is hashed for this bank, its blank PCR, and what a violation extends."""
    if bank not in IMA_BANKS:
        raise ImaMismatch(f"PCR 10: the bank {bank} cannot be replayed.")
    new = getattr(hashlib, bank)
    size = new().digest_size
    if extension is Extension.REHASHED:
        return lambda template: new(template).digest(), bytes(size), b"\xff" * size
    padding = bytes(size - _SHA1_SIZE)
    return (
        lambda template: hashlib.sha1(template, usedforsecurity=False).digest() + padding,
        bytes(size),
        b"\xff" * _SHA1_SIZE + padding,
    )


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
