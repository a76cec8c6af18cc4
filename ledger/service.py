"""The door of the ledger: record an act, read the acts, prove that the log has them."""

from collections.abc import Collection, Mapping
from datetime import datetime

from django.db.models import QuerySet

from ledger.beginning import begin_log, beginnings
from ledger.core.counts import COUNTED
from ledger.core.leaf import canonical, leaf_hash
from ledger.core.tree import MOST_LEAVES
from ledger.errors import NotFound
from ledger.exporting import export
from ledger.log_key import log_verifier, verifiers
from ledger.models import Checkpoint, Entry, Leaf
from ledger.proofs import entries_of, latest_checkpoint, newest_checkpoint, note_of, prove_growth, prove_leaf, receipt
from ledger.recording import new_leaf, record, record_with, recorded
from ledger.sequencing import sequence, sequence_all, sequenced
from ledger.witnesses import add_witness, cosign, remove_witness, witnesses

__all__ = [
    "COUNTED",
    "Checkpoint",
    "Entry",
    "Leaf",
    "add_witness",
    "begin_log",
    "beginnings",
    "cosign",
    "entries",
    "entries_of",
    "entry",
    "entry_text",
    "export",
    "intact",
    "latest_checkpoint",
    "leaves",
    "leaves_about",
    "log_verifier",
    "new_leaf",
    "newest_checkpoint",
    "note_of",
    "prove_growth",
    "prove_leaf",
    "receipt",
    "record",
    "record_with",
    "recorded",
    "remove_witness",
    "sequence",
    "sequence_all",
    "sequenced",
    "verifiers",
    "witnesses",
]


def leaves(*, act_prefix: str = "", actor: str = "", subject: str = "") -> QuerySet[Leaf]:
    """Return the leaves, newest first, narrowed by the start of the act's name, the actor, the subject."""
    found = Leaf.objects.all()
    if act_prefix:
        found = found.filter(act__startswith=act_prefix)
    if actor:
        found = found.filter(actor=actor)
    return found.filter(subject=subject) if subject else found


def leaves_about(rows: Mapping[int, datetime], *, act_prefix: str, member: str) -> dict[int, Leaf]:
    """Return the leaves about rows that they name in a member of their detail, written at the rows' own moments."""
    found = leaves(act_prefix=act_prefix).filter(at__in=set(rows.values()))
    named = ((leaf.detail.get(member), leaf) for leaf in found)
    return {key: leaf for key, leaf in named if isinstance(key, int) and rows.get(key) == leaf.at}


def entries(*, owners: Collection[str] | None) -> QuerySet[Entry]:
    """Return the entries of the log, newest first: all of them, or those that concern one of these owners.

    Their acts are read with them, so they can be narrowed by what a leaf says: `leaf__act`, `leaf__at`.
    """
    found = Entry.objects.select_related("leaf").order_by("-index")
    # An entry that concerns no owner has an empty one, which must reach nobody.
    return found if owners is None else found.filter(owner__in=set(owners) - {""})


def entry(index: int, *, owners: Collection[str] | None) -> Entry:
    """Return one entry of those; raise `NotFound` for one that is not there, or not for this caller to know."""
    found = entries(owners=owners).filter(index=index).first() if index <= MOST_LEAVES else None
    if found is None:
        raise NotFound("There is no such entry, or it does not concern you.")
    return found


def entry_text(leaf: Leaf) -> str:
    """Return the very text that a leaf's hash is over."""
    return canonical(leaf.content()).decode()


def intact(leaf: Leaf) -> bool:
    """Say whether a leaf still hashes to what was written when it was recorded."""
    return leaf_hash(leaf.content()).hex() == leaf.hash
