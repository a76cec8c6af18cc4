"""Shielding data on its owner's machine: made, read, and written again under the owner's next statement.

All of it goes by as a stream; what lies in a temporary file meanwhile is sealed.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from guardedhost.files import write_new_parts, write_parts_atomically
from kps.core import jose, sealed_stream
from kps.core.chain import Statement, VerifiedChain
from kps.core.guardian import GuardianKeys
from kps.core.protector import open_protector
from kps.core.shielding_content import Content
from kps.core.shielding_data import (
    HEAD_LIMIT,
    Label,
    ShieldingData,
    build_head,
    open_content,
    parse_head,
    read_shielding_data,
    restated,
    seal_content,
    sealed_pieces,
    verify_shielding_data,
)
from kps.errors import MalformedDocument


@dataclass(frozen=True, slots=True)
class ShieldFile:
    """A shielding data file, where it lies."""

    path: Path
    data: ShieldingData


def write_shielding_data(
    path: Path, owner: GuardianKeys, statement: Statement, content: Content, *, label: Label, key: bytes, now: datetime
) -> None:
    """Write a new file, or none: its content sealed under `key`, which owner and guardians find in its head."""
    with tempfile.TemporaryFile(dir=path.parent) as sealed:
        digests = []
        for piece in seal_content(content, key, of=statement.id):
            digests.append(sealed_stream.digest(piece))
            sealed.write(piece.encode() + b"\n")
        label = replace(label, asks_for=content.asks_for)
        head = build_head(owner, statement, digests, label=label, key=key, now=now)
        sealed.seek(0)
        write_new_parts(path, _file(head, parse_head(head), sealed))


def shielding_data_in(path: Path) -> ShieldingData:
    """Return what a file says in the open, after all of it was held against what its owner has signed."""
    with path.open("rb") as file:
        return verify_shielding_data(file)


def found_in(path: Path | None) -> ShieldFile | None:
    """Return the shielding data in a file; None when it holds something else, whatever that is called."""
    if path is None or not path.is_file() or not _begins_like_it(path):
        return None
    return ShieldFile(path, shielding_data_in(path))


def _begins_like_it(path: Path) -> bool:
    with path.open("rb") as file:
        first = file.readline(HEAD_LIMIT + 1)
    try:
        return "signed" in jose.read_json(first, limit=HEAD_LIMIT)
    except MalformedDocument:
        return False


def opened(path: Path, owner: GuardianKeys) -> Content:
    """Return what only its owner and healthy hosts read in a file."""
    with path.open("rb") as file:
        data = read_shielding_data(file)
        return open_content(data, sealed_pieces(data, file), open_protector(data.protector, owner.encryption))


def restate(file: ShieldFile, chain: VerifiedChain, owner: GuardianKeys) -> None:
    """Put the same file under the owner's next statement in its place, once its key is seen to be what it was.

    A crash leaves the one or the other. Copies from before open for those that they were wrapped for.
    """
    head = restated(file.data, chain, owner)
    after = parse_head(head)
    if _key(after, owner) != _key(file.data, owner):
        raise RuntimeError("the file under the next statement does not open as it did")
    with file.path.open("rb") as before:
        read_shielding_data(before)
        write_parts_atomically(file.path, _file(head, after, before))


def _key(data: ShieldingData, owner: GuardianKeys) -> bytes:
    return open_protector(data.protector, owner.encryption)


def _file(head: bytes, data: ShieldingData, pieces: BinaryIO) -> Iterator[bytes]:
    """Yield a file of this head and the pieces that follow in another one, each if it is as this head says."""
    yield head
    for piece in sealed_pieces(data, pieces):
        yield piece.encode() + b"\n"


def beginning_of(path: Path, *, limit: int = HEAD_LIMIT) -> bytes:
    """Return a file as far as it may reach, and a byte more when it reaches further."""
    with path.open("rb") as file:
        return file.read(limit + 1)
