"""Good notes, checkpoints and proofs of a log, and how damaged ones are given to their readers."""

import json
from dataclasses import replace
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.core.beginning import Beginning, said
from ledger.core.checkpoint import Checkpoint, Receipt, sign_checkpoint, sign_receipt, verify_checkpoint, verify_receipt
from ledger.core.leaf import entry_hash
from ledger.core.note import (
    Kind,
    Signature,
    UnverifiedNote,
    parse_note,
    sign_cosignature,
    sign_note,
    verifier_key,
    verify_cosignature,
    verify_note,
)
from ledger.core.proof import Growth, LeafProof, parse_growth, parse_leaf_proof, verify_growth, verify_leaf_proof
from ledger.core.tree import (
    consistency_proof,
    full_root,
    inclusion_proof,
    root,
    verify_consistency,
    verify_inclusion,
)
from ledger.errors import ParseError
from tests.fuzz.documents import text_of, value_of

LOG, WITNESS = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
NAME, WITNESS_NAME = "guardhouse/lab", "witness.example/1"
KEY, WITNESS_KEY = verifier_key(NAME, Kind.ED25519, LOG), verifier_key(WITNESS_NAME, Kind.COSIGNATURE, WITNESS)
NEXT_KEY = verifier_key("guardhouse/lab-2", Kind.ED25519, WITNESS)
LEAVES = [entry_hash(bytes([number])) for number in range(21)]


def _node(level: int, index: int) -> bytes:
    return full_root(LEAVES[index << level : (index + 1) << level])


HEAD = Checkpoint(NAME, len(LEAVES), root(len(LEAVES), _node))
NOTE = sign_checkpoint(HEAD, LOG)
COSIGNATURE = sign_cosignature(HEAD.text, WITNESS_NAME, WITNESS, at=1_795_000_000)
COSIGNED = replace(NOTE, signatures=(*NOTE.signatures, COSIGNATURE))
RECEIPT = sign_receipt(Receipt(NAME, LEAVES[3], 1_795_000_060), LOG)


def checkpoints() -> list[bytes]:
    return [str(NOTE).encode(), str(COSIGNED).encode()]


def beginning(seen: str | None) -> dict[str, object]:
    """What an entry says of a log that took the place of this one."""
    begun = Beginning(NEXT_KEY, KEY, HEAD, None, "The newest entries were lost.")
    return said(begun, left=str(NOTE), seen=seen)


def beginnings() -> list[bytes]:
    return [json.dumps(beginning(seen)).encode() for seen in (None, str(COSIGNED))]


def receipts() -> list[bytes]:
    return [str(RECEIPT).encode()]


def notes() -> list[bytes]:
    return [*checkpoints(), *receipts()]


def checkpoint_texts() -> list[bytes]:
    return [HEAD.text.encode(), replace(HEAD, size=0).text.encode()]


def receipt_texts() -> list[bytes]:
    return [RECEIPT.untrusted_text.encode()]


def vkeys() -> list[bytes]:
    return [str(KEY).encode(), str(WITNESS_KEY).encode()]


def signature_lines() -> list[bytes]:
    return [str(each).encode() for each in COSIGNED.signatures]


def cosignatures() -> list[bytes]:
    return [COSIGNATURE.untrusted]


@cache
def proofs() -> list[bytes]:
    """Inclusion proofs: index, size, steps."""
    made = [(index, inclusion_proof(index, len(LEAVES), _node)) for index in (0, 3, 20)]
    return [json.dumps([index, len(LEAVES), *(step.hex() for step in proof)]).encode() for index, proof in made]


@cache
def growths() -> list[bytes]:
    """Consistency proofs: old size, new size, steps."""
    made = [(old, consistency_proof(old, len(LEAVES), _node)) for old in (1, 8, 13)]
    return [json.dumps([old, len(LEAVES), *(step.hex() for step in proof)]).encode() for old, proof in made]


def leaf_proofs() -> list[bytes]:
    path = inclusion_proof(3, len(LEAVES), _node)
    return [json.dumps(LeafProof(LEAVES[3], 3, path, str(COSIGNED)).members()).encode()]


def growth_proofs() -> list[bytes]:
    return [json.dumps(Growth(8, len(LEAVES), consistency_proof(8, len(LEAVES), _node)).members()).encode()]


def proved(data: bytes) -> object:
    return verify_leaf_proof(parse_leaf_proof(data), LEAVES[3], KEY)


def grown(data: bytes) -> object:
    verify_growth(parse_growth(data), replace(HEAD, size=8, root=root(8, _node)), HEAD)
    return True


def verified(data: bytes) -> object:
    return verify_note(parse_note(text_of(data)), KEY)


def verified_checkpoint(data: bytes) -> object:
    return verify_checkpoint(_signed(data), KEY)


def verified_receipt(data: bytes) -> object:
    return verify_receipt(_signed(data), KEY)


def _signed(data: bytes) -> UnverifiedNote:
    """Sign whatever comes: a log signs what it likes."""
    text = text_of(data)
    try:
        return sign_note(text, NAME, LOG)
    except UnicodeEncodeError:
        raise ParseError("no text") from None


def cosigned(data: bytes) -> object:
    return verify_cosignature(HEAD.text, Signature(WITNESS_NAME, WITNESS_KEY.key_id, data), WITNESS_KEY)


def included(data: bytes) -> object:
    index, size, proof = _proof(data)
    verify_inclusion(LEAVES[index % len(LEAVES)], index, size, proof, HEAD.root)
    return True


def consistent(data: bytes) -> object:
    old, new, proof = _proof(data)
    verify_consistency(old, new, root(old % 22, _node), HEAD.root, proof)
    return True


def _proof(data: bytes) -> tuple[int, int, list[bytes]]:
    """Take a proof apart as the wire's reader does, which is tested by itself."""
    value = value_of(data)
    if not isinstance(value, list) or len(value) < 2 or not all(type(each) is int for each in value[:2]):
        raise ParseError("no proof")
    steps = [each for each in value[2:] if isinstance(each, str)]
    try:
        return value[0], value[1], [bytes.fromhex(step) for step in steps]
    except ValueError:
        raise ParseError("no proof") from None
