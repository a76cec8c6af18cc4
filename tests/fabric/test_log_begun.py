"""An export of a log that took the place of another, verified by those who followed the first one."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from pytest_django import DjangoDbBlocker

from cli.kept import Kept, read_kept, write_kept
from cli.main import main
from fabric.exports import export
from ledger import service as ledger
from ledger.core.beginning import BEGUN_ANEW
from ledger.core.checkpoint import Checkpoint, sign_checkpoint
from ledger.core.export import seal_line
from ledger.core.leaf import canonical_json, entry_hash
from ledger.core.note import VerifierKey, parse_note
from ledger.log_key import LogSigner, forget, log_signer
from ledger.models import LogKey
from tests.ledger.test_api import WITNESS_KEY

pytestmark = pytest.mark.django_db
OWNER = "a" * 64
REASON = "The database was restored from the backup of Tuesday."
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
Browse = Callable[[User | None], Client]
Verify = Callable[..., Result]


def acts(count: int) -> str:
    """Record acts that concern the owner, and return the checkpoint that has them."""
    with transaction.atomic():
        for number in range(count):
            detail = {"owner": OWNER, "n": number}
            ledger.record(actor="user:ada", act="machine.added", subject="machine:1", detail=detail, now=NOW)
    made = ledger.sequence_all(now=NOW)
    assert made is not None
    return made.note


def begin(seen: str | None) -> str:
    return str(ledger.begin_log(seen=seen, by="user:ada", reason=REASON, now=NOW).key)


@dataclass(frozen=True)
class Made:
    """What a fabric has exported before and after its log began anew, and what others had kept of the first log."""

    first: VerifierKey
    second: str
    early: str  # checkpoints of the first log: of entries that are left,
    left: str  # of all that are left,
    late: str  # and of some that are gone
    whole: bytes
    mine: bytes  # from the early checkpoint on
    signer: LogSigner

    def sealed(self, lines: list[bytes]) -> bytes:
        content = b"".join(lines)
        return content + seal_line(self.signer.origin, hashlib.sha256(content).digest(), self.signer.private)


@pytest.fixture(scope="module")
def made(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Made]:
    with django_db_blocker.unblock(), transaction.atomic():
        forget()
        yield _made()
        transaction.set_rollback(True)
    forget()


def _made() -> Made:
    early = acts(2)
    first = ledger.log_verifier()
    assert first is not None
    left = acts(3)
    with transaction.atomic():
        late = acts(4)
        transaction.set_rollback(True)
    second = begin(late)
    acts(2)
    whole = b"".join(export(owners=None, since=0, now=NOW))
    mine = b"".join(export(owners={OWNER}, since=size_of(early), now=NOW))
    return Made(first, second, early, left, late, whole, mine, log_signer(now=NOW))


def size_of(note: str) -> int:
    return int(parse_note(note).untrusted_text.split("\n")[1])


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "kept.json"


@pytest.fixture
def verify(made: Made, kept: Path, tmp_path: Path) -> Verify:
    """Run `guardhouse audit verify` as somebody who follows the first log, and has kept this checkpoint of it."""

    def run(content: bytes, *more: str, note: str) -> Result:
        (tmp_path / "export.jsonl").write_bytes(content)
        write_kept(kept, Kept(made.first, note))
        return CliRunner().invoke(main, ["audit", "verify", str(tmp_path / "export.jsonl"), "--kept", str(kept), *more])

    return run


def accepting(made: Made) -> list[str]:
    return ["--log", made.second, "--accept-new-log"]


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert "Everything holds" not in result.output
    assert all(word in result.output for word in words), result.output
    assert isinstance(result.exception, SystemExit), result.exception


# --- an export across the break ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["whole", "mine"])
def test_nobody_is_led_to_the_new_log_and_everybody_is_told_of_it(
    scope: str, made: Made, verify: Verify, kept: Path
) -> None:
    before = kept.exists()
    result = verify(getattr(made, scope), note=made.late)
    refused(result, made.first.name, REASON, "entries are gone", "--accept-new-log", "by another way")
    assert not before
    assert read_kept(kept) == Kept(made.first, made.late)


@pytest.mark.parametrize("scope", ["whole", "mine"])
def test_who_accepts_it_sees_that_what_they_had_seen_is_still_there(
    scope: str, made: Made, verify: Verify, kept: Path
) -> None:
    result = verify(getattr(made, scope), *accepting(made), note=made.early)
    assert result.exit_code == 0, result.output
    assert "Everything holds" in result.output
    assert REASON in result.output
    assert "You had kept" not in result.output
    found = read_kept(kept)
    assert found is not None
    assert str(found.key) == made.second
    assert [(each.key, each.note) for each in found.ended] == [(made.first, made.early)]
    again = CliRunner().invoke(
        main, ["audit", "verify", str(kept.with_name("export.jsonl")), "--kept", str(kept)]
    )  # from then on as any other log
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize("scope", ["whole", "mine"])
def test_who_had_seen_more_is_told_how_much_is_gone_and_keeps_the_proof(
    scope: str, made: Made, verify: Verify, kept: Path
) -> None:
    gone = size_of(made.late) - size_of(made.left)
    result = verify(getattr(made, scope), *accepting(made), note=made.late)
    assert result.exit_code == 0, result.output
    assert f"{gone} of them are not in this log" in result.output
    found = read_kept(kept)
    assert found is not None
    assert found.ended[0].note == made.late


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--accept-new-log"], "with --log"),
        (["--log", "FIRST", "--accept-new-log"], "not a new log"),
        (["--log", "SECOND"], "--accept-new-log"),
        (["--log", "OTHER", "--accept-new-log"], "key of a witness"),
        (["--log", "THIRD", "--accept-new-log"], "nothing in it says"),
        (["--log", "x", "--accept-new-log"], "verifier key"),
    ],
)
def test_a_person_says_both_that_they_go_over_and_where_to(
    words: list[str], said: str, made: Made, verify: Verify, kept: Path
) -> None:
    third = str(log_key_of(7).verifier)
    keys = {"FIRST": str(made.first), "SECOND": made.second, "OTHER": str(WITNESS_KEY), "THIRD": third}
    refused(verify(made.whole, *[keys.get(word, word) for word in words], note=made.early), said)
    assert read_kept(kept) == Kept(made.first, made.early)


def test_who_has_gone_over_does_not_go_back(made: Made, verify: Verify, kept: Path) -> None:
    assert verify(made.whole, *accepting(made), note=made.early).exit_code == 0
    words = ["audit", "verify", str(kept.with_name("export.jsonl")), "--kept", str(kept)]
    refused(CliRunner().invoke(main, [*words, "--log", str(made.first), "--accept-new-log"]), "not a new log")


@pytest.mark.parametrize("scope", ["whole", "mine"])
def test_a_new_log_that_hides_that_it_is_one_is_found(scope: str, made: Made, verify: Verify) -> None:
    lines = [line for line in getattr(made, scope).splitlines(keepends=True)[:-1] if BEGUN_ANEW.encode() not in line]
    refused(verify(made.sealed(lines), *accepting(made), note=made.early), "no entry here says")


@pytest.mark.parametrize("scope", ["whole", "mine"])
def test_what_the_fabrics_own_people_change_in_a_beginning_is_found(scope: str, made: Made, verify: Verify) -> None:
    lines = getattr(made, scope).splitlines(keepends=True)[:-1]
    place = next(number for number, line in enumerate(lines) if BEGUN_ANEW.encode() in line)
    other = log_key_of(7)
    forged = str(sign_checkpoint(Checkpoint(other.origin, 3, bytes(32)), other.private))
    for member, value in (("reason", "nothing was lost"), ("seen", None), ("left", forged), ("before", "x")):
        said = json.loads(lines[place])
        said["entry"]["detail"][member] = value
        said["hash"] = entry_hash(canonical_json(said["entry"])).hex()
        changed = b'{"entry":' + canonical_json(said.pop("entry")) + b"," + json.dumps(said).encode()[1:] + b"\n"
        content = made.sealed([*lines[:place], changed, *lines[place + 1 :]])
        refused(verify(content, *accepting(made), note=made.early), "does not hold")


def log_key_of(number: int) -> LogSigner:
    from ledger.log_key import _new

    return _new(number, NOW)[0]


@pytest.mark.parametrize("scope", ["whole", "mine"])
def test_a_new_log_with_another_past_is_found_by_whoever_kept_some_of_it(
    scope: str, made: Made, verify: Verify
) -> None:
    """The fabric's people have the first log's key as well, and what they left out they say nothing of."""
    rows = LogKey.objects.order_by("number")
    first = _signer_of(rows[0])
    text = Checkpoint(made.first.name, size_of(made.early), b"\1" * 32)
    refused(
        verify(getattr(made, scope), *accepting(made), note=str(sign_checkpoint(text, first))), "does not go on from"
    )


def _signer_of(row: LogKey) -> Ed25519PrivateKey:
    from ledger.custody import custody
    from ledger.log_key import _unseal

    return Ed25519PrivateKey.from_private_bytes(_unseal(bytes(row.sealed), row.origin, custody()))


def test_an_owners_export_has_to_show_how_the_new_log_goes_on_from_the_first(made: Made, verify: Verify) -> None:
    mine = b"".join(export(owners={OWNER}, since=0, now=NOW))
    refused(verify(mine, *accepting(made), note=made.early), f"since={size_of(made.early)}")
