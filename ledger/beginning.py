"""The end of a log that lost entries, and the beginning of the next one; nothing that was written is altered.

A database that was restored without its newest entries would go on under numbers that others have seen taken: a fork,
signed with the true key. Instead the log ends, and another one with a name and a key of its own begins with the entries
that are left and with one that says so.
"""

from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from ledger.core.beginning import BEGUN_ANEW, Beginning, reason_of, require_loss, said, verify_beginning
from ledger.core.checkpoint import Checkpoint as Head
from ledger.core.checkpoint import verify_checkpoint
from ledger.core.note import parse_note
from ledger.core.tree import root
from ledger.errors import LogBusy, NotFound, Refusal
from ledger.log_key import LogSigner, log_verifier, newest_signer, next_signer
from ledger.models import Entry, Leaf
from ledger.proofs import newest_checkpoint
from ledger.recording import record
from ledger.sequencing import place_first
from ledger.stored_tree import StoredNodes


@dataclass(frozen=True, slots=True)
class Begun:
    """A beginning as pages show it; `beginning` is None where the entry was altered and says nothing that holds."""

    index: int
    leaf: Leaf
    beginning: Beginning | None

    @property
    def reason(self) -> str:
        return self.beginning.reason if self.beginning is not None else "the entry was altered"


def begin_log(*, seen: str | None, by: str, reason: str, now: datetime) -> Beginning:
    """End the log and begin the next one; `seen` is a checkpoint of the log, as a note, that somebody outside has kept.

    Raises `NotFound` for a log that has signed nothing yet, `NoteSignature` for a checkpoint that is not this log's,
    `LogRefused` for one that shows no loss, `ParseError`, and `LogBusy`.
    """
    why = reason_of(reason)
    newest = newest_checkpoint()
    before = log_verifier()
    if before is None:
        raise NotFound("The log has signed nothing yet, so there is none to end.")
    left = verify_checkpoint(parse_note(newest.note), before)
    outside = None if seen is None else verify_checkpoint(parse_note(seen), before)
    if outside is not None:
        require_loss(left, outside, _head_at(outside.size, left))
    with transaction.atomic():
        signer = next_signer(newest_signer(now=now), now=now)
        beginning = Beginning(signer.verifier, before, left, outside, why)
        detail = said(beginning, left=newest.note, seen=seen)
        _place(signer, by=by, detail=detail, size=left.size, now=now)
    return beginning


def _place(signer: LogSigner, *, by: str, detail: dict[str, object], size: int, now: datetime) -> None:
    leaf = record(actor=by, act=BEGUN_ANEW, subject=f"log:{signer.origin}", detail=detail, now=now)
    if place_first(leaf, signer, size=size, now=now) is None:
        raise LogBusy("Another node has just written to the log. Stop what serves it, and say it again.")


def _head_at(size: int, left: Head) -> bytes | None:
    return root(size, StoredNodes()) if 0 < size <= left.size else None


def beginnings() -> list[Begun]:
    """Return where logs of this fabric were begun in the place of others, the newest first."""
    return [Begun(entry.index, entry.leaf, _read(entry.leaf)) for entry in _entries().order_by("-index")]


def places_of_beginnings() -> list[int]:
    return list(_entries().order_by("index").values_list("index", flat=True))


def _entries() -> QuerySet[Entry]:
    return Entry.objects.select_related("leaf").filter(leaf__act=BEGUN_ANEW)


def _read(leaf: Leaf) -> Beginning | None:
    try:
        return verify_beginning(leaf.detail)
    except Refusal:
        return None
