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
MOST_VMS: Final = 64  # in one drill
LONGEST_FAILURE: Final = 400


@dataclass(frozen=True, slots=True)
class Split:
    at: int
    set_name: str
    shares: int
    needed: int


@dataclass(frozen=True, slots=True)
class Drill:
    """Which shares were tried, how many VMs and disks the owner behind them opened, and why it failed if it did.

    No set is known of a drill that failed before a share was read, or that tried a copy of the keys instead.
    """

    at: int
    set_name: str | None
    shares: tuple[int, ...]
    opened: int
    disks: int
    failure: str | None


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
    """Say what was done, and aloud what never was or went wrong."""
    return [*_splits_described(care), *_drills_described(care)]


def _splits_described(care: Care) -> list[str]:
    if not care.splits:
        return ["WARNING: no recovery shares were made on this machine. Run `guardhouse tenant owner split`."]
    last = care.splits[-1]
    said = f"{last.shares}, any {last.needed} recover; set “{last.set_name}”, made {_day(last.at)}"
    return [f"recovery shares: {said}"]


def _drills_described(care: Care) -> list[str]:
    if not care.drills:
        return ["WARNING: recovery was never tried on this machine. Run `guardhouse tenant owner drill`."]
    lines, last = [], care.drills[-1]
    if last.failure is not None:
        lines.append(f"WARNING: the last drill failed, {_day(last.at)}: {last.failure}")
    good = next((drill for drill in reversed(care.drills) if drill.failure is None), None)
    if good is None:
        return [*lines, "WARNING: no drill on this machine has ever succeeded."]
    opened = f"VMs opened: {good.opened}, disks: {good.disks}"
    lines.append(f"last drill that succeeded: {_day(good.at)}, {_tried(good)}, {opened}")
    if care.splits and care.splits[-1].set_name not in {drill.set_name for drill in care.drills if not drill.failure}:
        lines.append("WARNING: the shares made last were never tried. Run `guardhouse tenant owner drill` with them.")
    return lines


def _tried(drill: Drill) -> str:
    if drill.set_name is None:
        return "with a copy of the key file or the token"
    return f"shares {', '.join(map(str, drill.shares))} of “{drill.set_name}”"


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
    names = {"at", "set_name", "shares", "opened", "disks", "failure"}
    said = jose.members(value, names, what="A drill")
    numbers = tuple(map(_small, _listed(said["shares"], most=16)))
    opened, disks = (
        jose.whole_number(said[name], what="What a drill opened", most=MOST_VMS) for name in ("opened", "disks")
    )
    failure = said["failure"]
    if failure is not None:
        failure = jose.text(failure, what="Why a drill failed", longest=LONGEST_FAILURE)
    set_name = None if said["set_name"] is None else _set_name(said["set_name"])
    if set_name is None and numbers:
        raise MalformedDocument("A drill with shares says of which set they were.")
    return Drill(_time(said["at"]), set_name, numbers, opened, disks, failure)


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
