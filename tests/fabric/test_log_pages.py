"""Entries of the log for people: with their proofs, to those whom they concern, and to nobody else."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from html import unescape
from io import BytesIO
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.handlers.asgi import ASGIRequest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from fabric.exports import download
from fabric.models import Tenant
from ledger import service as ledger
from ledger.core.export import parse_entry
from ledger.core.note import parse_note, sign_cosignature
from tests.fabric.conftest import sequenced
from tests.ledger.test_api import WITNESS, WITNESS_KEY

pytestmark = pytest.mark.django_db
Browse = Callable[[User | None], Client]


def test_an_entry_is_shown_with_the_text_that_its_hash_is_over_and_its_proof(
    tenant: Tenant, owner: User, browse: Browse
) -> None:
    index = sequenced(tenant.owner_fingerprint)
    page = unescape(browse(owner).get(f"/audit/entries/{index}/").content.decode())
    found = ledger.entry(index, owners=None)
    assert ledger.entry_text(found.leaf) in page
    assert found.hash in page
    assert all(step in page for step in ledger.prove_leaf(bytes.fromhex(found.hash)).steps)
    assert "Intact" in page


@pytest.mark.parametrize("role", ["stranger_tenant", "nobody"])
def test_an_entry_is_not_there_for_whom_it_does_not_concern(
    role: str, tenant: Tenant, browse: Browse, request: pytest.FixtureRequest
) -> None:
    index = sequenced(tenant.owner_fingerprint)
    assert browse(request.getfixturevalue(role)).get(f"/audit/entries/{index}/").status_code == 404


def test_an_entry_of_the_fabric_alone_is_for_auditors(owner: User, auditor: User, browse: Browse) -> None:
    index = sequenced("")
    assert browse(owner).get(f"/audit/entries/{index}/").status_code == 404
    assert browse(auditor).get(f"/audit/entries/{index}/").status_code == 200


@pytest.mark.parametrize("index", ["99", "9" * 30])
def test_an_entry_that_the_log_does_not_have_is_not_found(index: str, auditor: User, browse: Browse) -> None:
    sequenced("")
    assert browse(auditor).get(f"/audit/entries/{index}/").status_code == 404


def test_an_entry_that_somebody_has_changed_past_the_service_is_called_altered(auditor: User, browse: Browse) -> None:
    index = sequenced("")
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ALTER TABLE ledger_leaf DISABLE TRIGGER ledger_leaf_append_only")
        else:
            cursor.execute("DROP TRIGGER ledger_leaf_no_update")
        cursor.execute("UPDATE ledger_leaf SET actor = 'user:eve' WHERE act = 'key.released'")
    assert "This is not what was recorded" in browse(auditor).get(f"/audit/entries/{index}/").content.decode()


def test_the_audit_page_shows_the_checkpoint_who_witnessed_it_and_where_each_entry_stands(
    auditor: User, browse: Browse
) -> None:
    index = sequenced("")
    ledger.add_witness(str(WITNESS_KEY), by="system", now=datetime.now(UTC))
    ledger.sequence_all(now=datetime.now(UTC))
    newest = ledger.newest_checkpoint()
    text = parse_note(newest.note).untrusted_text
    line = sign_cosignature(text, WITNESS_KEY.name, WITNESS, at=1_795_000_000)
    ledger.cosign(newest.size, str(line), now=datetime.fromtimestamp(1_795_000_000, UTC))
    page = browse(auditor).get("/audit/").content.decode()
    assert newest.head in page
    assert WITNESS_KEY.name in page
    assert f'href="/audit/entries/{index}/"' in page


def test_before_anything_is_sequenced_the_audit_page_says_so(auditor: User, browse: Browse) -> None:
    assert "The log has not begun." in browse(auditor).get("/audit/").content.decode()


# --- exports -----------------------------------------------------------------------------------------------------

MAY_TAKE = {"auditor": True, "owner": False, "operator": False, "stranger_tenant": False}


@pytest.mark.parametrize("role", sorted(MAY_TAKE))
def test_a_person_takes_away_what_it_may_see_and_nothing_else(
    role: str, tenant: Tenant, browse: Browse, request: pytest.FixtureRequest
) -> None:
    sequenced("")
    sequenced(tenant.owner_fingerprint)
    answer = browse(request.getfixturevalue(role)).get("/audit/export")
    assert answer.status_code == 200
    assert answer["Content-Disposition"].startswith("attachment")
    assert "no-store" in answer["Cache-Control"]
    lines = answer.getvalue().splitlines()
    owners = [parse_entry(line).said["detail"].get("owner") for line in lines if line.startswith(b'{"entry":')]
    mine = [owner for owner in owners if owner == tenant.owner_fingerprint]
    assert len(mine) == (0 if role == "stranger_tenant" else 1)
    assert (len(owners) > 3) == MAY_TAKE[role]  # an owner's has its own entries and the last one, which counts them


@pytest.mark.parametrize(("role", "status"), [("nobody", 403), (None, 302)])
def test_an_export_is_for_nobody_whom_no_entry_concerns(
    role: str | None, status: int, browse: Browse, request: pytest.FixtureRequest
) -> None:
    sequenced("")
    assert browse(request.getfixturevalue(role) if role else None).get("/audit/export").status_code == status


@pytest.mark.parametrize(("since", "status"), [("-1", 400), ("x", 400), ("²", 400), ("1" * 17, 400), ("9999", 404)])
def test_a_size_that_the_log_never_had_is_refused(since: str, status: int, auditor: User, browse: Browse) -> None:
    sequenced("")
    assert browse(auditor).get("/audit/export", {"since": since}).status_code == status


def test_before_anything_is_sequenced_there_is_nothing_to_export(auditor: User, browse: Browse) -> None:
    assert browse(auditor).get("/audit/export").status_code == 404


def test_an_export_is_written_by_the_console_too(tenant: Tenant, tmp_path: Path) -> None:
    sequenced(tenant.owner_fingerprint)
    whole, mine = tmp_path / "whole.jsonl", tmp_path / "mine.jsonl"
    call_command("export_log", whole)
    call_command("export_log", mine, "--owner", tenant.owner_fingerprint, "--since", 2)
    assert whole.read_bytes().count(b'{"entry":') > mine.read_bytes().count(b'{"entry":') == 2
    assert whole.stat().st_mode & 0o077 == 0
    with pytest.raises(CommandError, match="is there already"):
        call_command("export_log", whole)
    for words in (["--owner", "x"], ["--since", "9999"]):
        with pytest.raises(CommandError):
            call_command("export_log", tmp_path / "other.jsonl", *words)
    assert not (tmp_path / "other.jsonl").exists()


def test_a_served_export_comes_piece_by_piece() -> None:
    """Where a portal is served by ASGI, each piece is made when the one before is on its way."""
    made: list[int] = []

    def lines() -> Iterator[bytes]:
        for number in range(3):
            made.append(number)
            yield bytes(1 << 17)

    async def read() -> list[int]:
        scope = {"type": "http", "method": "GET", "path": "/audit/export", "headers": []}
        pieces = aiter(download(ASGIRequest(scope, BytesIO()), lines(), now=datetime.now(UTC)))
        first = len(await anext(pieces))
        assert made == [0]
        return [first, *[len(piece) async for piece in pieces]]

    assert async_to_sync(read)() == [1 << 17, 1 << 17, 1 << 17, 0]
