"""The record of how an owner was cared for on this machine: when shares were made, and when they were last tried.

It is for its owner's memory. Nothing is decided by it, and nothing in it is secret.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from guardedhost.files import locked, write_atomically
from kps.core import jose
from kps.errors import MalformedDocument

_LIMIT: Final = 64 * 1024
_KEPT: Final = 32  # of each kind; the oldest go
_LATEST: Final = 2**37  # the year 6325
_MOST: Final = 64  # protectors in one drill


@dataclass(frozen=True, slots=True)
class Split:
    at: int
    set_name: str
    shares: int
    needed: int


@dataclass(frozen=True, slots=True)
class Drill:
    """Which shares led to the owner again, and how many key protectors that owner then opened."""

    at: int
    set_name: str
    shares: tuple[int, ...]
    opened: int


@dataclass(frozen=True, slots=True)
class Care:
    splits: tuple[Split, ...] = field(default=())
    drills: tuple[Drill, ...] = field(default=())


def default_folder() -> Path:
    return Path(click.get_app_dir("guardhouse")) / "owners"


def load(folder: Path, fingerprint: str) -> Care:
    try:
        return parse_care(_file(folder, fingerprint).read_bytes())
    except FileNotFoundError:
        return Care()


def add(folder: Path, fingerprint: str, act: Split | Drill) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        care = load(folder, fingerprint)
        if isinstance(act, Split):
            care = replace(care, splits=(*care.splits, act)[-_KEPT:])
        else:
            care = replace(care, drills=(*care.drills, act)[-_KEPT:])
        content = jose.canonical({"version": 1, **asdict(care)})
        write_atomically(_file(folder, fingerprint), content + b"\n")


def describe(care: Care) -> list[str]:
    """Say what was done, and aloud what never was."""
    lines = []
    if care.splits:
        last = care.splits[-1]
        lines.append(
            f"recovery shares: {last.shares}, any {last.needed} recover; set “{last.set_name}”, made {_day(last.at)}"
        )
    else:
        lines.append("WARNING: no recovery shares were made on this machine. Run `guardhouse tenant owner split`.")
    if not care.drills:
        return [*lines, "WARNING: recovery was never tried on this machine. Run `guardhouse tenant owner drill`."]
    drill = care.drills[-1]
    numbers = ", ".join(map(str, drill.shares))
    lines.append(f"last drill: {_day(drill.at)}, shares {numbers} of “{drill.set_name}”, {drill.opened} VMs opened")
    if care.splits and drill.set_name != care.splits[-1].set_name:
        lines.append("WARNING: the shares made last were never tried. Run `guardhouse tenant owner drill` with them.")
    return lines


def parse_care(content: bytes) -> Care:
    fields = jose.members(jose.read_json(content, limit=_LIMIT), {"version", "splits", "drills"}, what="The record")
    if fields["version"] != 1:
        raise MalformedDocument("The record is not of a version known here.")
    splits = tuple(map(_split, _listed(fields["splits"], most=_KEPT)))
    return Care(splits, tuple(map(_drill, _listed(fields["drills"], most=_KEPT))))


def _split(value: object) -> Split:
    said = jose.members(value, {"at", "set_name", "shares", "needed"}, what="A split")
    return Split(_time(said["at"]), _set_name(said["set_name"]), _small(said["shares"]), _small(said["needed"]))


def _drill(value: object) -> Drill:
    said = jose.members(value, {"at", "set_name", "shares", "opened"}, what="A drill")
    numbers = tuple(map(_small, _listed(said["shares"], most=16)))
    opened = jose.whole_number(said["opened"], what="What a drill opened", most=_MOST)
    return Drill(_time(said["at"]), _set_name(said["set_name"]), numbers, opened)


def _time(value: object) -> int:
    return jose.whole_number(value, what="The time of an act", most=_LATEST)


def _set_name(value: object) -> str:
    return jose.text(value, what="The name of a set of shares")


def _small(value: object) -> int:
    return jose.whole_number(value, what="A number of shares", most=16)


def _listed(value: object, *, most: int) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise MalformedDocument(f"A part of the record is not a list of at most {most}.")
    return value


def _file(folder: Path, fingerprint: str) -> Path:
    return folder / f"{fingerprint}.json"


def _day(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
