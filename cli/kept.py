"""What a person keeps of a log between two looks at it: its key, the newest checkpoint seen, and who witnesses it."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from attestation.errors import ParseError
from guardedhost.files import write_atomically
from ledger.core.checkpoint import Checkpoint, verify_checkpoint
from ledger.core.note import NOTE_LIMIT, VKEY_LIMIT, Kind, VerifierKey, parse_note, parse_vkey
from ledger.core.strict_json import array, members, read_json, text

FORM: Final = "guardhouse-kept/v1"
MOST_WITNESSES: Final = 64
MOST_ENDED: Final = 16
_LIMIT: Final = (4 + MOST_ENDED) * NOTE_LIMIT


@dataclass(frozen=True, slots=True)
class EndedLog:
    """A log that was followed until another took its place; what it had signed last stays here, as the proof of it."""

    key: VerifierKey
    note: str

    @property
    def checkpoint(self) -> Checkpoint | None:
        return verify_checkpoint(parse_note(self.note), self.key) if self.note else None


@dataclass(frozen=True, slots=True)
class Kept:
    """A log's key, the note of the newest checkpoint that was seen ("" for none yet), and the person's witnesses."""

    key: VerifierKey
    note: str = ""
    witnesses: tuple[VerifierKey, ...] = ()
    ended: tuple[EndedLog, ...] = ()  # that this log has taken the place of, as the person accepted

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint, verified once more: the file may have been changed. Raises `LogRefused`."""
        return verify_checkpoint(parse_note(self.note), self.key) if self.note else None


def read_kept(path: Path) -> Kept | None:
    """Return what a file keeps; None when there is no such file. Raises `ParseError`."""
    if not path.exists():
        return None
    if path.stat().st_size > _LIMIT:
        raise ParseError(f"{path} is no file of kept checkpoints.")
    names = {"form", "log", "checkpoint", "witnesses"}
    found = read_json(path.read_bytes(), limit=_LIMIT)
    ended = array(found.pop("ended", []), what="Logs that ended", most=MOST_ENDED)
    said = members(found, names, what=str(path))
    if said["form"] != FORM:
        raise ParseError(f"{path} is not in the form {FORM}.")
    witnesses = array(said["witnesses"], what="Witnesses", most=MOST_WITNESSES)
    return Kept(
        _vkey(said["log"]),
        text(said["checkpoint"], what="A checkpoint", longest=NOTE_LIMIT),
        tuple(map(_vkey, witnesses)),
        tuple(map(_ended, ended)),
    )


def _ended(value: object) -> EndedLog:
    said = members(value, {"log", "checkpoint"}, what="A log that ended")
    return EndedLog(_vkey(said["log"]), text(said["checkpoint"], what="A checkpoint", longest=NOTE_LIMIT))


def _vkey(value: object) -> VerifierKey:
    return parse_vkey(text(value, what="A key", longest=VKEY_LIMIT))


def known_log(
    path: Path, log_key: str | None, witnesses: tuple[str, ...] = (), *, accept_new_log: bool = False
) -> Kept:
    """Return what a person knows of a log; its key is never taken from what is to be checked by it.

    That another log has taken the place of the one that they followed, they say themselves (`accept_new_log`).
    """
    kept = read_kept(path)
    if kept is None and log_key is None:
        raise ParseError(
            f"{path} is not there, so this is the first look at this log. Say its key with --log, as the fabric's"
            " operator has told you by another way than the portal."
        )
    known = kept or Kept(parse_vkey(log_key or ""))
    if accept_new_log:
        known = _accepted(path, kept, log_key)
    elif log_key is not None and parse_vkey(log_key) != known.key:
        raise ParseError(
            f"{path} is about another log, {known.key.name}. If the fabric has begun a new one in its place, and its"
            " operator has told you so, and its key, by another way than the portal, add --accept-new-log."
        )
    together = {str(each): each for each in (*known.witnesses, *map(parse_vkey, witnesses))}
    return replace(known, witnesses=tuple(together.values()))


def _accepted(path: Path, kept: Kept | None, log_key: str | None) -> Kept:
    """Follow a new log from now on, and keep what the one before had signed last."""
    if kept is None or log_key is None:
        raise ParseError("--accept-new-log is for a log that you follow already: with --log, the new one's key.")
    new = parse_vkey(log_key)
    if new.kind is not Kind.ED25519:
        raise ParseError("This is the key of a witness, and not of a log.")
    if new == kept.key or any(new == each.key for each in kept.ended):
        raise ParseError(f"{path} is, or was, about {new.name} already: that is not a new log.")
    if len(kept.ended) == MOST_ENDED:
        raise ParseError(f"{path} knows of {MOST_ENDED} logs that ended. Begin another file.")
    return Kept(new, "", kept.witnesses, (*kept.ended, EndedLog(kept.key, kept.note)))


def write_kept(path: Path, kept: Kept) -> None:
    """Put the file in the place of the one before, whole or not at all."""
    said: dict[str, object] = {
        "form": FORM,
        "log": str(kept.key),
        "checkpoint": kept.note,
        "witnesses": [str(each) for each in kept.witnesses],
    }
    if kept.ended:
        said["ended"] = [{"log": str(each.key), "checkpoint": each.note} for each in kept.ended]
    write_atomically(path, json.dumps(said, indent=2, ensure_ascii=False).encode() + b"\n")
