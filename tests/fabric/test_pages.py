"""What the pages say about hosts in every state."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from attestation import service
from fabric.models import Host
from ledger import service as ledger
from tests.attestation.conftest import Portal
from tests.fabric.conftest import newest
from tests.machines import Machine

Browse = Callable[[User | None], Client]


@pytest.fixture
def read(browse: Browse, auditor: User) -> Callable[..., str]:
    """Return what a page shows to an auditor."""
    client = browse(auditor)

    def text(address: str, **headers: str) -> str:
        answer = client.get(address, headers=headers)
        assert answer.status_code == 200, address
        return " ".join(answer.content.decode().split())

    return text


def test_an_enrolled_host_is_in_the_inventory_at_once(portal: Portal, healthy: Machine) -> None:
    portal.enrol(healthy)
    assert Host.objects.get(attester_id=healthy.attester).name == healthy.name


def test_the_fleet_counts_every_host_and_names_the_cause(fleet: Portal, read: Callable[..., str]) -> None:
    page = read("/fleet/")
    for status, count in (("Passed", 1), ("InsecureHostConfiguration", 1), ("pending", 1), ("Expired", 0)):
        tile = page.partition(f"?status={status}")[2].partition("</a>")[0]
        assert f'<span class="big">{count}</span>' in tile
    assert "drift=1" in page
    assert "This service keeps its keys in a plain file." in page


def test_an_empty_fabric_says_what_fills_it(db: None, read: Callable[..., str]) -> None:
    assert "guardhouse host enrol" in read("/fleet/")
    trust = ("/baselines/", "/runtime/", "/codepolicies/", "/proposals/")
    for address in ("/hosts/", "/releases/", "/machines/", "/tenants/", "/attestations/", *trust):
        assert 'class="empty"' in read(address)


def test_a_passing_host_shows_its_certificate(fleet: Portal, healthy: Machine, read: Callable[..., str]) -> None:
    page = read(f"/hosts/{healthy.attester}/")
    assert "keys may be released to it" in page
    assert "7 h 59 min left" in page
    assert "Chain verified" in page


def test_a_drifted_host_shows_the_changed_event(fleet: Portal, drifted: Machine, read: Callable[..., str]) -> None:
    page = read(f"/hosts/{drifted.attester}/")
    assert "<ins>drift=1</ins>" in page
    assert "Kernel command line" in page
    assert "No key" not in page
    assert "Without a certificate this host gets no key." in page


def test_a_waiting_host_says_what_is_missing(fleet: Portal, foreign: Machine, read: Callable[..., str]) -> None:
    page = read(f"/hosts/{foreign.attester}/")
    assert "Nobody has approved this host, so it gets no key." in page
    assert "No EK certificate" in page


def test_a_silent_host_is_shown_as_expired(fleet: Portal, healthy: Machine) -> None:
    attester = service.attester(UUID(healthy.attester))
    later = datetime.now(UTC) + timedelta(hours=9)
    assert service.shown_status(attester, now=later) == "Expired"
    assert service.status_counts(now=later)["Expired"] == 1


def test_an_approved_host_is_unknown_until_it_attests(fleet: Portal, healthy: Machine, foreign: Machine) -> None:
    now = datetime.now(UTC)
    assert {service.shown_status(host, now=now) for host in service.attesters(now=now)} >= {"Passed", "pending"}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=nbg-a01", {"nbg-a01"}),
        ("status=pending", {"nbg-a03"}),
        ("q=nbg&status=Passed", {"nbg-a01"}),
        ("q=nobody", set()),
        ("q=%00%27%22%3Cscript%3E", set()),
        ("status=Expired", set()),
    ],
)
def test_hosts_are_searched_and_filtered(query: str, found: set[str], fleet: Portal, read: Callable[..., str]) -> None:
    page = read(f"/hosts/?{query}")
    shown = {name for name in ("nbg-a01", "nbg-a02", "nbg-a03") if f"<b>{name}</b>" in page}
    assert shown == found
    assert "<script>" not in page


def test_a_host_is_found_by_its_certificate(fleet: Portal, healthy: Machine, read: Callable[..., str]) -> None:
    certificate = service.certificates(UUID(healthy.attester)).first()
    assert certificate is not None
    assert f"<b>{healthy.name}</b>" in read(f"/hosts/?q={certificate.serial[:12].upper()}")


def test_a_name_with_markup_stays_text(portal: Portal, healthy: Machine, auditor: User, browse: Browse) -> None:
    """The name of a host comes from the host."""
    answer = portal.enrol(healthy, name="<script>x</script>")
    assert answer.status_code == 400 or b"<script>x" not in browse(auditor).get("/hosts/").content


def test_an_attestation_shows_its_evidence(fleet: Portal, drifted: Machine, read: Callable[..., str]) -> None:
    page = read(f"/attestations/{newest(drifted)}/")
    assert "Boot events" in page
    assert "the log’s own label, unproven" in page


def test_refused_evidence_is_in_the_history(
    fleet: Portal, healthy: Machine, drifted: Machine, read: Callable[..., str]
) -> None:
    assert fleet.attest(healthy, log=drifted.log).status_code == 422
    page = read("/attestations/?status=TpmError")
    assert "log_replay_mismatch" in page


@pytest.mark.parametrize("query", ["act=host.", "actor=user:ada", "act=no.such.act", "page=999", "page=x"])
def test_the_audit_list_is_searched(query: str, fleet: Portal, read: Callable[..., str]) -> None:
    page = read(f"/audit/?{query}")
    assert ("No entry fits" in page) == (query == "act=no.such.act")


def test_an_altered_entry_is_pointed_out(fleet: Portal, read: Callable[..., str]) -> None:
    assert "Altered" not in read("/audit/")
    leaf = ledger.leaves().first()
    assert leaf is not None
    with connection.cursor() as cursor:  # past the service and past the trigger, as somebody with the database file can
        if connection.vendor == "sqlite":
            cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'ledger_leaf'")
            for name, _ in cursor.fetchall():
                cursor.execute(f"DROP TRIGGER {name}")
        else:
            cursor.execute("ALTER TABLE ledger_leaf DISABLE TRIGGER USER")
        cursor.execute("UPDATE ledger_leaf SET actor = 'user:mallory' WHERE id = %s", [leaf.pk])
    page = read("/audit/")
    assert "Altered" in page
    assert "is not what was recorded" in page


def test_a_page_asks_for_its_fragments_alone(fleet: Portal, drifted: Machine, read: Callable[..., str]) -> None:
    for address in (
        "/fleet/",
        "/hosts/",
        "/machines/",
        f"/hosts/{drifted.attester}/",
        "/proposals/",
        "/attestations/",
        "/audit/",
    ):
        fragments = read(address, **{"HX-Request": "true"})
        assert "<html" not in fragments
        assert fragments.count("hx-swap-oob") >= 2
        whole = read(address)
        assert "<html" in whole
        assert 'id="live"' in whole


def test_no_page_needs_anything_inline(fleet: Portal, healthy: Machine, browse: Browse, auditor: User) -> None:
    client = browse(auditor)
    for address in ("/fleet/", f"/hosts/{healthy.attester}/", "/audit/", "/login/", "/api/docs/"):
        answer = client.get(address)
        policy, page = answer["Content-Security-Policy"], answer.content.decode()
        assert "unsafe" not in policy
        assert "<style" not in page
        assert " style=" not in page
        assert " onclick=" not in page
        assert "<script>" not in page


def test_the_choice_of_theme_stays_in_this_browser(auditor: User, browse: Browse) -> None:
    client = browse(auditor)
    answer = client.post("/theme/", {"theme": "dark", "next": "/hosts/"})
    assert answer["Location"] == "/hosts/"
    assert 'data-theme="dark"' in client.get("/proves/").content.decode()
    assert client.post("/theme/", {"theme": "pink", "next": "https://evil.example/"})["Location"] == "/"
    assert "data-theme" not in client.get("/proves/").content.decode()
