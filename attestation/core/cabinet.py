"""Microsoft cabinets ([MS-CAB]): the files of one, from folders stored plainly or packed with MSZIP.

Whatever a cabinet claims, no more is unpacked than `unpacked_limit`, checked before each block. LZX and Quantum are
refused by name: TrustedTpm.cab, which this is for, is MSZIP. A signature behind the cabinet is not looked at: its
sha256 is shown and kept, and whoever imports it says where it comes from.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import xor
from struct import unpack
from typing import Final

from attestation.core.reader import Reader
from attestation.errors import ParseError, TooLarge

MAGIC: Final = b"MSCF"
_PREVIOUS, _NEXT, _RESERVED = 0x1, 0x2, 0x4
_VERSION: Final = (3, 1)  # minor, major
_MSZIP_MAGIC: Final = b"CK"
_WINDOW: Final = 32 * 1024
_MOST_BLOCKS: Final = 8192
_LONGEST_NAME: Final = 256
_CONTINUED: Final = 0xFFFD  # and above: the file goes on in another cabinet of a set
_UTF8_NAME: Final = 0x80
_PACKINGS: Final = {0: "none", 1: "MSZIP", 2: "Quantum", 3: "LZX"}


@dataclass(frozen=True, slots=True)
class PackedFile:
    """One file of an archive, by the path it has there."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class _Folder:
    offset: int
    blocks: int
    packing: str


@dataclass(frozen=True, slots=True)
class _Header:
    files_at: int
    files: int
    folders: tuple[_Folder, ...]
    block_reserve: int


def read_cabinet(data: bytes, *, most_files: int, unpacked_limit: int) -> tuple[PackedFile, ...]:
    """Return a cabinet's files, or raise ParseError; TooLarge when they are more or larger than the limits."""
    header = _header(Reader(data, what="cabinet", order="little"))
    if header.files > most_files:
        raise TooLarge(f"The cabinet holds {header.files} files; at most {most_files} are read.")
    if sum(folder.blocks for folder in header.folders) > _MOST_BLOCKS:
        raise TooLarge(f"The cabinet has more than {_MOST_BLOCKS} blocks.")
    reader = Reader(data, what="cabinet", order="little")
    folders: list[bytes] = []
    for folder in header.folders:
        reader.take(folder.offset - reader.offset)  # in their order: folders that overlap would be read again and again
        folders.append(_unpacked(reader, folder, header.block_reserve, unpacked_limit - sum(map(len, folders))))
    return tuple(_files(data, header, folders, unpacked_limit))


def _header(reader: Reader) -> _Header:
    """Read CFHEADER and the CFFOLDERs behind it (2.1, 2.2)."""
    if reader.take(4) != MAGIC:
        raise ParseError("This is no cabinet.")
    reader.take(12)  # reserved, the size that the header claims, reserved
    files_at = reader.u32()
    reader.take(4)
    if (reader.u8(), reader.u8()) != _VERSION:
        raise reader.error("another version than 1.3")
    folders, files, flags = reader.u16(), reader.u16(), reader.u16()
    reader.take(4)  # identifiers of a set
    if flags & (_PREVIOUS | _NEXT):
        raise reader.error("one of a set of cabinets; a set is not read")
    folder_reserve = block_reserve = 0
    if flags & _RESERVED:
        header_reserve, folder_reserve, block_reserve = reader.u16(), reader.u8(), reader.u8()
        reader.take(header_reserve)
    found = tuple(_folder(reader, folder_reserve) for _ in range(folders))
    return _Header(files_at, files, found, block_reserve)


def _folder(reader: Reader, reserve: int) -> _Folder:
    offset, blocks, kind = reader.u32(), reader.u16(), reader.u16()
    reader.take(reserve)
    packing = _PACKINGS.get(kind & 0xF, "an unknown method")
    if packing not in ("none", "MSZIP"):
        raise ParseError(
            f"The cabinet is packed with {packing}, which is not read. Unpack it (cabextract, expand.exe), put the"
            " folders into a ZIP file and import that."
        )
    return _Folder(offset, blocks, packing)


def _unpacked(reader: Reader, folder: _Folder, reserve: int, limit: int) -> bytes:
    """Return a folder's content: its CFDATA blocks, one behind the other (2.4)."""
    content = bytearray()
    for _ in range(folder.blocks):
        checksum, packed_size, size = reader.u32(), reader.u16(), reader.u16()
        reader.take(reserve)
        packed = reader.take(packed_size)
        if size > _WINDOW:
            raise reader.error(f"a block of {size} bytes, where {_WINDOW} are the most")
        if len(content) + size > limit:
            raise TooLarge("The cabinet holds more than is unpacked.")
        if checksum and checksum != _checksum(packed, size):
            raise reader.error("a block whose checksum is wrong")
        plain = packed if folder.packing == "none" else _inflated(reader, packed, size, bytes(content[-_WINDOW:]))
        if len(plain) != size or not size:
            raise reader.error("a block of another size than it says")
        content += plain
    return bytes(content)


def _inflated(reader: Reader, packed: bytes, size: int, history: bytes) -> bytes:
    """Unpack one block of MSZIP ([MS-MCI] 2.2): raw deflate, with what came before it in the folder as its window."""
    if packed[:2] != _MSZIP_MAGIC:
        raise reader.error("a block that is not MSZIP")
    try:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS, zdict=history)
        plain = unpacker.decompress(packed[2:], size + 1)
    except zlib.error as error:
        raise reader.error("a block that does not unpack") from error
    if not unpacker.eof:
        raise reader.error("a block that does not end where it says")
    return plain


def _checksum(packed: bytes, size: int) -> int:
    """Combine the words of a block (3.1); the last one to three bytes count from the highest down."""
    count = len(packed) // 4
    words = unpack(f"<{count}I", packed[: count * 4])
    return reduce(xor, words, len(packed) | size << 16) ^ int.from_bytes(packed[count * 4 :], "big")


def _files(data: bytes, header: _Header, folders: list[bytes], limit: int) -> Iterator[PackedFile]:
    """Cut the files out of their folders (CFFILE, 2.3). Several may name the same bytes, so these are counted too."""
    reader = Reader(data, what="cabinet", order="little")
    reader.take(header.files_at)
    for _ in range(header.files):
        size, start, folder = reader.u32(), reader.u32(), reader.u16()
        reader.take(4)  # date and time
        attributes = reader.u16()
        path = _name(reader, "utf-8" if attributes & _UTF8_NAME else "cp1252")
        if folder >= _CONTINUED:
            raise reader.error("a file that goes on in another cabinet")
        if folder >= len(folders) or start + size > len(folders[folder]):
            raise reader.error("a file that lies outside its folder")
        limit -= size
        if limit < 0:
            raise TooLarge("The cabinet holds more than is unpacked.")
        yield PackedFile(path, folders[folder][start : start + size])


def _name(reader: Reader, encoding: str) -> str:
    name = bytearray()
    while sign := reader.u8():
        name.append(sign)
        if len(name) > _LONGEST_NAME:
            raise reader.error(f"a name of more than {_LONGEST_NAME} bytes")
    return name.decode(encoding, errors="replace")
