"""What a person keeps of a log between two looks at it: its key, the newest checkpoint seen, and who witnesses it."""

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from attestation.errors import ParseError
from ledger.core.checkpoint import Checkpoint, verify_checkpoint
from ledger.core.note import NOTE_LIMIT, VKEY_LIMIT, VerifierKey, parse_note, parse_vkey
from ledger.core.strict_json import array, members, read_json, text

FORM = "guardhouse-kept/v1"
MOST_WITNESSES = 64


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
    if path.stat().st_size > 2 * NOTE_LIMIT:
        raise ParseError(f"{path} is no file of kept checkpoints.")
    said = members(
        read_json(path.read_bytes(), limit=2 * NOTE_LIMIT), {"form", "log", "checkpoint", "witnesses"}, what=str(path)
    )
    if said["form"] != FORM:
        raise ParseError(f"{path} is not in the form {FORM}.")
    return Kept(
        parse_vkey(text(said["log"], what="A key", longest=VKEY_LIMIT)),
        text(said["checkpoint"], what="A checkpoint", longest=NOTE_LIMIT),
        tuple(
            parse_vkey(text(each, what="A key", longest=VKEY_LIMIT))
            for each in array(said["witnesses"], what="Witnesses", most=MOST_WITNESSES)
        ),
    )


def write_kept(path: Path, kept: Kept) -> None:
    """Put the file in the place of the one before, whole or not at all."""
    said = {
        "form": FORM,
        "log": str(kept.key),
        "checkpoint": kept.note,
        "witnesses": [str(each) for each in kept.witnesses],
    }
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(said, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
