"""The door of the ledger: record an act, read the acts, prove that the log has them."""

from django.db.models import QuerySet

from ledger.core.counts import COUNTED
from ledger.core.leaf import leaf_hash
from ledger.models import Leaf
from ledger.recording import new_leaf, record, record_with, recorded
from ledger.sequencing import sequence, sequence_all, sequenced

__all__ = [
    "COUNTED",
    "Leaf",
    "intact",
    "leaves",
    "new_leaf",
    "record",
    "record_with",
    "recorded",
    "sequence",
    "sequence_all",
    "sequenced",
]


def leaves(*, act_prefix: str = "", actor: str = "", subject: str = "") -> QuerySet[Leaf]:
    """Return the leaves, newest first, narrowed by the start of the act's name, the actor, the subject."""
    found = Leaf.objects.all()
    if act_prefix:
        found = found.filter(act__startswith=act_prefix)
    if actor:
        found = found.filter(actor=actor)
    return found.filter(subject=subject) if subject else found


def intact(leaf: Leaf) -> bool:
    """Say whether a leaf still hashes to what was written when it was recorded."""
    return leaf_hash(leaf.content()).hex() == leaf.hash
