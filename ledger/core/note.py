"""Signed notes (c2sp.org/signed-note): a text and the signatures of whoever vouches for it, readable by people.

Two kinds of Ed25519 key sign here: a log its checkpoints and receipts (0x01), and a witness the checkpoints that it has
seen, with the time (0x04, c2sp.org/tlog-cosignature).
"""

import base64
import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.errors import NoteSignature, ParseError

NOTE_LIMIT: Final = 128 * 1024  # sixteen signatures of others, each of up to 5 kB, have to be read and passed over
MOST_SIGNATURES: Final = 64
LONGEST_NAME: Final = 200
VKEY_LIMIT: Final = 512
_LINE_LIMIT: Final = 8 * 1024
_SIGNATURE_SIZE: Final = 64
_TIME_SIZE: Final = 8
_KEY_SIZE: Final = 32
_ID_SIZE: Final = 4
_DASH: Final = "\u2014 "


class Kind(IntEnum):
    """The signature types of the specification that are used here."""

    ED25519 = 1
    COSIGNATURE = 4


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line as it was read; nobody has verified it."""

    name: str
    key_id: bytes
    untrusted: bytes

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {to_base64(self.key_id + self.untrusted)}\n"


@dataclass(frozen=True, slots=True)
class UnverifiedNote:
    """A note that has been read: whatever its text says, nobody has vouched for it yet."""

    untrusted_text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return f"{self.untrusted_text}\n{''.join(map(str, self.signatures))}"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name that it signs under (a vkey)."""

    name: str
    kind: Kind
    public: bytes

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(f"{self.name}\n".encode() + bytes([self.kind]) + self.public).digest()[:_ID_SIZE]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{to_base64(bytes([self.kind]) + self.public)}"

    def holds(self, signature: bytes, message: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


def verifier_key(name: str, kind: Kind, private: Ed25519PrivateKey) -> VerifierKey:
    """Return the public half of a key under the name that it signs with."""
    return VerifierKey(name, kind, private.public_key().public_bytes_raw())


def parse_vkey(text: str) -> VerifierKey:
    """Read `name+id+key`; the id must be the one that name and key have."""
    if len(text) > VKEY_LIMIT or text.count("+") < 2:
        raise ParseError("This is not a verifier key: name+id+key.")
    name, _, rest = text.partition("+")
    key_id, _, key = rest.partition("+")
    content = from_base64(key, size=1 + _KEY_SIZE)
    if content[0] not in (Kind.ED25519, Kind.COSIGNATURE):
        raise ParseError("A verifier key is of a kind that is not used here.")
    found = VerifierKey(_name(name), Kind(content[0]), content[1:])
    if found.key_id.hex() != key_id:
        raise ParseError("The id of a verifier key is not the one of its name and key.")
    return found


def parse_note(text: str) -> UnverifiedNote:
    """Read a note; the last empty line divides its text from the signatures."""
    if len(text) > NOTE_LIMIT:
        raise ParseError(f"A note is longer than {NOTE_LIMIT} letters.")
    if not is_note_text(text):
        raise ParseError("A note has control characters in it, or letters that are none.")
    said, blank, lines = text.rpartition("\n\n")
    if not blank or not said.strip("\n") or not lines.endswith("\n"):
        raise ParseError("A note is not a text, an empty line and signatures.")
    signatures = lines[:-1].split("\n")
    if len(signatures) > MOST_SIGNATURES:
        raise ParseError(f"A note has more than {MOST_SIGNATURES} signatures.")
    return UnverifiedNote(f"{said}\n", tuple(parse_signature(f"{line}\n") for line in signatures))


def parse_signature(line: str) -> Signature:
    """Read one signature line, with the newline that ends it."""
    if len(line) > _LINE_LIMIT or not line.startswith(_DASH) or not line.endswith("\n") or line.count("\n") != 1:
        raise ParseError("A signature of a note is not a line of a dash, a name and a signature.")
    name, space, encoded = line[len(_DASH) : -1].partition(" ")
    content = from_base64(encoded)
    if not space or len(content) <= _ID_SIZE:
        raise ParseError("A signature of a note is too short.")
    return Signature(_name(name), content[:_ID_SIZE], content[_ID_SIZE:])


def sign_note(text: str, name: str, private: Ed25519PrivateKey) -> UnverifiedNote:
    """Return a text of ours as a note with one signature."""
    key = verifier_key(_name(name), Kind.ED25519, private)
    return UnverifiedNote(text, (Signature(name, key.key_id, private.sign(text.encode())),))


def verify_note(note: UnverifiedNote, key: VerifierKey) -> str:
    """Return the text when this key has signed it; raise `NoteSignature` when it has not, or not truly."""
    mine = _of(note, key)
    if not mine or key.kind is not Kind.ED25519:
        raise NoteSignature(f"{key.name} has not signed this note.")
    message = note.untrusted_text.encode()
    if not all(len(each.untrusted) == _SIGNATURE_SIZE and key.holds(each.untrusted, message) for each in mine):
        raise NoteSignature(f"A signature of {key.name} is not one under this note.")
    return note.untrusted_text


def sign_cosignature(text: str, name: str, private: Ed25519PrivateKey, *, at: int) -> Signature:
    """Return a witness's line under a checkpoint's text: that it was the newest one it had seen at that second."""
    key = verifier_key(_name(name), Kind.COSIGNATURE, private)
    return Signature(name, key.key_id, at.to_bytes(_TIME_SIZE, "big") + private.sign(_cosigned(text, at)))


def verify_cosignature(text: str, line: Signature, key: VerifierKey) -> int:
    """Return when this witness has cosigned the text; raise `NoteSignature` when it has not."""
    moment, signature = line.untrusted[:_TIME_SIZE], line.untrusted[_TIME_SIZE:]
    at = int.from_bytes(moment, "big")
    if (
        key.kind is not Kind.COSIGNATURE
        or (line.name, line.key_id) != (key.name, key.key_id)
        or len(signature) != _SIGNATURE_SIZE
        or at >= 2**63
        or not key.holds(signature, _cosigned(text, at))
    ):
        raise NoteSignature(f"{key.name} has not cosigned this checkpoint.")
    return at


def cosigned_at(note: UnverifiedNote, key: VerifierKey) -> int | None:
    """Return when this witness has cosigned a note; None when it has not. A line of its that does not hold raises."""
    moments = [verify_cosignature(note.untrusted_text, line, key) for line in _of(note, key)]
    return max(moments, default=None)


def _cosigned(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _of(note: UnverifiedNote, key: VerifierKey) -> list[Signature]:
    return [each for each in note.signatures if (each.name, each.key_id) == (key.name, key.key_id)]


def is_note_text(text: str) -> bool:
    """Say whether a text may stand in a note: no control character but the newline, and nothing that has no UTF-8."""
    if any(letter < " " and letter != "\n" for letter in text):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_NAME and "+" not in text and text.isprintable() and len(text.split()) == 1


def _name(text: str) -> str:
    if not is_name(text) or text != text.strip():
        raise ParseError("The name of a key is empty or too long, or has spaces or a plus in it.")
    return text


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def from_base64(text: str, *, size: int | None = None) -> bytes:
    """Return the bytes of standard base64 that is written the one way."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ParseError("Something is not base64.") from error
    if to_base64(data) != text or (size is not None and len(data) != size):
        raise ParseError("Something is not base64 of the right length, written the one way.")
    return data
