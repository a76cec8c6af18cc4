"""What the log shows to anybody: its newest checkpoint, and proofs. Of hashes only; entries are another matter."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db.models import QuerySet

from ledger.core.checkpoint import PROMISED, Receipt, sign_receipt
from ledger.core.proof import Growth, LeafProof
from ledger.core.tree import consistency_proof, inclusion_proof
from ledger.errors import NotFound
from ledger.log_key import log_signer
from ledger.models import Checkpoint, Cosignature, Entry, Leaf
from ledger.stored_tree import StoredNodes


def receipt(leaf: Leaf, *, now: datetime) -> str:
    """Return the log's promise that a leaf, recorded just now, will be in it; made without waiting for the log."""
    signer = log_signer(now=now)
    due = int((now + timedelta(seconds=PROMISED)).timestamp())
    return str(sign_receipt(Receipt(signer.origin, bytes.fromhex(leaf.hash), due), signer.private))


def latest_checkpoint() -> Checkpoint | None:
    """Return the newest checkpoint with its cosignatures, for people; None for a log that has none yet."""
    return Checkpoint.objects.prefetch_related("cosignatures__witness").first()


def newest_checkpoint() -> Checkpoint:
    """Return the newest checkpoint; raise `NotFound` for a log that has none yet."""
    found = Checkpoint.objects.first()
    if found is None:
        raise NotFound("The log has no checkpoint yet: nothing was recorded, or nobody sequences.")
    return found


def note_of(checkpoint: Checkpoint) -> str:
    """Return a checkpoint's note, with the signatures of the witnesses that have cosigned it so far."""
    lines = Cosignature.objects.filter(checkpoint=checkpoint, witness__removed_at=None)
    return checkpoint.note + "".join(lines.values_list("line", flat=True))


def prove_leaf(leaf: bytes) -> LeafProof:
    """Prove to the newest checkpoint that the log has this leaf; raise `NotFound` when it has not, or not yet."""
    checkpoint = newest_checkpoint()
    entry = Entry.objects.filter(hash=leaf.hex(), index__lt=checkpoint.size).order_by("index").first()
    if entry is None:
        raise NotFound("The log has no such leaf. One that was recorded just now is there within seconds.")
    path = inclusion_proof(entry.index, checkpoint.size, StoredNodes())
    return LeafProof(leaf, entry.index, path, note_of(checkpoint))


def prove_growth(old: int, new: int | None) -> Growth:
    """Prove that the log of `new` entries, or of as many as it has, goes on from its first `old`."""
    newest = newest_checkpoint().size
    size = newest if new is None else new
    if not 0 < old <= size <= newest:
        raise NotFound(f"There is a proof from a size of at least 1 to one of at most {newest}.")
    return Growth(old, size, consistency_proof(old, size, StoredNodes()))


def entries_of(leaves: Sequence[Leaf]) -> dict[int, Entry]:
    """Return the places of leaves, by the leaves' keys, of those that have one."""
    found: QuerySet[Entry] = Entry.objects.filter(leaf__in=[leaf.pk for leaf in leaves])
    return {entry.leaf_id: entry for entry in found}
