"""Exports: the log's entries for those whom they concern, with everything that shows that they are the log's, sealed.

Everything up to the chosen checkpoint never changes any more, so an export needs no transaction, and holds no more of
the log in memory than some hundred entries. `ledger.core.audit` reads what is written here.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from django.db.models import Q

from ledger.beginning import places_of_beginnings
from ledger.core.export import MOST_OWNERS, Header, OwnerLine, Witnessed, entry_line, seal_line
from ledger.core.leaf import canonical
from ledger.core.tree import consistency_proof, inclusion_proof
from ledger.errors import NotFound, TooMuch
from ledger.log_key import newest_signer
from ledger.models import Checkpoint, Cosignature, Entry
from ledger.owners import OwnerCounts
from ledger.proofs import newest_checkpoint, note_of
from ledger.stored_tree import StoredNodes
from ledger.witnesses import witnesses

MOST_ENTRIES: Final = 1_000_000
AT_A_TIME: Final = 500
_TRIES: Final = 10


class Behind(Protocol):
    """What entries rest on, which other apps keep: it is told of each entry, and gives its lines at the end."""

    def note(self, detail: Mapping[str, Any]) -> None: ...

    def lines(self) -> Iterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A checkpoint and the owners' counts as its last entry has them."""

    checkpoint: Checkpoint
    counts: OwnerCounts


def export(
    *, owners: Collection[str] | None, since: int, signers: Iterable[str], behind: Behind, now: datetime
) -> Iterator[bytes]:
    """Return the lines of an export up to the newest checkpoint: for some owners, or of everything.

    `since` is the size of a checkpoint that whoever reads it has kept, 0 for none. Raises `NotFound` for a log that has
    no checkpoint yet or never had that size, and `TooMuch`; later than that nothing is refused.
    """
    snapshot = _snapshot()
    size = snapshot.checkpoint.size
    if not 0 <= since <= size:
        raise NotFound(f"The log has {size} entries; it cannot be shown how it went on from {since}.")
    shown = None if owners is None else sorted(set(owners) - {""})
    if _count(shown, size) > MOST_ENTRIES or (shown is not None and len(shown) > MOST_OWNERS):
        raise TooMuch(f"An export holds {MOST_ENTRIES} entries at most.")
    signer = newest_signer(now=now)
    header = Header(
        log=str(signer.verifier),
        checkpoint=note_of(snapshot.checkpoint),
        owners=None if shown is None else tuple(shown),
        since=since,
        growth=consistency_proof(since, size, StoredNodes()) if shown is not None and since else (),
        witnessed=tuple(_witnessed(size)),
        signers=tuple(signers),
    )
    lines = _lines(header, snapshot, shown, behind)
    return _sealed(lines, lambda digest: seal_line(signer.origin, digest, signer.private))


def _lines(header: Header, snapshot: _Snapshot, owners: list[str] | None, behind: Behind) -> Iterator[bytes]:
    yield header.line()
    yield from _owners(snapshot.counts, owners)
    size, nodes = snapshot.checkpoint.size, StoredNodes()
    for entry in _entries(owners, size):
        path = None if owners is None else inclusion_proof(entry.index, size, nodes)
        yield entry_line(canonical(entry.leaf.content()), hash_=entry.hash, index=entry.index, path=path)
        behind.note(entry.leaf.detail)
    yield from behind.lines()


def _sealed(lines: Iterator[bytes], seal: Callable[[bytes], bytes]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
        yield line
    yield seal(digest.digest())


def _snapshot() -> _Snapshot:
    """Read checkpoint and counts until they are of one batch; another one may come between the two readings."""
    for _ in range(_TRIES):
        checkpoint = newest_checkpoint()
        counts = OwnerCounts()
        closing = Entry.objects.select_related("leaf").get(pk=checkpoint.size - 1)
        if closing.leaf.detail.get("root") == counts.tree.head().hex():
            return _Snapshot(checkpoint, counts)
    raise NotFound("The log goes on too quickly to be exported now. Try again.")


def _count(owners: list[str] | None, size: int) -> int:
    return size if owners is None else Entry.objects.filter(owner__in=owners, index__lt=size).count()


def _entries(owners: list[str] | None, size: int) -> Iterator[Entry]:
    """Yield entries in their order; there for everybody are those that begin a log, and the last one, which counts."""
    found = Entry.objects.select_related("leaf").order_by("index")
    wanted = found if owners is None else found.filter(Q(owner__in=owners) | Q(index__in=places_of_beginnings()))
    last = -1
    while some := list(wanted.filter(index__gt=last, index__lt=size)[:AT_A_TIME]):
        yield from some
        last = some[-1].index
    if last != size - 1:
        yield found.get(index=size - 1)


def _owners(counts: OwnerCounts, owners: list[str] | None) -> Iterator[bytes]:
    shown = counts.rows.values() if owners is None else [counts.rows[each] for each in owners if each in counts.rows]
    for row in sorted(shown, key=lambda row: row.position):
        path = () if owners is None else counts.tree.proof(row.position)
        yield OwnerLine(row.owner, row.position, bytes(row.start), path).line()


def _witnessed(size: int) -> Iterator[Witnessed]:
    """For each witness the newest checkpoint of this log that it has cosigned, and how the log went on from there."""
    began = max(places_of_beginnings(), default=0)
    for witness in witnesses():
        newest = (
            Cosignature.objects.filter(witness=witness, checkpoint__size__gt=began, checkpoint__size__lte=size)
            .select_related("checkpoint")
            .order_by("-checkpoint")
            .first()
        )
        if newest is not None:
            path = consistency_proof(newest.checkpoint.size, size, StoredNodes())
            yield Witnessed(note_of(newest.checkpoint), path)
