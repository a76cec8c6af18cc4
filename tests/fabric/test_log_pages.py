"""Entries of the log for people: with their proofs, to those whom they concern, and to nobody else."""

from collections.abc import Callable
from datetime import UTC, datetime
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from fabric.models import Tenant
from ledger import service as ledger
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
