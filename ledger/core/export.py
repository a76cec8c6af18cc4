"""An export: entries of a log, the proofs that it has them, and what their digests stand for, as lines of JSON.

The first line says whose log, up to which checkpoint, and for whom; the last one is a seal over every byte before it by
the log's own key. Each line is bounded, so whoever reads one needs no more memory for a large file than for a small
one. An entry stands in its line exactly as its hash is over it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ledger.core.note import NOTE_LIMIT, VKEY_LIMIT, from_base64, parse_note, sign_note, to_base64, verify_note
from ledger.core.note import VerifierKey as Key
from ledger.core.strict_json import array, digest, members, read_json, text, whole_number
from ledger.core.tree import HASH_SIZE, LONGEST_PROOF, MOST_LEAVES, Hash
from ledger.errors import LogRefused, ParseError

FORM: Final = "guardhouse-export/v1"
LINE_LIMIT: Final = 8 << 20
PART_SIZE: Final = 1 << 20
MOST_PARTS: Final = 256
MOST_OWNERS: Final = 10_000
_SEAL: Final = "guardhouse-export-seal/v1"
_MOST_WITNESSES: Final = 64


class Kind(Enum):
    """What a line is about: its first member."""

    HEADER = "export"
    OWNER = "owner"
    ENTRY = "entry"
    MATERIAL = "material"
    LIST = "list"
    SEAL = "seal"


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A checkpoint that a witness has cosigned, and the proof that the export's own goes on from it."""

    note: str
    path: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """Whose log, up to where, for whom (None: everything), and how it goes on from `since`, 0 for nothing."""

    log: str
    checkpoint: str
    owners: tuple[str, ...] | None
    since: int
    growth: tuple[Hash, ...]
    witnessed: tuple[Witnessed, ...]
    signers: tuple[str, ...]

    def line(self) -> bytes:
        said = {
            "export": FORM,
            "log": self.log,
            "checkpoint": self.checkpoint,
            "owners": None if self.owners is None else list(self.owners),
            "since": self.since,
            "growth": _written(self.growth),
            "witnessed": [{"checkpoint": each.note, "path": _written(each.path)} for each in self.witnessed],
            "signers": list(self.signers),
        }
        return _line(said)


@dataclass(frozen=True, slots=True)
class OwnerLine:
    """Where an owner stands in the counts, and what its chain begins with; in an owner's export, with its path."""

    owner: str
    position: int
    start: bytes
    path: tuple[Hash, ...]

    def line(self) -> bytes:
        said = {"owner": self.owner, "position": self.position, "start": self.start.hex()}
        return _line({**said, "path": _written(self.path)})


@dataclass(frozen=True, slots=True)
class EntryLine:
    """An entry: its bytes and what they say, the hash that the log has for it, its place, and in an owner's export its
    path.
    """

    content: bytes
    said: dict[str, Any]
    hash: Hash
    index: int
    path: tuple[Hash, ...]


@dataclass(frozen=True, slots=True)
class MaterialLine:
    """One part of something that a digest stands for."""

    sha256: str
    part: int
    parts: int
    content: bytes


@dataclass(frozen=True, slots=True)
class ListLine:
    """The parts that an IMA list came in: where each begins, and its digest. Nothing has to believe it."""

    dossier: str
    parts: tuple[tuple[int, str], ...]

    def line(self) -> bytes:
        return _line({"list": self.dossier, "parts": [[begins, part] for begins, part in self.parts]})


# --- written -----------------------------------------------------------------------------------------------------


def entry_line(content: bytes, *, hash_: str, index: int, path: Sequence[Hash] | None) -> bytes:
    """Write an entry whose content is these bytes, with its path in an owner's export."""
    place = f',"hash":"{hash_}","index":{index}'
    way = "" if path is None else f',"path":{json.dumps(_written(path), separators=(",", ":"))}'
    return b'{"entry":' + content + f"{place}{way}}}\n".encode()


def material_lines(sha256: str, content: bytes) -> Iterator[bytes]:
    """Write what a digest stands for; JSON of ours so that people can read it."""
    parts = max(1, -(-len(content) // PART_SIZE))
    for part in range(parts):
        piece = content[part * PART_SIZE : (part + 1) * PART_SIZE]
        said = {"material": sha256, "part": part, "parts": parts}
        if parts == 1 and piece.startswith(b"{"):
            yield _line({**said, "text": piece.decode()})
        else:
            yield _line({**said, "base64": to_base64(piece)})


def seal_line(origin: str, sha256: bytes, private: Ed25519PrivateKey) -> bytes:
    """Seal the lines that have this digest."""
    return _line({"seal": str(sign_note(_sealed(origin, sha256), origin, private))})


def _sealed(origin: str, sha256: bytes) -> str:
    return f"{_SEAL}\n{origin}\n{to_base64(sha256)}\n"


def _line(said: dict[str, Any]) -> bytes:
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _written(path: Sequence[Hash]) -> list[str]:
    return [to_base64(step) for step in path]


# --- read --------------------------------------------------------------------------------------------------------


def kind_of(line: bytes) -> Kind:
    """Say what a line is about. Raises `ParseError`."""
    name = line[2:16].partition(b'"')[0] if line.startswith(b'{"') else b""
    try:
        return Kind(name.decode("ascii"))
    except ValueError:
        raise ParseError("A line of the export is of no kind that is known here.") from None


def parse_header(line: bytes) -> Header:
    names = {"export", "log", "checkpoint", "owners", "since", "growth", "witnessed", "signers"}
    said = members(_read(line), names, what="The first line of an export")
    if said["export"] != FORM:
        raise ParseError(f"This is not an export in the form {FORM}.")
    owners, witnessed = said["owners"], array(said["witnessed"], what="Witnessed", most=_MOST_WITNESSES)
    return Header(
        log=text(said["log"], what="A key", longest=VKEY_LIMIT),
        checkpoint=text(said["checkpoint"], what="A checkpoint", longest=NOTE_LIMIT),
        owners=None if owners is None else tuple(map(digest, array(owners, what="Owners", most=MOST_OWNERS))),
        since=_size(said["since"]),
        growth=_path(said["growth"]),
        witnessed=tuple(map(_witnessed, witnessed)),
        signers=tuple(map(digest, array(said["signers"], what="Signers", most=MOST_OWNERS))),
    )


def _witnessed(value: object) -> Witnessed:
    said = members(value, {"checkpoint", "path"}, what="What was witnessed")
    return Witnessed(text(said["checkpoint"], what="A checkpoint", longest=NOTE_LIMIT), _path(said["path"]))


def parse_owner(line: bytes) -> OwnerLine:
    said = members(_read(line), {"owner", "position", "start", "path"}, what="An owner's line")
    return OwnerLine(
        digest(said["owner"]), _size(said["position"]), bytes.fromhex(digest(said["start"])), _path(said["path"])
    )


def parse_entry(line: bytes) -> EntryLine:
    """Read an entry's line; what its hash is over is what stands between `{"entry":` and the next member."""
    try:
        whole = line.decode()
        said, end = _ENTRIES.raw_decode(whole, len(_ENTRY))
        place = json.loads("{" + whole[end + 1 :])
    except (ValueError, RecursionError) as error:
        raise ParseError("An entry of the export cannot be read.") from error
    if not isinstance(said, dict) or whole[end : end + 1] != "," or not isinstance(place, dict):
        raise ParseError("An entry of the export cannot be read.")
    if place.keys() - {"path"} != {"hash", "index"}:
        raise ParseError("An entry of the export has other members than its hash, its place and its path.")
    path = place.get("path")
    return EntryLine(
        content=whole[len(_ENTRY) : end].encode(),
        said=said,
        hash=bytes.fromhex(digest(place["hash"])),
        index=_size(place["index"]),
        path=() if path is None else _path(path),
    )


def parse_material(line: bytes) -> MaterialLine:
    said = _read(line)
    inside = "text" if "text" in said else "base64"
    members(said, {"material", "part", "parts", inside}, what="A part")
    parts = whole_number(said["parts"], what="A number of parts", most=MOST_PARTS)
    content = text(said[inside], what="A part", longest=2 * PART_SIZE)
    return MaterialLine(
        digest(said["material"]),
        whole_number(said["part"], what="A part", most=max(0, parts - 1)),
        parts,
        content.encode() if inside == "text" else from_base64(content),
    )


def parse_list(line: bytes) -> ListLine:
    said = members(_read(line), {"list", "parts"}, what="A list")
    pairs = [array(each, what="A part", most=2) for each in array(said["parts"], what="Parts", most=100_000)]
    if any(len(each) != 2 for each in pairs):
        raise ParseError("A part of a list is not where it begins and its digest.")
    return ListLine(digest(said["list"]), tuple((_size(begins), digest(part)) for begins, part in pairs))


def verify_seal(line: bytes, sha256: bytes, key: Key) -> None:
    """Raise a `Refusal` unless this seals the lines that have this digest."""
    said = members(_read(line), {"seal"}, what="A seal")
    note = parse_note(text(said["seal"], what="A seal", longest=NOTE_LIMIT))
    if verify_note(note, key) != _sealed(key.name, sha256):
        raise LogRefused("The file is not as the log had sealed it: something in it was changed afterwards.")


def _read(line: bytes) -> dict[str, Any]:
    return read_json(line, limit=LINE_LIMIT)


def _size(value: object) -> int:
    return whole_number(value, what="A number", most=MOST_LEAVES)


def _path(value: object) -> tuple[Hash, ...]:
    steps = array(value, what="A path", most=LONGEST_PROOF)
    return tuple(from_base64(text(step, what="A hash", longest=64), size=HASH_SIZE) for step in steps)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is repeated")
    return found


def _refused(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


# An entry may hold any JSON. Its place is read without the hook: a hundred thousand of them are read at a time.
_ENTRIES: Final = json.JSONDecoder(object_pairs_hook=_without_repetition, parse_constant=_refused)
_ENTRY: Final = '{"entry":'
