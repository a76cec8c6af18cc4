"""Proofs as they travel: where a leaf is in the log, and that a later log goes on from an earlier one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ledger.core.checkpoint import Checkpoint, verify_checkpoint
from ledger.core.note import NOTE_LIMIT, VerifierKey, from_base64, parse_note, to_base64
from ledger.core.strict_json import array, members, read_json, text, whole_number
from ledger.core.tree import HASH_SIZE, LONGEST_PROOF, MOST_LEAVES, Hash, verify_consistency, verify_inclusion
from ledger.errors import Inconsistent, NotIncluded

PROOF_LIMIT: Final = 2 * NOTE_LIMIT


@dataclass(frozen=True, slots=True)
class LeafProof:
    """The way from a leaf to the head of a checkpoint, whose note comes with it."""

    leaf: Hash
    index: int
    path: tuple[Hash, ...]
    checkpoint: str

    @property
    def steps(self) -> tuple[str, ...]:
        return tuple(step.hex() for step in self.path)

    def members(self) -> dict[str, Any]:
        return {
            "leaf": to_base64(self.leaf),
            "index": self.index,
            "path": [to_base64(step) for step in self.path],
            "checkpoint": self.checkpoint,
        }


@dataclass(frozen=True, slots=True)
class Growth:
    """The proof that the tree of `new` leaves goes on from the one of `old`."""

    old: int
    new: int
    path: tuple[Hash, ...]

    def members(self) -> dict[str, Any]:
        return {"from": self.old, "to": self.new, "path": [to_base64(step) for step in self.path]}


def parse_leaf_proof(data: str | bytes) -> LeafProof:
    said = members(read_json(data, limit=PROOF_LIMIT), {"leaf", "index", "path", "checkpoint"}, what="A proof")
    return LeafProof(
        leaf=_hash(said["leaf"]),
        index=whole_number(said["index"], what="An index", most=MOST_LEAVES),
        path=_path(said["path"]),
        checkpoint=text(said["checkpoint"], what="A checkpoint", longest=NOTE_LIMIT),
    )


def parse_growth(data: str | bytes) -> Growth:
    said = members(read_json(data, limit=PROOF_LIMIT), {"from", "to", "path"}, what="A proof")
    old, new = (whole_number(said[name], what="A size", most=MOST_LEAVES) for name in ("from", "to"))
    return Growth(old, new, _path(said["path"]))


def verify_leaf_proof(proof: LeafProof, leaf: Hash, key: VerifierKey) -> Checkpoint:
    """Return the checkpoint that has this leaf in it; raise `LogRefused` or `ParseError` when none is shown."""
    if proof.leaf != leaf:
        raise NotIncluded("The proof is about another leaf.")
    head = verify_checkpoint(parse_note(proof.checkpoint), key)
    verify_inclusion(leaf, proof.index, head.size, proof.path, head.root)
    return head


def verify_growth(growth: Growth, before: Checkpoint, after: Checkpoint) -> None:
    """Raise `Inconsistent` unless the proof shows that one checkpoint goes on from the other."""
    if (growth.old, growth.new) != (before.size, after.size):
        raise Inconsistent("The proof is about other checkpoints.")
    verify_consistency(before.size, after.size, before.root, after.root, growth.path)


def _path(value: object) -> tuple[Hash, ...]:
    steps: Sequence[object] = array(value, what="A path", most=LONGEST_PROOF)
    return tuple(_hash(step) for step in steps)


def _hash(value: object) -> Hash:
    return from_base64(text(value, what="A hash", longest=64), size=HASH_SIZE)
