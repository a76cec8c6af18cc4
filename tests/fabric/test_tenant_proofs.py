"""What a tenant checks for itself: the guardian, the log about it, and evidence that hosts had shown for its keys."""

from collections.abc import Callable
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from django.utils import timezone

from fabric.models import Tenant, VirtualMachine
from kps import service as kps
from kps.core.chain import subject_of
from kps.core.guardian import verify_metadata
from ledger import service as ledger
from tests.fabric.conftest import asks, known
from tests.kps.parties import OTHER_ID, OWNERS, SUBJECT, protector

pytestmark = pytest.mark.django_db
Browse = Callable[[User | None], Client]
LOG = "/tenants/brandt/log/"


def shown(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, answer.status_code
    return unescape(answer.content.decode())


def test_the_guardian_is_shown_in_groups_to_read_aloud(owner: User, browse: Browse) -> None:
    fingerprint = kps.guardian_fingerprint(now=timezone.now())
    page = shown(browse(owner), "/guardian/")
    assert " ".join(fingerprint[at : at + 4] for at in range(0, 16, 4)) in page
    assert fingerprint in page


def test_the_guardians_file_is_what_it_signs_itself(owner: User, browse: Browse) -> None:
    answer = browse(owner).get("/guardian/file/")
    metadata = verify_metadata(answer.content.decode().strip())
    assert metadata.guardian.fingerprint == kps.guardian_fingerprint(now=timezone.now())
    assert ".guardian" in answer["Content-Disposition"]


def test_a_tenant_sees_evidence_behind_its_own_keys_only(
    tenant: Tenant, machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    asks(known(protector(), by=owner), attestation_id=7)
    for attestation_id in (6, 7, 10**30):  # the seventh is named by a release, and is not there
        assert browse(owner).get(f"/tenants/brandt/evidence/{attestation_id}/").status_code == 404


# --- the log -----------------------------------------------------------------------------------------------------


def wrote(act: str, *, owner: str = OWNERS, subject: str = SUBJECT, days_ago: int = 0) -> None:
    at = timezone.now() - timedelta(days=days_ago)
    with transaction.atomic():
        detail = {"owner": owner, "vm": f"vm-of-{act}", "host": "nbg-a07", "why": "so", "reason": f"why {act}"}
        ledger.record(actor="user:tim", act=act, subject=subject, detail=detail, now=at)


@pytest.fixture
def log(machine: VirtualMachine, other_tenant: Tenant) -> None:
    """A log that has acts about two tenants."""
    wrote("key.released")
    wrote("key.refused", days_ago=3)
    wrote("approval.declined", subject=subject_of(OWNERS, OTHER_ID))
    wrote("key.returned", owner=other_tenant.owner_fingerprint, subject="protector:of another")
    ledger.sequence_all(now=timezone.now())


def acts(client: Client, query: str = "") -> set[str]:
    page = shown(client, f"{LOG}?{query}")
    every = ("key.released", "key.refused", "approval.declined", "key.returned")
    return {act for act in every if f'class="why">{act}<' in page}


ALL = {"key.released", "key.refused", "approval.declined"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ALL),
        ("kind=key.", {"key.released", "key.refused"}),
        ("kind=approval.", {"approval.declined"}),
        ("outcome=refused", {"key.refused", "approval.declined"}),
        ("outcome=done", {"key.released"}),
        ("kind=host.", ALL),  # what is not offered asks for nothing
        ("outcome=x&machine=x&since=x&until=0001-01-01", ALL),
        ("kind=%00&machine=%00", ALL),
    ],
)
def test_the_log_is_narrowed_by_act_and_outcome(
    query: str, expected: set[str], log: None, owner: User, browse: Browse
) -> None:
    assert acts(browse(owner), query) == expected


def test_the_log_is_narrowed_by_vm_and_time(log: None, machine: VirtualMachine, owner: User, browse: Browse) -> None:
    client, today = browse(owner), timezone.localdate()
    assert acts(client, f"machine={machine.pk}") == {"key.released", "key.refused"}
    assert acts(client, f"since={today}") == {"key.released", "approval.declined"}
    assert acts(client, f"until={today - timedelta(days=2)}") == {"key.refused"}
    assert acts(client, f"since={today - timedelta(days=2)}&until={today - timedelta(days=1)}") == set()


def test_a_vm_of_another_tenant_narrows_nothing(log: None, other_tenant: Tenant, owner: User, browse: Browse) -> None:
    other = VirtualMachine.objects.create(
        tenant=other_tenant, name="web", protector_id=OTHER_ID, level="shielded", added_at=timezone.now()
    )
    assert acts(browse(owner), f"machine={other.pk}") == ALL
    assert "web" not in shown(browse(owner), LOG).partition("<select")[2].partition("</select>")[0]


def test_each_row_leads_to_its_proof(log: None, owner: User, browse: Browse) -> None:
    client = browse(owner)
    (entry, *_) = ledger.entries(owners=[OWNERS])
    assert f"/audit/entries/{entry.index}/" in shown(client, LOG)
    assert client.get(f"/audit/entries/{entry.index}/").status_code == 200
    assert "Intact" in shown(client, LOG)
