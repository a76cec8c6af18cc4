"""Exports of the log, with the Evidence behind its entries: what a person may have, and how it gets there."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, StreamingHttpResponse

from attestation import service as attestation
from attestation.errors import ParseError
from fabric.downloads import streamed
from fabric.logbook import owners_seen_by
from fabric.models import Viewer
from ledger import service as ledger
from ledger.core.export import ListLine, material_lines

TYPE: Final = "application/x-ndjson"
MOST_BYTES: Final = 1 << 30
AT_A_TIME: Final = 100
LONGEST_SIZE: Final = 16  # digits


@dataclass(slots=True)
class EvidenceBehind:
    """The Evidence behind entries, by the attestations that they name; what is beyond the bound is left out.

    Whoever verifies the export is told of each verdict whose grounds are not in it.
    """

    attestations: set[int] = field(default_factory=set)

    def note(self, detail: Mapping[str, Any]) -> None:
        named = detail.get("attestation")
        if detail.get("evidence") and isinstance(named, int):
            self.attestations.add(named)

    def lines(self) -> Iterator[bytes]:
        known: set[str] = set()
        numbers, size = sorted(self.attestations), 0
        for start in range(0, len(numbers), AT_A_TIME):
            for each in attestation.material(numbers[start : start + AT_A_TIME], known=known):
                for line in _written(each):
                    size += len(line)
                    if size > MOST_BYTES:
                        return
                    yield line


def _written(each: attestation.Material | attestation.ListParts) -> Iterator[bytes]:
    if isinstance(each, attestation.Material):
        return material_lines(each.sha256, each.content)
    return iter((ListLine(each.dossier, each.parts).line(),))


def export(*, owners: Collection[str] | None, since: int, now: datetime) -> Iterator[bytes]:
    """Return the lines of an export for these owners, or of everything; what is refused is refused at once."""
    behind = EvidenceBehind()
    return ledger.export(owners=owners, since=since, signers=attestation.signers(), behind=behind, now=now)


def parse_since(text: str) -> int:
    """Read the size of a kept checkpoint; nothing at all is none. Raises `ParseError`."""
    if len(text) > LONGEST_SIZE or not (text or "0").isascii() or not (text or "0").isdigit():
        raise ParseError("The size of a checkpoint is a whole number, such as `guardhouse audit verify` says it.")
    return int(text or "0")


def owners_for(user: Viewer) -> Collection[str] | None:
    """Return whose entries a person may take away; raise `PermissionDenied` for one whom no entry concerns."""
    owners = owners_seen_by(user)
    if owners is not None and not owners:
        raise PermissionDenied
    return owners


def download(request: HttpRequest, lines: Iterator[bytes], *, now: datetime) -> StreamingHttpResponse:
    """Answer with an export as it is made. One that breaks off has no seal, and so verifies as nothing."""
    named = f'attachment; filename="guardhouse-log-{now:%Y%m%d-%H%M%S}.jsonl"'
    return streamed(request, lines, kind=TYPE, headers={"Content-Disposition": named})
