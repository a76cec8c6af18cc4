"""What UEFI puts inside event data: variables, signature lists, authorities, device paths and partition tables.

Structures of the UEFI specification and of the TCG PC Client Platform Firmware Profile (PFP). Nothing here is evidence
by itself: who calls must know which digest covers the bytes. Work is linear in the input, and every `parse_*` gives a
value or ParseError.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Final
from uuid import UUID

from attestation.core.certificate_reader import CERTIFICATE_LIMIT, certificate_names, parse_certificate
from attestation.core.reader import Reader
from attestation.errors import ParseError

GLOBAL_VARIABLE: Final = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_SECURITY: Final = UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
SHIM: Final = UUID("605dab50-e046-4300-abb6-3dd810dd8b23")

_LONGEST_NAME: Final = 1024
_VARIABLE_HEAD: Final = Struct("<16sQQ")
_SIGNATURE_LIST: Final = Struct("<16sIII")
_OWNER: Final = 16
_X509: Final = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
_HASHES: Final = {
    UUID("c1c41626-504c-4092-aca9-41f936934328"): ("sha256", 32),
    UUID("826ca512-cf10-4ac9-b187-be01496631bd"): ("sha1", 20),
    UUID("ff3e5307-9fd0-48c9-85f1-8ad56c701e01"): ("sha384", 48),
    UUID("093e0fae-a6c4-4f50-9f1b-d41e2b89c19a"): ("sha512", 64),
}
_KINDS: Final = {"x509": _X509, **{word: kind for kind, (word, _) in _HASHES.items()}}
_MOST_PARTITIONS: Final = 256
_GPT_HEADER: Final = 92
_GPT_ENTRY: Final = 128
_MOST_NODES: Final = 64
_NODE: Final = Struct("<BBH")
_END: Final = 0x7F


@dataclass(frozen=True, slots=True)
class Variable:
    """UEFI_VARIABLE_DATA (PFP, "Measuring UEFI Variables")."""

    guid: UUID
    name: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """One EFI_SIGNATURE_DATA: a certificate (`kind` is "x509") or the hash of a program."""

    kind: str
    owner: UUID
    data: bytes


@dataclass(frozen=True, slots=True)
class Partition:
    """One used entry of a GUID partition table."""

    kind: UUID
    unique: UUID
    first: int
    last: int
    name: str


@dataclass(frozen=True, slots=True)
class PartitionTable:
    disk: UUID
    partitions: tuple[Partition, ...]


@dataclass(frozen=True, slots=True)
class ImageLoad:
    """UEFI_IMAGE_LOAD_EVENT (PFP): where a program came from. It is a hint: the digest is the program's own hash."""

    address: int
    length: int
    path: str


def parse_variable(data: bytes) -> Variable:
    """Split UEFI_VARIABLE_DATA; its lengths must fill the data exactly, or the name could hide in the value."""
    head = _VARIABLE_HEAD.size
    if len(data) < head:
        raise ParseError(f"UEFI variable at offset 0: {len(data)} bytes are too few.")
    guid, letters, size = _VARIABLE_HEAD.unpack_from(data)
    begin = head + 2 * letters
    if letters > _LONGEST_NAME or begin + size != len(data):
        raise ParseError(
            f"UEFI variable at offset {head}: a name of {letters} letters and {size} bytes do not fill it."
        )
    return Variable(_guid(guid), data[head:begin].decode("utf-16-le", "replace"), data[begin:])


def uefi_variable(data: bytes) -> Variable | None:
    """The variable in the data, or None unless its lengths fit exactly."""
    try:
        return parse_variable(data)
    except ParseError:
        return None


def parse_signature_lists(data: bytes) -> tuple[Signature, ...]:
    """Read the EFI_SIGNATURE_LISTs of PK, KEK, db, dbx or MokList (UEFI, "Signature Database")."""
    return tuple(
        Signature(kind, _guid(data[at : at + _OWNER]), data[at + _OWNER : at + each])
        for kind, begin, each, end in _signature_lists(data)
        for at in range(begin, end, each)
    )


def count_signatures(data: bytes) -> int:
    """Return how many signatures the lists have; they are checked as if they were read."""
    return sum((end - begin) // each for _, begin, each, end in _signature_lists(data))


def signature_list(kind: str, owner: UUID, signature: bytes) -> bytes:
    """Write a list of one signature, as shim writes the lists that it measures."""
    each = _OWNER + len(signature)
    head = _SIGNATURE_LIST.pack(_KINDS[kind].bytes_le, _SIGNATURE_LIST.size + each, 0, each)
    return head + owner.bytes_le + signature


def parse_authority(value: bytes) -> Signature:
    """Read what EV_EFI_VARIABLE_AUTHORITY measures of db: one EFI_SIGNATURE_DATA.

    Some versions of shim leave the owner out, so a bare certificate is taken as well.
    """
    if value[:1] == b"\x30" and _is_certificate(value):
        return Signature("x509", UUID(int=0), value)
    reader = Reader(value, what="variable authority", order="little")
    owner = UUID(bytes_le=reader.take(_OWNER))
    body = reader.take(reader.remaining)
    if _is_certificate(body):
        return Signature("x509", owner, body)
    if len(body) == 32:
        return Signature("sha256", owner, body)
    raise reader.error("neither a certificate nor a hash")


def parse_gpt(data: bytes) -> PartitionTable:
    """Read UEFI_GPT_DATA (PFP): the header of the partition table and the entries in use."""
    reader = Reader(data, what="partition table", order="little")
    header = reader.take(_GPT_HEADER)
    if header[:8] != b"EFI PART":
        raise reader.error("no GUID partition table")
    count = reader.u64()
    if count > _MOST_PARTITIONS:
        raise reader.error(f"{count} partitions")
    partitions = tuple(_partition(reader.take(_GPT_ENTRY)) for _ in range(count))
    reader.finish()
    return PartitionTable(UUID(bytes_le=header[56:72]), partitions)


def parse_image_load(data: bytes) -> ImageLoad:
    """Read UEFI_IMAGE_LOAD_EVENT; shim writes a few bytes too many behind it."""
    reader = Reader(data, what="image load event", order="little")
    address, length, _, size = (reader.u64() for _ in range(4))
    path = reader.take(size)
    return ImageLoad(address, length, parse_device_path(path))


def parse_device_path(data: bytes) -> str:
    """Return the words of a device path (UEFI, "Device Path Protocol"), nodes joined by slashes, as UEFI prints it."""
    words = []
    for _, (kind, subtype, body) in zip(range(_MOST_NODES), _nodes(data), strict=False):
        words.append(_node_words(kind, subtype, body))
    return "/".join(words)


@lru_cache(maxsize=256)
def certificate_subject(der: bytes) -> str | None:
    """Return whom a certificate names, or None when it is not one that can be read.

    Remembered, because nearly every machine has the same few certificates, and reading one takes a third of the time
    that all else in a log takes.
    """
    try:
        subject, _ = certificate_names(parse_certificate(der))
    except (ParseError, ValueError):  # a name may have letters that its own encoding does not have
        return None
    return subject or None


def _signature_lists(data: bytes) -> Iterator[tuple[str, int, int, int]]:
    """Of each list: the kind of its signatures, where they begin, the size of each, and where they end."""
    at = 0
    while at < len(data):
        begin = at + _SIGNATURE_LIST.size
        if begin > len(data):
            raise ParseError(f"signature list at offset {at}: {len(data) - at} bytes are too few.")
        guid, listed, header, each = _SIGNATURE_LIST.unpack_from(data, at)
        begin, end = begin + header, at + listed
        if begin > end or end > len(data) or each <= _OWNER or (end - begin) % each:
            raise ParseError(f"signature list at offset {at}: {listed} bytes with signatures of {each} bytes.")
        kind = _guid(guid)
        word, size = _HASHES.get(kind, ("x509" if kind == _X509 else str(kind), 0))
        if size and each != _OWNER + size:
            raise ParseError(f"signature list at offset {at}: {word} hashes of {each - _OWNER} bytes.")
        yield word, begin, each, end
        at = end


@lru_cache(maxsize=256)
def _guid(data: bytes) -> UUID:
    """The same few identifiers come again and again, thousands of times in one log."""
    return UUID(bytes_le=data)


@lru_cache(maxsize=256)
def _is_certificate(data: bytes) -> bool:
    if not data.startswith(b"\x30") or len(data) > CERTIFICATE_LIMIT:
        return False
    try:
        parse_certificate(data)
    except ParseError:
        return False
    return True


def _partition(entry: bytes) -> Partition:
    first, last = (int.from_bytes(entry[at : at + 8], "little") for at in (32, 40))
    name = entry[56:].decode("utf-16-le", "replace").partition("\0")[0]
    return Partition(UUID(bytes_le=entry[:16]), UUID(bytes_le=entry[16:32]), first, last, name)


def _nodes(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset < len(data):
        if len(data) - offset < _NODE.size:
            raise ParseError(f"device path at offset {offset}: ends inside a node.")
        kind, subtype, size = _NODE.unpack_from(data, offset)
        if size < _NODE.size or size > len(data) - offset:
            raise ParseError(f"device path at offset {offset}: a node of {size} bytes.")
        if kind != _END:
            yield kind, subtype, data[offset + _NODE.size : offset + size]
        elif subtype == 0xFF:
            return
        offset += size


def _node_words(kind: int, subtype: int, body: bytes) -> str:
    """The nodes that boots are made of; others are named by their numbers."""
    if (kind, subtype) == (4, 4):
        return body.decode("utf-16-le", "replace").rstrip("\0").strip("\\")
    if (kind, subtype) == (1, 1) and len(body) == 2:
        return f"Pci({body[1]:#x},{body[0]:#x})"
    if (kind, subtype) == (2, 1) and len(body) == 8:
        return f"Acpi({int.from_bytes(body[:4], 'little'):#x},{int.from_bytes(body[4:], 'little'):#x})"
    if (kind, subtype) == (4, 1) and len(body) == 38:
        number = int.from_bytes(body[:4], "little")
        return f"HD({number},{UUID(bytes_le=body[20:36])})" if body[37] == 2 else f"HD({number})"
    if (kind, subtype) in ((4, 6), (4, 7)) and len(body) == 16:
        return f"{'FvFile' if subtype == 6 else 'Fv'}({UUID(bytes_le=body)})"
    return f"Path({kind},{subtype})"
