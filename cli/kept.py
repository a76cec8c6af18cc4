"""What a person keeps of a log between two looks at it: its key, the newest checkpoint seen, and who witnesses it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from attestation.errors import ParseError
from guardedhost.files import write_atomically
from ledger.core.checkpoint import Checkpoint, verify_checkpoint
from ledger.core.note import NOTE_LIMIT, VKEY_LIMIT, VerifierKey, parse_note, parse_vkey
from ledger.core.strict_json import array, members, read_json, text

FORM: Final = "guardhouse-kept/v1"
MOST_WITNESSES: Final = 64
_LIMIT: Final = 4 * NOTE_LIMIT


@dataclass(frozen=True, slots=True)
class Kept:
    """A log's key, the note of the newest checkpoint that was seen ("" for none yet), and the person's witnesses."""

    key: VerifierKey
    note: str = ""
    witnesses: tuple[VerifierKey, ...] = ()

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
    said = members(read_json(path.read_bytes(), limit=_LIMIT), names, what=str(path))
    if said["form"] != FORM:
        raise ParseError(f"{path} is not in the form {FORM}.")
    witnesses = array(said["witnesses"], what="Witnesses", most=MOST_WITNESSES)
    return Kept(
        _vkey(said["log"]),
        text(said["checkpoint"], what="A checkpoint", longest=NOTE_LIMIT),
        tuple(map(_vkey, witnesses)),
    )


def _vkey(value: object) -> VerifierKey:
    return parse_vkey(text(value, what="A key", longest=VKEY_LIMIT))


def known_log(path: Path, log_key: str | None, witnesses: tuple[str, ...] = ()) -> Kept:
    """Return what a person knows of a log; its key is never taken from what is to be checked by it."""
    kept = read_kept(path)
    if kept is None and log_key is None:
        raise ParseError(
            f"{path} is not there, so this is the first look at this log. Say its key with --log, as the fabric's"
            " operator has told you by another way than the portal."
        )
    known = kept or Kept(parse_vkey(log_key or ""))
    if log_key is not None and parse_vkey(log_key) != known.key:
        raise ParseError(f"{path} is about another log, {known.key.name}.")
    together = {str(each): each for each in (*known.witnesses, *map(parse_vkey, witnesses))}
    return Kept(known.key, known.note, tuple(together.values()))


def write_kept(path: Path, kept: Kept) -> None:
    """Put the file in the place of the one before, whole or not at all."""
    said = {
        "form": FORM,
        "log": str(kept.key),
        "checkpoint": kept.note,
        "witnesses": [str(each) for each in kept.witnesses],
    }
    write_atomically(path, json.dumps(said, indent=2, ensure_ascii=False).encode() + b"\n")
