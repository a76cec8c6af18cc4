"""What pages and the console say of a log that took the place of another, and who may begin one."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import Client

from cli.kept import Kept, write_kept
from fabric.exports import export
from fabric.models import Tenant
from ledger import service as ledger
from ledger.core.note import VerifierKey, parse_note, parse_vkey, sign_cosignature
from ledger.models import LogKey
from tests.ledger.test_api import WITNESS, WITNESS_KEY

pytestmark = pytest.mark.django_db
REASON = "The database was restored from the backup of Tuesday."
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
Browse = Callable[[User | None], Client]


def acts(count: int) -> str:
    """Record so many acts, and return the checkpoint that has them."""
    with transaction.atomic():
        for number in range(count):
            ledger.record(actor="user:ada", act="machine.added", subject="machine:1", detail={"n": number}, now=NOW)
    made = ledger.sequence_all(now=NOW)
    assert made is not None
    return made.note


def lost(count: int) -> str:
    """Return the checkpoint of acts that a restored database does not have."""
    with transaction.atomic():
        note = acts(count)
        transaction.set_rollback(True)
    return note


def begin(seen: str | None) -> str:
    return str(ledger.begin_log(seen=seen, by="user:ada", reason=REASON, now=NOW).key)


def size_of(note: str) -> int:
    return int(parse_note(note).untrusted_text.split("\n")[1])


def test_a_witness_of_the_first_log_has_cosigned_nothing_of_the_new_one() -> None:
    ledger.add_witness(str(WITNESS_KEY), by="system", now=NOW)
    note = acts(2)
    text = parse_note(note).untrusted_text
    ledger.cosign(size_of(note), str(sign_cosignature(text, WITNESS_KEY.name, WITNESS, at=1)), now=NOW)
    begin(None)
    head, *_ = export(owners=None, since=0, now=NOW)
    assert json.loads(head)["witnessed"] == []


def told(client: Client, path: str) -> str:
    return " ".join(unescape(client.get(path).content.decode()).split())


def test_the_pages_of_the_log_say_what_happened_why_it_matters_and_what_to_do(
    tenant: Tenant, owner: User, auditor: User, browse: Browse
) -> None:
    acts(2)
    assert "--accept-new-log" not in told(browse(auditor), "/audit/")
    before = ledger.log_verifier()
    assert before is not None
    late = lost(3)
    key = parse_vkey(begin(late))
    for person, path in ((auditor, "/audit/"), (owner, f"/tenants/{tenant.slug}/log/")):
        page = told(browse(person), path)
        assert f"The log {key.name} took the place of {before.name}" in page
        assert "entries are gone" in page
        assert REASON in page
        assert "--accept-new-log" in page
    answer = browse(None).get("/ledger/v1/log").json()
    assert (answer["vkey"], answer["before"]) == (str(key), [str(before)])


def test_the_console_ends_a_log_by_a_person_who_may(
    admin: User, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acts(2)
    late = lost(3)
    write_kept(tmp_path / "kept.json", Kept(_verifier(), late))
    (tmp_path / "note").write_text(late)
    words = ["--by", admin.username, "--reason", REASON]
    call_command("log", "begin", "--seen", tmp_path / "kept.json", *words)
    said = capsys.readouterr().out
    assert str(_verifier()) in said
    assert "entries that it had signed are gone" in said
    with pytest.raises(CommandError, match="note_signature"):  # it is of the log before by now
        call_command("log", "begin", "--seen", tmp_path / "note", *words)
    call_command("log", "list")
    assert capsys.readouterr().out.count(str(_verifier())) == 1


def _verifier() -> VerifierKey:
    found = ledger.log_verifier()
    assert found is not None
    return found


def test_the_console_ends_no_log_for_anybody_else(auditor: User, owner: User, admin: User, tmp_path: Path) -> None:
    note = acts(2)
    keys = LogKey.objects.count()
    for name in (auditor.username, owner.username, "nobody-there"):
        with pytest.raises(CommandError):
            call_command("log", "begin", "--by", name, "--reason", REASON)
    (tmp_path / "goes on").write_text(note)
    (tmp_path / "noise").write_text("{")
    (tmp_path / "none").write_text('{"checkpoint": 7}')
    for file in ("goes on", "noise", "none", "missing"):
        with pytest.raises(CommandError):
            call_command("log", "begin", "--by", admin.username, "--reason", REASON, "--seen", tmp_path / file)
    with pytest.raises(CommandError):
        call_command("log", "begin", "--by", admin.username, "--reason", " ")
    assert LogKey.objects.count() == keys
