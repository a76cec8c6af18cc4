"""A small forge for IMA lists, with the records that a kernel would write and those that none would."""

import hashlib
from struct import pack

from attestation.core.ima import Extension, ima_values


def record(template: bytes, *, name: bytes = b"ima-ng", pcr: int = 10, digest: bytes | None = None) -> bytes:
    """One record, with whatever template data."""
    digest = hashlib.sha1(template, usedforsecurity=False).digest() if digest is None else digest
    return pack("<I", pcr) + digest + fields(name, template)


def legacy(path: bytes, file_digest: bytes, *, digest: bytes | None = None) -> bytes:
    hashed = hashlib.sha1(file_digest + path.ljust(256, b"\0"), usedforsecurity=False).digest()
    return pack("<I", 10) + (hashed if digest is None else digest) + fields(b"ima") + file_digest + fields(path)


def fields(*contents: bytes) -> bytes:
    return b"".join(pack("<I", len(content)) + content for content in contents)


def sha256_digest(content: bytes) -> bytes:
    return b"sha256:\0" + hashlib.sha256(content).digest()


def ng(path: bytes, content: bytes = b"content") -> bytes:
    """The record of a file under ima-ng."""
    return record(fields(sha256_digest(content), path + b"\0"))


def sig(path: bytes, content: bytes = b"content", *, signature: bytes = b"") -> bytes:
    """The record of a file under ima-sig."""
    return record(fields(sha256_digest(content), path + b"\0", signature), name=b"ima-sig")


def violated(entry: bytes) -> bytes:
    """The same record, with the digest that marks a violation."""
    return entry[:4] + bytes(20) + entry[24:]


def line_of(entry: bytes) -> bytes:
    return entry[24:]


def pcr_10(data: bytes, *, bank: str = "sha256") -> bytes:
    return ima_values(data, bank=bank, extension=Extension.REHASHED)[10]
