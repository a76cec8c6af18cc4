"""A witness: somebody outside who sees every checkpoint of a log go on from the one before, and says so under it.

What a witness has cosigned, the fabric cannot show otherwise to anybody who asks for that cosignature. It sees sizes
and hashes, and nothing of what was done. The rules are those of c2sp.org/tlog-witness: the newest checkpoint is on disk
before its cosignature leaves.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.errors import ParseError
from cli.kept import EndedLog, Kept, write_kept
from guardedhost.client import portal_url
from guardedhost.errors import Unreachable
from guardedhost.files import write_new
from ledger.core.checkpoint import Checkpoint, verify_checkpoint
from ledger.core.note import (
    NOTE_LIMIT,
    Kind,
    UnverifiedNote,
    VerifierKey,
    from_base64,
    is_name,
    parse_note,
    sign_cosignature,
    to_base64,
    verifier_key,
)
from ledger.core.proof import PROOF_LIMIT, parse_growth, verify_growth
from ledger.core.strict_json import members, read_json, text
from ledger.core.tree import verify_consistency
from ledger.errors import Inconsistent, LogRefused

KEY_FORM: Final = "guardhouse-witness/v1"
_KEY_LIMIT: Final = 4096
_TIMEOUT: Final = (5.0, 30.0)  # connect, read


@dataclass(frozen=True, slots=True)
class Witness:
    """Who signs: a name that no other witness has, and a key."""

    name: str
    private: Ed25519PrivateKey

    @property
    def key(self) -> VerifierKey:
        return verifier_key(self.name, Kind.COSIGNATURE, self.private)


class Forked(LogRefused):
    """The log shows another past than the one that was kept; `note` is what it has signed now, and so the proof."""

    code = "log_forked"

    def __init__(self, message: str, note: str) -> None:
        super().__init__(message)
        self.note = note


class AnotherLog(LogRefused):
    """The fabric shows a log under another name than the one that is followed."""

    code = "another_log"


class Log(Protocol):
    """A log as a witness sees it."""

    def checkpoint(self) -> str: ...

    def growth(self, old: int, new: int) -> bytes: ...

    def cosign(self, size: int, line: str) -> None: ...


def new_witness(name: str) -> Witness:
    if not is_name(name):
        raise ParseError("A witness's name is one word without a plus, such as witness.example.org/guardhouse.")
    return Witness(name, Ed25519PrivateKey.generate())


def write_witness(path: Path, witness: Witness) -> None:
    """Write the key where only its owner reads it. A key that is there already stays."""
    said = {"form": KEY_FORM, "name": witness.name, "key": to_base64(witness.private.private_bytes_raw())}
    write_new(path, json.dumps(said).encode() + b"\n")


def read_witness(path: Path) -> Witness:
    if path.stat().st_size > _KEY_LIMIT:
        raise ParseError(f"{path} is no witness's key.")
    said = members(read_json(path.read_bytes(), limit=_KEY_LIMIT), {"form", "name", "key"}, what=str(path))
    name = text(said["name"], what="A name", longest=200)
    if said["form"] != KEY_FORM or not is_name(name):
        raise ParseError(f"{path} is no witness's key.")
    seed = from_base64(text(said["key"], what="A key", longest=64), size=32)
    return Witness(name, Ed25519PrivateKey.from_private_bytes(seed))


def look(log: Log, kept: Kept, kept_file: Path, witness: Witness, *, at: int) -> Checkpoint:
    """See that the log only grew since last time, keep its newest checkpoint, and cosign that.

    Raises `Forked` when it did not, with everything left as it was, and another `Refusal` for what cannot be read.
    """
    note = log.checkpoint()
    read = parse_note(note)
    _require_followed(read, kept)
    head = verify_checkpoint(read, kept.key)
    _require_growth(log, kept, head, note)
    write_kept(kept_file, replace(kept, note=note))
    log.cosign(head.size, str(sign_cosignature(head.text, witness.name, witness.private, at=at)))
    return head


def _require_followed(note: UnverifiedNote, kept: Kept) -> None:
    """Refuse another log than the one that is followed, whoever has signed it: only a person goes over to it."""
    name = note.untrusted_text.partition("\n")[0]
    if name != kept.key.name:
        shown = name if is_name(name) else "of no name"
        raise AnotherLog(
            f"This fabric shows another log now, {shown}, than {kept.key.name}, which you follow. Nothing was cosigned."
            " A fabric begins a new log when entries of the one before were lost, and says so in it. If its operator"
            " has told you the new key by another way than the portal, say it with --log and --accept-new-log."
        )


def gone_from(log: Log, ended: EndedLog, head: Checkpoint) -> str:
    """Say in a sentence what a log that was accepted has of the one before it, by that one's kept checkpoint."""
    before = ended.checkpoint
    if before is None:
        return f"Of {ended.key.name} you had kept no checkpoint, so nothing can be compared."
    if _contains(log, before, head):
        return f"It has all of the {before.size} entries of {ended.key.name} that you had seen."
    return (
        f"It does not go on from the checkpoint of {before.size} entries of {ended.key.name} that you had kept: entries"
        " that it covers are gone. Its first entry has to say so; what the log before had signed stays in your file."
    )


def _contains(log: Log, before: Checkpoint, head: Checkpoint) -> bool:
    if before.size > head.size:
        return False
    if before.size == head.size:
        return before.root == head.root
    try:
        growth = parse_growth(log.growth(before.size, head.size))
        verify_consistency(before.size, head.size, before.root, head.root, growth.path)
    except Inconsistent:
        return False
    return True


def _require_growth(log: Log, kept: Kept, head: Checkpoint, note: str) -> None:
    before = kept.checkpoint
    if before is None:
        return
    if head.size < before.size:
        raise Forked(f"The log has {head.size} entries now, and it had {before.size}: it has gone back.", note)
    if head.size == before.size:
        if head.root != before.root:
            raise Forked(f"There are two different logs of {head.size} entries.", note)
        return
    try:
        verify_growth(parse_growth(log.growth(before.size, head.size)), before, head)
    except Inconsistent as refusal:
        raise Forked(str(refusal), note) from refusal


class RemoteLog:
    """A fabric's log over its API. Redirects are not followed, and answers are bounded."""

    def __init__(self, server: str, ca: str = "") -> None:
        self._base = f"{portal_url(server)}/ledger/v1"
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = ca or True

    def checkpoint(self) -> str:
        try:
            return self._get("checkpoint", limit=4 * NOTE_LIMIT).decode()
        except UnicodeDecodeError as error:
            raise ParseError("The checkpoint is not text.") from error

    def growth(self, old: int, new: int) -> bytes:
        return self._get(f"consistency?from={old}&to={new}", limit=PROOF_LIMIT)

    def cosign(self, size: int, line: str) -> None:
        self._ask("POST", "cosignatures", limit=PROOF_LIMIT, json={"size": size, "line": line})

    def _get(self, path: str, *, limit: int) -> bytes:
        return self._ask("GET", path, limit=limit)

    def _ask(self, method: str, path: str, *, limit: int, json: object = None) -> bytes:
        address = f"{self._base}/{path}"
        try:
            with self._session.request(
                method, address, json=json, timeout=_TIMEOUT, allow_redirects=False, stream=True
            ) as answer:
                body = _bounded(answer, limit)
                if answer.status_code >= requests.codes.server_error:
                    raise Unreachable(f"{address} answered {answer.status_code}.")
                if answer.status_code >= requests.codes.multiple_choices:
                    raise LogRefused(f"{address} answered {answer.status_code}: {_detail(body)}")
                return body
        except requests.RequestException as error:
            raise Unreachable(f"{address} cannot be reached: {type(error).__name__}.") from error


def _bounded(answer: requests.Response, limit: int) -> bytes:
    content = b""
    for chunk in answer.iter_content(1 << 16):
        content += chunk
        if len(content) > limit:
            raise ParseError("The log answers more than anybody asked for.")
    return content


def _detail(body: bytes) -> str:
    """Return what a problem document says, in a line of bounded length; it may be anybody's words."""
    try:
        said = str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "no reason given"
    return "".join(letter for letter in said[:300] if letter.isprintable())
