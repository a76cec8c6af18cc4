"""A new log in the place of one that lost entries: what its first own entry says of the log before it.

The new log has another name and another key, so nobody who follows the one before follows it by accident. Its first
entries are those that were left, in their old places: whoever kept a checkpoint of as many entries or fewer sees that
nothing of it was changed, and whoever kept a later one sees how much is gone, and who says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger.core.checkpoint import Checkpoint, verify_checkpoint
from ledger.core.note import NOTE_LIMIT, VKEY_LIMIT, Kind, VerifierKey, parse_note, parse_vkey
from ledger.core.strict_json import members, text
from ledger.errors import LogRefused, ParseError

BEGUN_ANEW: Final = "ledger.begun_anew"
LONGEST_REASON: Final = 2000


@dataclass(frozen=True, slots=True)
class Beginning:
    """The log `key` began where `before` ended: with the entries of `left`, its newest checkpoint in this database.

    `seen` is the newest checkpoint of the log before that somebody outside has brought, None when nobody has.
    """

    key: VerifierKey
    before: VerifierKey
    left: Checkpoint
    seen: Checkpoint | None
    reason: str

    @property
    def lost(self) -> int:
        """How many entries are known to be gone; 0 where nobody brought a later checkpoint.

        It can be more: a log that went on after the loss has put other entries into the places of some.
        """
        return max(0, self.seen.size - self.left.size) if self.seen is not None else 0


def said(beginning: Beginning, *, left: str, seen: str | None) -> dict[str, Any]:
    """Return a beginning as an entry has it; `left` and `seen` are the notes, which the log before has signed."""
    return {
        "name": beginning.key.name,
        "key": str(beginning.key),
        "before": str(beginning.before),
        "left": left,
        "seen": seen,
        "reason": beginning.reason,
    }


def verify_beginning(detail: object) -> Beginning:
    """Read what an entry says of a beginning; both checkpoints have to be signed by the log before.

    Raises `ParseError`, `NoteSignature` or `LogRefused`.
    """
    names = {"name", "key", "before", "left", "seen", "reason"}
    fields: Mapping[str, Any] = members(detail, names, what="The beginning of a log")
    key, before = _log_key(fields["key"]), _log_key(fields["before"])
    if key.name != fields["name"] or key.name == before.name or key.public == before.public:
        raise ParseError("A new log has the name or the key of the log before it.")
    left = _signed(fields["left"], before)
    seen = None if fields["seen"] is None else _signed(fields["seen"], before)
    return Beginning(key, before, left, seen, reason_of(fields["reason"]))


def reason_of(value: object) -> str:
    """Return why a log ended, as people and terminals can be shown it."""
    reason = text(value, what="A reason", longest=LONGEST_REASON).strip()
    if not reason or not reason.isprintable():
        raise ParseError(f"Why the log ends is a line of at most {LONGEST_REASON} letters.")
    return reason


def require_loss(left: Checkpoint, seen: Checkpoint, root: bytes | None) -> None:
    """Refuse a checkpoint from which the log goes on; `root` is what the log has as its head at that size, if it can.

    Nothing that it covers is gone then, and a new log would cost everybody who follows this one for nothing.
    """
    if seen.size <= left.size and root == seen.root:
        raise LogRefused(
            f"The log goes on from the checkpoint of {seen.size} entries that you give: none of them is gone. Bring one"
            " that it does not go on from, or none, if the log has to end for another reason."
        )


def _log_key(value: object) -> VerifierKey:
    key = parse_vkey(text(value, what="A key", longest=VKEY_LIMIT))
    if key.kind is not Kind.ED25519:
        raise ParseError("The key of a log is of another kind than one that signs checkpoints.")
    return key


def _signed(value: object, key: VerifierKey) -> Checkpoint:
    return verify_checkpoint(parse_note(text(value, what="A checkpoint", longest=NOTE_LIMIT)), key)
