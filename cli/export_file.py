"""An export as a file: read once from its first line to its last, and what its digests stand for when it is asked for.

Only where a part begins is kept in memory, so that an export may be larger than that.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from attestation.errors import NotKept, ParseError
from ledger.core.audit import Audit, Found, Known
from ledger.core.export import (
    LINE_LIMIT,
    Header,
    Kind,
    kind_of,
    parse_entry,
    parse_header,
    parse_list,
    parse_material,
    parse_owner,
    verify_seal,
)
from ledger.errors import LogRefused

LARGEST = 128 << 20


@dataclass(slots=True)
class Export:
    """What was found in a file, and where in it is what digests stand for."""

    path: Path
    found: Found
    signers: tuple[str, ...]
    places: dict[str, list[int]] = field(default_factory=dict)
    lists: dict[str, tuple[tuple[int, str], ...]] = field(default_factory=dict)

    def load(self, digest: str) -> bytes:
        """Return what a digest stands for, and nothing else. Raises `NotKept`."""
        places = self.places.get(digest)
        if not places:
            raise NotKept(f"What {digest[:16]}… stands for is not in this export.")
        content = bytearray()
        with self.path.open("rb") as file:
            for number, place in enumerate(places):
                file.seek(place)
                part = parse_material(file.readline(LINE_LIMIT))
                content += part.content
                if (part.sha256, part.part, part.parts) != (digest, number, len(places)) or len(content) > LARGEST:
                    raise NotKept(f"The parts of {digest[:16]}… are not all in this export.")
        if hashlib.sha256(content).hexdigest() != digest:
            raise NotKept(f"What stands for {digest[:16]}… in this export is not that: it was changed.")
        return bytes(content)

    def parts(self, dossier: str) -> tuple[tuple[int, str], ...]:
        return self.lists.get(dossier, ())


def read_header(path: Path) -> Header:
    """Read the first line alone: whose log the file says that it is of."""
    with path.open("rb") as file:
        return parse_header(_first(_lines(file)))


def _first(lines: Iterator[tuple[int, bytes]]) -> bytes:
    _, first = next(lines, (0, b""))
    if not first:
        raise ParseError("The file is empty.")
    return first


def read_export(path: Path, known: Known) -> Export:
    """Read a file to its end and hold it against what is known. Raises a `Refusal` where going on makes no sense."""
    with path.open("rb") as file:
        lines = _lines(file)
        first = _first(lines)
        header = parse_header(first)
        audit = Audit(header, known)
        export = Export(path, audit.found, header.signers)
        _rest(lines, first, audit, export, known)
    audit.finished()
    return export


def _rest(lines: Iterator[tuple[int, bytes]], first: bytes, audit: Audit, export: Export, known: Known) -> None:
    digest = hashlib.sha256(first)
    sealed = False
    for number, (place, line) in enumerate(lines, start=2):
        if sealed:
            raise ParseError(f"Line {number}: something stands behind the seal.")
        try:
            if kind_of(line) is Kind.SEAL:
                sealed = True
                _verify_seal(line, digest.digest(), audit, known)
                continue
            _take(line, place, audit, export)
        except ParseError as error:
            raise ParseError(f"Line {number}: {error}") from error
        digest.update(line)
    if not sealed:
        audit.found.problem("The file ends before its seal: it is not whole.")


def _verify_seal(line: bytes, digest: bytes, audit: Audit, known: Known) -> None:
    try:
        verify_seal(line, digest, known.key)
    except LogRefused as refusal:
        audit.found.problem(str(refusal))


def _take(line: bytes, place: int, audit: Audit, export: Export) -> None:
    kind = kind_of(line)
    if kind is Kind.ENTRY:
        audit.entry(parse_entry(line))
    elif kind is Kind.OWNER:
        audit.owner(parse_owner(line))
    elif kind is Kind.MATERIAL:
        export.places.setdefault(parse_material(line).sha256, []).append(place)
    elif kind is Kind.LIST:
        found = parse_list(line)
        export.lists[found.dossier] = found.parts
    else:
        raise ParseError("A second first line.")


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield lines with where they begin. One that is too long, or does not end, is refused."""
    place = 0
    while line := file.readline(LINE_LIMIT + 1):
        if len(line) > LINE_LIMIT or not line.endswith(b"\n"):
            raise ParseError("A line of the file is too long, or the file breaks off in its midst.")
        yield place, line
        place += len(line)
