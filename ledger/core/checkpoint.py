"""Checkpoints (c2sp.org/tlog-checkpoint) and receipts: what the log's key signs, each a note of few lines.

A checkpoint is the head of the tree at some size. A receipt promises that a leaf will be in the tree within `PROMISED`
seconds: whoever holds one for a leaf that the log does not show afterwards can prove that the log has lied.
"""

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.core.note import UnverifiedNote, VerifierKey, from_base64, sign_note, to_base64, verify_note
from ledger.core.tree import HASH_SIZE, MOST_LEAVES
from ledger.errors import LogRefused, ParseError

PROMISED: Final = 60
_RECEIPT: Final = "guardhouse-receipt/v1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of the log `origin` at `size` leaves."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{to_base64(self.root)}\n"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The promise that a leaf is in the log `origin` at the second `due`."""

    origin: str
    leaf: bytes
    due: int

    @property
    def text(self) -> str:
        return f"{_RECEIPT}\n{self.origin}\n{to_base64(self.leaf)}\n{self.due}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the text of a checkpoint: three lines. Extensions are refused, since this log has none."""
    lines = text.split("\n", 4)
    if len(lines) != 4 or lines[3] or not lines[0]:
        raise ParseError("A checkpoint is not the three lines origin, size and root.")
    return Checkpoint(lines[0], _number(lines[1]), from_base64(lines[2], size=HASH_SIZE))


def parse_receipt(text: str) -> Receipt:
    lines = text.split("\n", 5)
    if len(lines) != 5 or lines[4] or lines[0] != _RECEIPT or not lines[1]:
        raise ParseError("A receipt is not the four lines type, origin, leaf and time.")
    return Receipt(lines[1], from_base64(lines[2], size=HASH_SIZE), _number(lines[3]))


def sign_checkpoint(checkpoint: Checkpoint, private: Ed25519PrivateKey) -> UnverifiedNote:
    return sign_note(checkpoint.text, checkpoint.origin, private)


def sign_receipt(receipt: Receipt, private: Ed25519PrivateKey) -> UnverifiedNote:
    return sign_note(receipt.text, receipt.origin, private)


def verify_checkpoint(note: UnverifiedNote, key: VerifierKey) -> Checkpoint:
    """Return the checkpoint that this log has signed; raise `NoteSignature`, `ParseError` or `LogRefused`."""
    found = parse_checkpoint(verify_note(note, key))
    if found.origin != key.name:
        raise LogRefused(f"{key.name} has signed a checkpoint of another log, {found.origin}.")
    return found


def verify_receipt(note: UnverifiedNote, key: VerifierKey) -> Receipt:
    """Return the promise that this log has signed; raise `NoteSignature`, `ParseError` or `LogRefused`."""
    found = parse_receipt(verify_note(note, key))
    if found.origin != key.name:
        raise LogRefused(f"{key.name} has signed a receipt of another log, {found.origin}.")
    return found


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 16 or str(int(text)) != text or int(text) > MOST_LEAVES:
        raise ParseError("A number is not written in decimal, or is too large.")
    return int(text)
