"""A witness cosigns what goes on from what it has seen, and nothing else; whatever log it is shown."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.errors import ParseError, Refusal
from cli.kept import EndedLog, Kept, known_log, read_kept, write_kept
from cli.main import main
from cli.witness import (
    AnotherLog,
    Forked,
    RemoteLog,
    Witness,
    gone_from,
    look,
    new_witness,
    read_witness,
    write_witness,
)
from guardedhost.errors import AgentError
from ledger.core.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from ledger.core.leaf import entry_hash
from ledger.core.note import Kind, parse_note, parse_signature, parse_vkey, verifier_key, verify_cosignature
from ledger.core.proof import Growth
from ledger.core.tree import consistency_proof, full_root, root
from ledger.errors import LogRefused

LOG, ANOTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
ORIGIN = "guardhouse/demo-00000000"
KEY = verifier_key(ORIGIN, Kind.ED25519, LOG)
WITNESS = Witness("witness.example/1", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
AT = 1_795_000_000


@dataclass
class Fake:
    """A log of so many leaves; one of another `past` has other leaves from the beginning."""

    size: int
    past: bytes = b""
    key: Ed25519PrivateKey = LOG
    origin: str = ORIGIN
    cosigned: list[tuple[int, str]] = field(default_factory=list)

    def node(self, level: int, index: int) -> bytes:
        first = index << level
        return full_root([entry_hash(self.past + str(leaf).encode()) for leaf in range(first, first + (1 << level))])

    def checkpoint(self) -> str:
        return str(sign_checkpoint(Checkpoint(self.origin, self.size, root(self.size, self.node)), self.key))

    def growth(self, old: int, new: int) -> bytes:
        return json.dumps(Growth(old, new, consistency_proof(old, new, self.node)).members()).encode()

    def cosign(self, size: int, line: str) -> None:
        self.cosigned.append((size, line))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept.json"


def looks(log: Fake, kept: Path) -> Checkpoint:
    return look(log, read_kept(kept) or Kept(KEY), kept, WITNESS, at=AT)


def size_in(kept: Path) -> int:
    found = read_kept(kept)
    assert found is not None
    assert found.checkpoint is not None
    return found.checkpoint.size


@pytest.mark.parametrize("sizes", [(1, 2, 3), (5, 8, 8), (7, 300)])
def test_a_log_that_grows_is_cosigned_each_time(sizes: tuple[int, ...], kept: Path) -> None:
    for size in sizes:
        log = Fake(size)
        assert looks(log, kept).size == size_in(kept) == size
        ((cosigned, line),) = log.cosigned
        text = parse_note(log.checkpoint()).untrusted_text
        assert verify_cosignature(text, parse_signature(line), WITNESS.key) == AT
        assert cosigned == size


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(Fake(9, past=b"other"), id="fork"),
        pytest.param(Fake(5, past=b"other"), id="two of one size"),
        pytest.param(Fake(4), id="gone back"),
    ],
)
def test_a_log_that_did_not_only_grow_is_cosigned_no_more(log: Fake, kept: Path) -> None:
    looks(Fake(5), kept)
    before = kept.read_bytes()
    with pytest.raises(Forked) as refusal:
        looks(log, kept)
    assert refusal.value.note == log.checkpoint()
    assert (log.cosigned, kept.read_bytes()) == ([], before)


@pytest.mark.parametrize("note", ["", "x", Fake(9, key=ANOTHER).checkpoint(), Fake(9).checkpoint()[:-3]])
def test_what_the_log_has_not_signed_is_nothing(note: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks(Fake(5), kept)
    log = Fake(9)
    monkeypatch.setattr(log, "checkpoint", lambda: note)
    with pytest.raises(Refusal):
        looks(log, kept)
    assert (log.cosigned, size_in(kept)) == ([], 5)


@pytest.mark.parametrize("proof", [b"", b"{}", b"[]", Fake(9).growth(4, 9), Fake(9).growth(5, 8)])
def test_a_proof_of_something_else_is_none(proof: bytes, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks(Fake(5), kept)
    log = Fake(9)
    monkeypatch.setattr(log, "growth", lambda old, new: proof)
    with pytest.raises(Refusal):
        looks(log, kept)
    assert (log.cosigned, size_in(kept)) == ([], 5)


def test_what_was_seen_is_kept_before_the_cosignature_leaves(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Fake(9)

    def broken(size: int, line: str) -> None:
        assert size_in(kept) == 9
        raise LogRefused("no more")

    monkeypatch.setattr(log, "cosign", broken)
    with pytest.raises(LogRefused):
        looks(log, kept)
    assert size_in(kept) == 9


# --- another log -------------------------------------------------------------------------------------------------


NEXT = "guardhouse/demo-11111111"
NEXT_KEY = verifier_key(NEXT, Kind.ED25519, ANOTHER)


def accepted(kept: Path) -> Kept:
    return known_log(kept, str(NEXT_KEY), accept_new_log=True)


@pytest.mark.parametrize("key", [ANOTHER, LOG])
def test_a_log_of_another_name_is_not_followed_silently(key: Ed25519PrivateKey, kept: Path) -> None:
    looks(Fake(5), kept)
    before, log = kept.read_bytes(), Fake(9, key=key, origin=NEXT)
    with pytest.raises(AnotherLog, match="--accept-new-log"):
        looks(log, kept)
    assert (log.cosigned, kept.read_bytes()) == ([], before)


def test_a_log_that_a_person_has_accepted_is_followed_and_the_one_before_no_more(kept: Path) -> None:
    looks(Fake(5), kept)
    log = Fake(9, key=ANOTHER, origin=NEXT)
    look(log, accepted(kept), kept, WITNESS, at=AT)
    assert size_in(kept) == 9
    found = read_kept(kept)
    assert found is not None
    assert [(each.key, each.note) for each in found.ended] == [(KEY, Fake(5).checkpoint())]
    with pytest.raises(AnotherLog):
        looks(Fake(12), kept)
    with pytest.raises(Forked):
        looks(Fake(7, key=ANOTHER, origin=NEXT), kept)
    assert (len(log.cosigned), size_in(kept)) == (1, 9)


@pytest.mark.parametrize("log_key", [None, str(KEY), str(WITNESS.key), "x"])
def test_only_the_key_of_another_log_is_accepted_as_one(log_key: str | None, kept: Path) -> None:
    looks(Fake(5), kept)
    before = kept.read_bytes()
    with pytest.raises(ParseError):
        known_log(kept, log_key, accept_new_log=True)
    assert kept.read_bytes() == before


def test_who_follows_no_log_has_no_new_one_to_accept(kept: Path) -> None:
    with pytest.raises(ParseError, match="that you follow already"):
        known_log(kept, str(NEXT_KEY), accept_new_log=True)


def test_what_the_accepted_log_has_of_the_one_before_is_said(kept: Path) -> None:
    looks(Fake(5), kept)
    (ended,) = accepted(kept).ended
    for log, said in (
        (Fake(9, key=ANOTHER, origin=NEXT), "has all of the 5 entries"),
        (Fake(5, key=ANOTHER, origin=NEXT), "has all of the 5 entries"),
        (Fake(4, key=ANOTHER, origin=NEXT), "are gone"),
        (Fake(9, past=b"other", key=ANOTHER, origin=NEXT), "are gone"),
        (Fake(5, past=b"other", key=ANOTHER, origin=NEXT), "are gone"),
    ):
        head = verify_checkpoint(parse_note(log.checkpoint()), NEXT_KEY)
        assert said in gone_from(log, ended, head)
    assert "no checkpoint" in gone_from(Fake(9), EndedLog(KEY, ""), Checkpoint(NEXT, 9, bytes(32)))


@pytest.mark.parametrize("ended", ["x", [7], [{}], [{"log": "x", "checkpoint": ""}], [{"log": 7, "checkpoint": ""}]])
def test_a_file_with_other_logs_in_it_than_there_are_is_refused(ended: object, kept: Path) -> None:
    looks(Fake(5), kept)
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "ended": ended}))
    with pytest.raises(ParseError):
        read_kept(kept)


# --- files -------------------------------------------------------------------------------------------------------


def test_a_witness_keeps_its_key_to_itself(tmp_path: Path) -> None:
    made = new_witness("witness.example/2")
    write_witness(tmp_path / "key", made)
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0
    assert read_witness(tmp_path / "key").key == made.key
    with pytest.raises(FileExistsError):
        write_witness(tmp_path / "key", WITNESS)
    for name in ("", "two words", "a+b"):
        with pytest.raises(ParseError):
            new_witness(name)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"form":"x","name":"y","key":""}', "x" * 10_000])
def test_what_is_no_key_and_nothing_kept_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(ParseError):
        read_witness(tmp_path / "file")
    with pytest.raises(ParseError):
        read_kept(tmp_path / "file")


def test_a_kept_checkpoint_that_somebody_has_changed_is_refused(kept: Path) -> None:
    looks(Fake(5), kept)
    found = read_kept(kept)
    assert found is not None
    write_kept(kept, Kept(KEY, found.note.replace("\n5\n", "\n4\n")))
    with pytest.raises(LogRefused):
        looks(Fake(9), kept)


# --- over the wire -----------------------------------------------------------------------------------------------


class Portal(BaseHTTPRequestHandler):
    """Serves a fake log as `ledger/v1/` does."""

    log = Fake(5)
    status = 201

    def do_GET(self) -> None:
        path, _, question = self.path.partition("?")
        if path == "/ledger/v1/checkpoint":
            return self._answer(200, self.log.checkpoint().encode())
        asked = dict(pair.split("=") for pair in question.split("&"))
        return self._answer(200, self.log.growth(int(asked["from"]), int(asked["to"])))

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.log.cosign(said["size"], said["line"])
        self._answer(self.status, b'{"detail": "This fabric does not know a witness of this name."}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    Portal.log, Portal.status = Fake(5), 201
    with HTTPServer(("127.0.0.1", 0), Portal) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


def run(server: str, tmp_path: Path, *more: str) -> Result:
    if not (tmp_path / "key").exists():
        write_witness(tmp_path / "key", WITNESS)
    words = ["audit", "witness", server, "--key", str(tmp_path / "key"), "--kept", str(tmp_path / "kept.json"), *more]
    return CliRunner().invoke(main, words)


def test_a_witness_looks_cosigns_and_finds_a_fork(server: str, tmp_path: Path) -> None:
    assert "--log" in run(server, tmp_path).output
    first = run(server, tmp_path, "--log", str(KEY))
    assert (first.exit_code, size_in(tmp_path / "kept.json")) == (0, 5), first.output
    Portal.log = Fake(9)
    assert run(server, tmp_path).exit_code == 0
    ((_, line),) = Portal.log.cosigned
    assert verify_cosignature(parse_note(Portal.log.checkpoint()).untrusted_text, parse_signature(line), WITNESS.key)
    Portal.log = Fake(12, past=b"other")
    forked = run(server, tmp_path)
    assert (forked.exit_code, Portal.log.cosigned) == (1, [])
    assert "Nothing was cosigned" in forked.output
    assert (size_in(tmp_path / "kept.json"), size_in(tmp_path / "kept.json.fork")) == (9, 12)


@pytest.mark.parametrize(("status", "word"), [(403, "does not know a witness"), (503, "503"), (302, "302")])
def test_a_fabric_that_takes_no_cosignature_is_named(status: int, word: str, server: str, tmp_path: Path) -> None:
    Portal.status = status
    result = run(server, tmp_path, "--log", str(KEY))
    assert result.exit_code == 1
    assert word in result.output


def test_a_witness_asks_by_tls_and_nobody_by_accident(tmp_path: Path) -> None:
    for server in ("http://portal.example", "ftp://portal.example", "portal.example"):
        with pytest.raises(AgentError):
            RemoteLog(server)


def test_a_key_is_made_and_said_as_others_know_it(tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["audit", "witness-key", WITNESS.name, str(tmp_path / "key")])
    assert made.exit_code == 0
    assert parse_vkey(made.output.strip()) == read_witness(tmp_path / "key").key
    assert CliRunner().invoke(main, ["audit", "witness-key", WITNESS.name, str(tmp_path / "key")]).exit_code == 1
