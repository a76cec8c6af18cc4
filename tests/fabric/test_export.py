"""An export of a real fabric, verified by somebody who trusts nothing of it; and changed in every way, to be found."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from django.db import connection, transaction
from pytest_django import DjangoDbBlocker

from attestation import service as attestation
from attestation.models import Attestation, Blob
from cli.kept import Kept, read_kept, write_kept
from cli.main import main
from fabric.exports import export
from kps import service as kps
from kps.core.guardian import parse_metadata
from kps.core.protector import create_protector
from ledger import service as ledger
from ledger.core.checkpoint import Checkpoint, Receipt, sign_checkpoint, sign_receipt
from ledger.core.export import parse_entry, seal_line
from ledger.core.leaf import canonical_json, entry_hash
from ledger.core.note import Kind, VerifierKey, parse_note, sign_cosignature, verifier_key
from ledger.core.tree import GrowingTree
from ledger.errors import LogDamaged
from ledger.log_key import forget, log_signer
from tests.attestation.conftest import Portal, approve_baseline, approve_host, person
from tests.kps.conftest import holding
from tests.kps.parties import ID, KEY, OWNER, OWNERS, STRANGER, STRANGERS
from tests.machines import Machine
from tests.tpm_lab import Maker

pytestmark = pytest.mark.django_db
WITNESS = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WITNESS_KEY = verifier_key("witness.example/1", Kind.COSIGNATURE, WITNESS)
Lines = list[bytes]
Verify = Callable[..., Result]


@dataclass(frozen=True)
class Made:
    """What a fabric has exported, and the key that it signs with: a test may sign what it has changed."""

    whole: bytes
    mine: bytes
    middle: str  # the note of a checkpoint in between, which a person has kept
    receipts: tuple[str, str]  # of the owner's release, and of the stranger's
    origin: str
    private: Ed25519PrivateKey

    @property
    def key(self) -> VerifierKey:
        return verifier_key(self.origin, Kind.ED25519, self.private)

    def sealed(self, lines: Sequence[bytes]) -> bytes:
        """Seal lines as the fabric's own people could who have changed them."""
        content = b"".join(lines)
        return content + seal_line(self.origin, hashlib.sha256(content).digest(), self.private)

    @contextmanager
    def database(self) -> Iterator[None]:
        """Let a test change the fabric's database, past everything that forbids it, and have it back afterwards."""
        with transaction.atomic():
            if connection.vendor == "postgresql":
                run_sql("SET LOCAL session_replication_role = replica")
            else:
                for (name,) in run_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
                    run_sql(f"DROP TRIGGER {name}")
            yield
            transaction.set_rollback(True)


def now() -> datetime:
    return datetime.now(UTC)


def run_sql(statement: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


@pytest.fixture(scope="module")
def made(
    maker: Maker, healthy: Machine, drifted: Machine, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[Made]:
    """A fabric with a host that passes and one that does not, releases to two owners, and a witness; made once."""
    with django_db_blocker.unblock(), transaction.atomic():
        forget()
        yield _made(maker, healthy, drifted)
        transaction.set_rollback(True)
    forget()


def _made(maker: Maker, healthy: Machine, drifted: Machine) -> Made:
    for authority in maker.authorities():
        pem = authority.public_bytes(Encoding.PEM)
        attestation.trust_authority(pem, provenance="the lab", by="system", now=now())
    admin, approver = person("ada", "propose", "decide", "revoke"), person("ben", "propose", "decide")
    portal = Portal()
    approve_host(portal, healthy, admin, approver)
    approve_baseline(portal, healthy, admin, approver)
    host = holding(portal, healthy)
    fabric = parse_metadata(kps.metadata(now=now()))
    of_owner, of_stranger = (
        create_protector(keys, [fabric], protector_id=ID, level="shielded", key=KEY, now=now())
        for keys in (OWNER, STRANGER)
    )
    ledger.add_witness(str(WITNESS_KEY), by="system", now=now())
    receipts = [host.starts(of_owner)["receipt"]]
    middle = ledger.sequence_all(now=now())
    assert middle is not None
    line = sign_cosignature(
        parse_note(middle.note).untrusted_text, WITNESS_KEY.name, WITNESS, at=int(now().timestamp())
    )
    ledger.cosign(middle.size, str(line), now=now())
    approve_host(portal, drifted, admin, approver)
    portal.attest(drifted)
    receipts.append(host.starts(of_stranger)["receipt"])
    assert host.posts(host.asks(of_owner, at=1)).status_code != 200
    ledger.sequence_all(now=now())
    signer = log_signer(now=now())
    whole = b"".join(export(owners=None, since=0, now=now()))
    mine = b"".join(export(owners={OWNERS}, since=middle.size, now=now()))
    return Made(whole, mine, middle.note, (receipts[0], receipts[1]), signer.origin, signer.private)


@pytest.fixture
def verify(made: Made, tmp_path: Path) -> Verify:
    """Run `guardhouse audit verify` on an export, as somebody who has kept a checkpoint, or looks the first time."""

    def run(content: bytes, *more: str, kept: str = "", witnesses: tuple[VerifierKey, ...] = ()) -> Result:
        file = tmp_path / "export.jsonl"
        file.write_bytes(content)
        write_kept(tmp_path / "kept.json", Kept(made.key, kept, witnesses))
        words = ["audit", "verify", str(file), "--kept", str(tmp_path / "kept.json"), *more]
        return CliRunner().invoke(main, words)

    return run


def lines_of(content: bytes) -> Lines:
    """The lines of an export without its seal."""
    return content.splitlines(keepends=True)[:-1]


def entries_in(lines: Lines) -> list[int]:
    return [number for number, line in enumerate(lines) if line.startswith(b'{"entry":')]


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert "Everything holds" not in result.output
    assert all(word in result.output for word in words), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception


# --- what holds --------------------------------------------------------------------------------------------------


def test_everything_holds_of_a_whole_log(made: Made, verify: Verify, tmp_path: Path) -> None:
    result = verify(made.whole, kept=made.middle, witnesses=(WITNESS_KEY,))
    assert result.exit_code == 0, result.output
    assert "Everything holds" in result.output
    assert "key.released: 2" in result.output
    assert f"{WITNESS_KEY.name} has cosigned the first" in result.output
    kept = read_kept(tmp_path / "kept.json")
    assert kept is not None
    assert kept.checkpoint is not None
    assert kept.checkpoint.size == len(entries_in(lines_of(made.whole)))


def test_an_owner_is_shown_its_own_entries_and_that_there_are_no_others(made: Made, verify: Verify) -> None:
    result = verify(made.mine, kept=made.middle, witnesses=(WITNESS_KEY,))
    assert result.exit_code == 0, result.output
    assert "key.released: 1" in result.output
    assert "key.refused: 1" in result.output
    assert STRANGERS not in made.mine.decode()
    for number in entries_in(lines_of(made.mine))[:-1]:
        assert parse_entry(lines_of(made.mine)[number]).said["detail"]["owner"] == OWNERS


def test_every_release_is_judged_again_by_evidence_that_is_in_the_file(made: Made, verify: Verify) -> None:
    assert "1 verdicts were come to again" in verify(made.mine, kept=made.middle).output
    assert "3 verdicts were come to again" in verify(made.whole).output


def test_the_first_look_needs_the_logs_key_from_somewhere_else(made: Made, tmp_path: Path) -> None:
    file, kept = tmp_path / "export.jsonl", tmp_path / "kept.json"
    file.write_bytes(made.whole)
    words = ["audit", "verify", str(file), "--kept", str(kept)]
    refused(CliRunner().invoke(main, words), "--log")
    assert not kept.exists()
    other = verifier_key(made.origin, Kind.ED25519, WITNESS)
    refused(CliRunner().invoke(main, [*words, "--log", str(other)]), "another log")
    assert not kept.exists()
    assert CliRunner().invoke(main, [*words, "--log", str(made.key)]).exit_code == 0
    refused(CliRunner().invoke(main, [*words, "--log", str(other)]), "about another log")


def receipted(tmp_path: Path, note: str) -> tuple[str, str]:
    (tmp_path / "receipt").write_text(note)
    return "--receipt", str(tmp_path / "receipt")


def test_a_receipt_has_its_entry(made: Made, verify: Verify, tmp_path: Path) -> None:
    of_owner, of_stranger = made.receipts
    for content, receipt in [(made.mine, of_owner), (made.whole, of_owner), (made.whole, of_stranger)]:
        result = verify(content, *receipted(tmp_path, receipt), kept=made.middle)
        assert result.exit_code == 0, result.output
        assert "1 receipts have their entries." in result.output


def test_a_promise_that_was_not_kept_is_found(made: Made, verify: Verify, tmp_path: Path) -> None:
    early, late = (Receipt(made.origin, bytes(32), due) for due in (1_795_000_000 - 10**6, 2**33))
    broken = str(sign_receipt(early, made.private))
    refused(verify(made.whole, *receipted(tmp_path, broken)), "has not kept its word")
    refused(verify(made.whole, *receipted(tmp_path, str(sign_receipt(late, made.private)))), "not due yet")
    refused(verify(made.mine, *receipted(tmp_path, made.receipts[1]), kept=made.middle), "No entry of this export")
    for nothing in (str(sign_receipt(early, WITNESS)), made.middle, "", "x" * 200_000):
        refused(verify(made.whole, *receipted(tmp_path, nothing)))


# --- what does not -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.77, 0.999])
def test_a_byte_that_changed_on_the_way_breaks_the_seal(place: float, made: Made, verify: Verify) -> None:
    content = bytearray(made.mine)
    content[int(place * (len(content) - 1))] ^= 1
    refused(verify(bytes(content), kept=made.middle))


def test_a_file_that_breaks_off_is_not_whole(made: Made, verify: Verify) -> None:
    lines = made.mine.splitlines(keepends=True)
    refused(verify(b"".join(lines[:-1]), kept=made.middle), "ends before its seal")
    refused(verify(made.mine[:-10], kept=made.middle))
    refused(verify(made.mine + lines[1], kept=made.middle), "behind the seal")
    refused(verify(b""), "empty")


@pytest.mark.parametrize("place", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("scope", ["whole", "mine"])
def test_whatever_the_fabrics_own_people_change_in_a_line_is_found(
    scope: str, place: float, made: Made, verify: Verify
) -> None:
    """One byte of every line but the first, with a seal by the log's true key over it."""
    lines = lines_of(getattr(made, scope))
    for number in range(1, len(lines)):
        line = bytearray(lines[number])
        line[int(place * (len(line) - 2))] ^= 1
        changed = made.sealed([*lines[:number], bytes(line), *lines[number + 1 :]])
        result = verify(changed, kept=made.middle)
        assert result.exit_code == 1, (number, bytes(line)[:200], result.output)


@pytest.mark.parametrize("scope", ["whole", "mine"])
def test_an_entry_that_is_left_out_is_missed(scope: str, made: Made, verify: Verify) -> None:
    lines = lines_of(getattr(made, scope))
    for number in entries_in(lines):
        refused(verify(made.sealed([*lines[:number], *lines[number + 1 :]]), kept=made.middle))


@pytest.mark.parametrize("scope", ["whole", "mine"])
def test_entries_in_another_order_are_found(scope: str, made: Made, verify: Verify) -> None:
    lines = lines_of(getattr(made, scope))
    first, second = entries_in(lines)[:2]
    lines[first], lines[second] = lines[second], lines[first]
    refused(verify(made.sealed(lines), kept=made.middle))


@pytest.mark.parametrize("scope", ["whole", "mine"])
def test_an_entry_that_comes_twice_is_found(scope: str, made: Made, verify: Verify) -> None:
    lines = lines_of(getattr(made, scope))
    first = entries_in(lines)[0]
    refused(verify(made.sealed([*lines[: first + 1], *lines[first:]]), kept=made.middle))


def test_evidence_that_is_left_out_is_missed(made: Made, verify: Verify) -> None:
    lines = lines_of(made.mine)
    material = [number for number, line in enumerate(lines) if line.startswith(b'{"material":')]
    assert len(material) > 5
    for number in material:
        refused(verify(made.sealed([*lines[:number], *lines[number + 1 :]]), kept=made.middle), "is not in this export")


# --- forks -------------------------------------------------------------------------------------------------------


def forged(made: Made, change: Callable[[int, dict[str, Any]], object]) -> bytes:
    """The whole log written anew, with a history that its people like better, and signed with the log's true key."""
    lines, tree = lines_of(made.whole), GrowingTree()
    for number in entries_in(lines):
        entry = parse_entry(lines[number])
        change(entry.index, entry.said)
        content = canonical_json(entry.said)
        tree.add(entry_hash(content))
        lines[number] = b'{"entry":%b,"hash":"%b","index":%d}\n' % (
            content,
            entry_hash(content).hex().encode(),
            entry.index,
        )
    header = json.loads(lines[0])
    header["checkpoint"] = str(sign_checkpoint(Checkpoint(made.origin, tree.size, tree.head()), made.private))
    return made.sealed([json.dumps(header).replace('{"export": ', '{"export":').encode() + b"\n", *lines[1:]])


def test_a_history_that_was_written_anew_is_found_by_whoever_kept_a_checkpoint(made: Made, verify: Verify) -> None:
    def change(index: int, said: dict[str, Any]) -> None:
        if index == 0:
            said["actor"] = "user:nobody"

    again = forged(made, change)
    assert verify(again).exit_code == 0  # who has kept nothing, and knows no witness, cannot know
    refused(verify(again, kept=made.middle), "does not go on from the checkpoint that you kept")
    refused(verify(again, witnesses=(WITNESS_KEY,)), WITNESS_KEY.name)


def test_a_history_in_which_an_owner_is_counted_wrongly_is_found(made: Made, verify: Verify) -> None:
    def change(index: int, said: dict[str, Any]) -> None:
        if said["act"] == "ledger.counted":
            said["detail"]["root"] = "0" * 64

    refused(verify(forged(made, change)), "does not count the owners' entries")


@pytest.mark.parametrize(
    ("member", "value", "word"),
    [
        ("evidence", "0" * 64, "cannot be judged again"),
        ("evidence", "", "does not say what it rests on"),
        ("policy_sha256", "0" * 64, "policy"),
        ("policy", 7, "version"),
        ("certificate_sha256", "0" * 64, "cannot be judged again"),
        ("certificate", "1" * 32, "serial number"),
    ],
)
def test_a_log_that_names_other_grounds_for_a_release_is_found(
    member: str, value: object, word: str, made: Made, verify: Verify
) -> None:
    """The log is whole, and signed; and still it is not what the evidence says."""

    def change(index: int, said: dict[str, Any]) -> None:
        if said["act"] == "key.released":
            said["detail"][member] = value

    refused(verify(forged(made, change)), word)


def test_an_export_from_before_what_was_kept_is_no_news(made: Made, verify: Verify) -> None:
    with made.database():
        ledger.sequence_all(now=now())
        later = b"".join(export(owners=None, since=0, now=now()))
        newest = ledger.newest_checkpoint().note
        with transaction.atomic():
            ledger.record(actor="system", act="x.y", subject="x:1", detail={}, now=now())
        ledger.sequence_all(now=now())
        note = ledger.newest_checkpoint().note
    assert verify(later, kept=newest).exit_code == 0
    refused(verify(later, kept=note), "you kept a checkpoint of")


def test_an_owners_export_has_to_show_how_the_log_went_on(made: Made, verify: Verify) -> None:
    with made.database():
        mine = b"".join(export(owners={OWNERS}, since=0, now=now()))
    assert verify(mine).exit_code == 0
    refused(verify(mine, kept=made.middle), "since=")


def test_a_witness_that_has_seen_nothing_is_missed(made: Made, verify: Verify) -> None:
    other = verifier_key("other.example/1", Kind.COSIGNATURE, WITNESS)
    refused(verify(made.whole, "--witness", str(other)), "has cosigned nothing")


# --- the database ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("UPDATE ledger_leaf SET actor = 'user:eve' WHERE act = 'key.released'", "is not what was recorded"),
        (
            "UPDATE ledger_leaf SET at = '{then}' WHERE act = 'key.refused'",
            "is not what was recorded",
        ),
        ("UPDATE ledger_entry SET hash = '{zeros}' WHERE \"index\" = 3", "Entry 3"),
        ("UPDATE ledger_entry SET owner = '{zeros}' WHERE owner = '{owner}'", "Everything"),
        ("UPDATE ledger_ownercount SET start = head", "count the owners"),
        ("UPDATE attestation_attestation SET status = 'Passed', findings = '[]'", "cannot be judged again"),
        ("UPDATE attestation_attestation SET policy_version = policy_version + 1", "cannot be judged again"),
        ("UPDATE attestation_attestation SET duration_us = 0, restart_count = 0", "Everything"),
        ("UPDATE attestation_attestation SET at = '{then}'", "cannot be judged again"),
        ("UPDATE attestation_attestation SET pcrs = '{{}}'", "cannot be judged again"),
        ("UPDATE attestation_challenge SET nonce = (SELECT public FROM ledger_logkey)", "cannot be judged again"),
        ("UPDATE attestation_attester SET ak_public = ek_public", "cannot be judged again"),
        ("UPDATE attestation_policyversion SET document = '{{}}'", "cannot be judged again"),
        ("UPDATE attestation_baseline SET pcrs = '{{}}'", "cannot be judged again"),
        ("DELETE FROM attestation_baseline", "cannot be judged again"),
        (
            "UPDATE attestation_healthcertificate SET der = (SELECT public FROM ledger_logkey)",
            "cannot be judged again",
        ),
        ("DELETE FROM attestation_blob", "cannot be judged again"),
    ],
)
def test_whatever_is_changed_in_the_database_is_found(statement: str, word: str, made: Made, verify: Verify) -> None:
    with made.database():
        run_sql(statement.format(zeros="0" * 64, owner=OWNERS, then="2026-01-01 00:00:00+00:00"))
        content = b"".join(export(owners=None, since=0, now=now()))
    result = verify(content, kept=made.middle)
    if word == "Everything":  # nothing of what the log proves rests on it
        assert result.exit_code == 0, result.output
    else:
        refused(result, word)


def test_a_log_whose_rows_were_taken_out_of_the_database_says_so(made: Made) -> None:
    with made.database():
        run_sql('DELETE FROM ledger_entry WHERE "index" = 3')
        with pytest.raises(LogDamaged):
            export(owners={OWNERS}, since=5, now=now())


def test_a_blob_in_the_database_that_is_another_is_found(made: Made, verify: Verify) -> None:
    with made.database():
        digest = Attestation.objects.exclude(event_log=None).values_list("event_log_id", flat=True)[0]
        content = bytearray(Blob.objects.get(pk=digest).content)
        content[-1] ^= 1
        Blob.objects.filter(pk=digest).update(content=bytes(content))
        changed = b"".join(export(owners=None, since=0, now=now()))
    refused(verify(changed), "cannot be judged again")
