"""Measured events that no baseline knows are remembered with the attestation that showed them first."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from attestation import components, service
from attestation.errors import NotAllowed, NotFound
from attestation.models import Attestation, Attester, Component
from ledger import service as ledger
from tests.attestation.conftest import Portal, approve_baseline, approve_host, person
from tests.machines import Machine, booted_from
from tests.tpm_lab import Maker
from tests.updates import with_new_kernel

pytestmark = pytest.mark.django_db
REASON = "The digest is that of the package in our repository."


@pytest.fixture(scope="module")
def twin(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Another host with the same new kernel."""
    log = with_new_kernel("secureboot-on")
    with booted_from(maker, tmp_path_factory.mktemp("tpm"), name="nbg-a05", log=log) as machine:
        yield machine


def status(portal: Portal, machine: Machine) -> str:
    return str(portal.attest(machine).json()["status"])


def seen(machine: Machine) -> set[str]:
    latest = Attester.objects.select_related("latest").get(pk=machine.attester).latest
    assert latest is not None
    return {each["seen"] for each in components.deviations(latest.findings) if each["seen"]}


@pytest.fixture
def failing(fabric: Portal, updated: Machine, admin: User, approver: User) -> Portal:
    approve_host(fabric, updated, admin, approver)
    assert status(fabric, updated) == "InsecureHostConfiguration"
    return fabric


def test_a_failing_host_leaves_what_deviated(failing: Portal, updated: Machine) -> None:
    rows = {row.digest: row for row in Component.objects.all()}
    assert set(rows) == seen(updated)
    assert len(rows) == 3
    attestation = Attestation.objects.get(attester_id=updated.attester)
    kernel = next(row for row in rows.values() if row.text == "/boot/vmlinuz")
    assert (kernel.pcr, kernel.name, kernel.proved) == (9, "File read by the boot loader", False)
    assert {(row.first_seen_at, row.first_seen_on_id) for row in rows.values()} == {
        (attestation.at, UUID(updated.attester))
    }


def test_the_first_sight_stays_when_others_follow(
    failing: Portal, updated: Machine, twin: Machine, admin: User, approver: User
) -> None:
    before = list(Component.objects.order_by("pk").values())
    approve_host(failing, twin, admin, approver)
    assert status(failing, twin) == "InsecureHostConfiguration"
    assert status(failing, updated) == "InsecureHostConfiguration"
    assert list(Component.objects.order_by("pk").values()) == before
    hosts = components.hosts_with(seen(twin))
    assert {digest: sorted(host.name for host in found) for digest, found in hosts.items()} == dict.fromkeys(
        seen(twin), sorted([updated.name, twin.name])
    )


def test_a_host_that_passes_again_is_no_longer_among_them(
    failing: Portal, updated: Machine, admin: User, approver: User
) -> None:
    digests = seen(updated)
    approve_baseline(failing, updated, admin, approver, name="new kernel")
    assert status(failing, updated) == "Passed"
    assert components.hosts_with(digests) == {}
    assert {digest: found.hosts for digest, found in components.known(digests).items()} == dict.fromkeys(digests, ())


def test_a_waiting_host_leaves_nothing_until_it_is_approved(
    fabric: Portal, updated: Machine, admin: User, approver: User
) -> None:
    assert fabric.enrol(updated).status_code == 200
    assert status(fabric, updated) == "UnauthorizedHost"
    assert not Component.objects.exists()
    now = datetime.now(UTC)
    proposal = service.propose_host(UUID(updated.attester), by=admin, reason=REASON, now=now)
    service.decide(proposal.pk, by=approver, approve=True, reason=REASON, now=now)
    assert status(fabric, updated) == "InsecureHostConfiguration"
    assert Component.objects.count() == 3


def test_a_passing_host_costs_nothing_more(fabric: Portal, healthy: Machine) -> None:
    with CaptureQueriesContext(connection) as captured:
        assert status(fabric, healthy) == "Passed"
    assert not [query for query in captured if "attestation_component" in query["sql"]]
    assert not Component.objects.exists()


def test_the_same_failure_again_writes_nothing_more(failing: Portal, updated: Machine) -> None:
    with CaptureQueriesContext(connection) as captured:
        assert status(failing, updated) == "InsecureHostConfiguration"
    assert not [query for query in captured if "attestation_component" in query["sql"]]


def test_refused_evidence_leaves_no_component(fabric: Portal, healthy: Machine, drifted: Machine) -> None:
    assert fabric.attest(healthy, log=drifted.log).status_code == 422
    assert not Component.objects.exists()


def test_endless_deviations_are_bounded(failing: Portal, updated: Machine) -> None:
    host = Attester.objects.get(pk=updated.attester)
    row = {"pcr": 8, "name": "x" * 500, "text": "y", "proved": True, "expected": ""}
    many = [{"check": "baseline", "deviations": [row | {"seen": f"{n:064x}"} for n in range(500)]}]
    attestation = Attestation(attester=host, status="InsecureHostConfiguration", findings=many, at=datetime.now(UTC))
    rows = components.remember(host, attestation, None)
    assert len(rows) == components.MOST
    assert components.remember(host, attestation, attestation) == []


def test_two_statements_ask_for_many_digests(failing: Portal, updated: Machine) -> None:
    digests = seen(updated)
    with CaptureQueriesContext(connection) as captured:
        assert len(components.known(digests)) == 3
    assert len(captured) == 2


# --- vouched for -------------------------------------------------------------------------------------------------


def test_somebody_who_decides_says_what_a_digest_is(failing: Portal, updated: Machine, approver: User) -> None:
    digest, now = min(seen(updated)), datetime.now(UTC)
    service.vouch(digest, "linux-image 6.12.60", by=approver, reason=REASON, now=now)
    row = Component.objects.get(pk=digest)
    assert (row.package, row.vouched_by, row.vouched_at) == ("linux-image 6.12.60", "ben", now)
    leaf = ledger.leaves(act_prefix="component.vouched").get()
    assert (leaf.actor, leaf.subject, leaf.detail["name"]) == ("user:ben", f"component:{digest}", "linux-image 6.12.60")
    assert status(failing, updated) == "InsecureHostConfiguration"


def test_a_word_about_a_digest_can_be_corrected(failing: Portal, updated: Machine, approver: User) -> None:
    digest, now = min(seen(updated)), datetime.now(UTC)
    for package, later in (("linux 1", 0), ("linux 2", 1)):
        service.vouch(digest, package, by=approver, reason=REASON, now=now + timedelta(seconds=later))
    assert Component.objects.get(pk=digest).package == "linux 2"
    assert ledger.leaves(act_prefix="component.vouched").count() == 2


@pytest.mark.parametrize("permissions", [(), ("propose",), ("revoke",)], ids=str)
def test_who_does_not_decide_vouches_for_nothing(
    permissions: tuple[str, ...], failing: Portal, updated: Machine
) -> None:
    with pytest.raises(NotAllowed):
        service.vouch(min(seen(updated)), "x", by=person("mallory", *permissions), reason=REASON, now=datetime.now(UTC))
    assert not Component.objects.exclude(package="").exists()
    assert not ledger.leaves(act_prefix="component.").exists()


@pytest.mark.parametrize("digest", ["", "ab", "00" * 32, "../x"])
def test_nobody_vouches_for_what_no_host_has_shown(digest: str, failing: Portal, approver: User) -> None:
    with pytest.raises(NotFound):
        service.vouch(digest, "x", by=approver, reason=REASON, now=datetime.now(UTC))
    with pytest.raises(NotFound):
        service.component(digest)
