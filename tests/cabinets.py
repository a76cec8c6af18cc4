"""Small forges for cabinets and PKCS #7, also of kinds that no tool would write."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from struct import pack, unpack

from attestation.core.der import SEQUENCE, encode_element

NONE, MSZIP, QUANTUM, LZX = 0, 1, 2, 0x1503
BLOCK = 32 * 1024


@dataclass(frozen=True)
class Cabinet:
    """One cabinet of one folder; the fields that a liar would change can be set."""

    files: Mapping[str, bytes]
    packing: int = MSZIP
    version: tuple[int, int] = (3, 1)
    flags: int = 0
    reserve: bytes = b""
    blocks: int | None = None
    checksums: bool = True
    sizes: Mapping[str, int] = field(default_factory=dict)
    folder_of_file: int = 0

    def made(self) -> bytes:
        content = b"".join(self.files.values())
        parts = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
        data = b"".join(self._blocks(parts))
        reserve = pack("<HBB", len(self.reserve), 0, 0) + self.reserve if self.flags & 4 else b""
        at = 36 + len(reserve) + 8
        listed = self._listed()
        folder = pack("<IHH", at + len(listed), len(parts) if self.blocks is None else self.blocks, self.packing)
        whole = at + len(listed) + len(data)
        header = pack(
            "<4sIIIIIBBHHHHH", b"MSCF", 0, whole, 0, at, 0, *self.version, 1, len(self.files), self.flags, 7, 0
        )
        return header + reserve + folder + listed + data

    def _listed(self) -> bytes:
        listed, start = b"", 0
        for name, content in self.files.items():
            size = self.sizes.get(name, len(content))
            listed += pack("<IIHHHH", size, start, self.folder_of_file, 0, 0, 0x80) + name.encode() + b"\0"
            start += len(content)
        return listed

    def _blocks(self, parts: Sequence[bytes]) -> list[bytes]:
        blocks = []
        for before, part in zip([b"", *parts], parts, strict=False):
            packed = part if self.packing == NONE else deflated(part, before)
            checksum = summed(packed, len(part)) if self.checksums else 0
            blocks.append(pack("<IHH", checksum, len(packed), len(part)) + packed)
        return blocks


def deflated(part: bytes, before: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=before)
    return b"CK" + packer.compress(part) + packer.flush()


def summed(packed: bytes, size: int) -> int:
    """The checksum of a block as [MS-CAB] 3.1 has it in C, written anew."""
    total, words = 0, len(packed) // 4
    for (word,) in (unpack("<I", packed[4 * n : 4 * n + 4]) for n in range(words)):
        total ^= word
    rest = packed[4 * words :]
    for n, byte in enumerate(rest):
        total ^= byte << 8 * (len(rest) - 1 - n)
    return total ^ len(packed) ^ size << 16


def pkcs7(certificates: Sequence[bytes]) -> bytes:
    """A SignedData with certificates and no signer, as `openssl crl2pkcs7 -nocrl` makes it."""
    data = encode_element(SEQUENCE, bytes.fromhex("06092a864886f70d010701"))
    signed = bytes.fromhex("020101") + bytes.fromhex("3100") + data
    signed += encode_element(0xA0, b"".join(certificates)) + bytes.fromhex("3100")
    content = bytes.fromhex("06092a864886f70d010702") + encode_element(0xA0, encode_element(SEQUENCE, signed))
    return encode_element(SEQUENCE, content)
