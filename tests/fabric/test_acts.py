"""What people decide through the pages, and what the pages refuse."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.test import Client

from attestation import service
from attestation.errors import Refusal
from ledger import service as ledger
from tests.attestation.conftest import Portal
from tests.fabric.conftest import PASSWORD, REASON, newest
from tests.machines import Machine

Browse = Callable[[User | None], Client]
NOW = datetime.now(UTC)


def state_of(machine: Machine) -> str:
    return str(service.attester(UUID(machine.attester)).state)


@pytest.fixture
def waiting(portal: Portal, healthy: Machine) -> str:
    """The address of a host that waits for approval."""
    assert portal.enrol(healthy).json()["state"] == "pending"
    return f"/hosts/{healthy.attester}/"


@pytest.fixture
def proposed(waiting: str, healthy: Machine, admin: User) -> str:
    """The address of the proposal to approve that host."""
    proposal = service.propose_host(UUID(healthy.attester), by=admin, reason=REASON, now=datetime.now(UTC))
    return f"/proposals/{proposal.pk}/"


def decision(**changes: str) -> dict[str, str]:
    return {"decision": "approve", "reason": REASON, "password": PASSWORD} | changes


def test_two_persons_approve_a_host(
    waiting: str, healthy: Machine, admin: User, approver: User, browse: Browse
) -> None:
    forward = browse(admin).post(f"{waiting}propose/", {"reason": REASON})
    assert forward.status_code == 302
    assert state_of(healthy) == "pending"
    answer = browse(approver).post(forward["Location"], decision(), follow=True)
    assert "The decision is recorded and in force." in answer.content.decode()
    assert state_of(healthy) == "approved"
    assert [leaf.actor for leaf in ledger.leaves(act_prefix="host.approved")] == ["user:ben"]


def test_a_rejected_host_stays_out(proposed: str, healthy: Machine, approver: User, browse: Browse) -> None:
    assert browse(approver).post(proposed, decision(decision="reject")).status_code == 302
    assert state_of(healthy) == "rejected"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"decision": ""}, "Choose what to decide", id="nothing chosen"),
        pytest.param({"decision": "approve-without-certificate"}, "not one of the available choices", id="not offered"),
        pytest.param({"reason": ""}, "Write a reason", id="no reason"),
        pytest.param({"reason": "ok"}, "at least a sentence", id="no sentence"),
        pytest.param({"password": ""}, "Type your password", id="no password"),
        pytest.param({"password": "guessed"}, "This is not your password", id="wrong password"),
    ],
)
def test_an_incomplete_decision_is_not_recorded(
    changes: dict[str, str], said: str, proposed: str, healthy: Machine, approver: User, browse: Browse
) -> None:
    page = browse(approver).post(proposed, decision(**changes)).content.decode()
    assert "Not recorded" in page
    assert said in page
    assert changes.get("reason", REASON) in page  # the answers are kept
    assert state_of(healthy) == "pending"


def test_guessing_the_password_locks_as_it_does_at_sign_in(proposed: str, approver: User, browse: Browse) -> None:
    client = browse(approver)
    answers = [client.post(proposed, decision(password=f"guess {n}")).status_code for n in range(6)]
    assert answers[-1] == 429
    assert client.post(proposed, decision()).status_code == 429


def test_whoever_put_it_forward_cannot_decide_it(
    waiting: str, healthy: Machine, both: User, approver: User, browse: Browse
) -> None:
    client = browse(both)
    address = client.post(f"{waiting}propose/", {"reason": REASON})["Location"]
    page = client.get(address).content.decode()
    assert "someone else decides it" in page
    assert "ben may" in page.replace("\n", " ")
    assert "Record decision" not in page
    answer = client.post(address, decision())
    assert answer.status_code == 403
    assert "four_eyes" in answer.content.decode()
    assert state_of(healthy) == "pending"


@pytest.mark.parametrize("role", ["admin", "auditor"])
def test_only_an_approver_decides(
    role: str, proposed: str, healthy: Machine, browse: Browse, request: pytest.FixtureRequest
) -> None:
    client = browse(request.getfixturevalue(role))
    assert "Record decision" not in client.get(proposed).content.decode()
    assert client.post(proposed, decision()).status_code == 403
    assert state_of(healthy) == "pending"


def test_a_decided_proposal_is_not_decided_again(proposed: str, approver: User, browse: Browse) -> None:
    client = browse(approver)
    assert client.post(proposed, decision()).status_code == 302
    again = client.post(proposed, decision(decision="reject"))
    assert again.status_code == 409
    assert "Nothing was changed." in again.content.decode()


def test_a_tpm_of_an_unknown_maker_is_approved_only_by_saying_so(
    portal: Portal, foreign: Machine, admin: User, approver: User, browse: Browse
) -> None:
    foreign.ek_certificate = None
    portal.enrol(foreign)
    address = browse(admin).post(f"/hosts/{foreign.attester}/propose/", {"reason": REASON})["Location"]
    client = browse(approver)
    assert "Nothing says who made this TPM." in client.get(address).content.decode()
    assert "not one of the available choices" in client.post(address, decision()).content.decode()
    assert client.post(address, decision(decision="approve-without-certificate")).status_code == 302
    assert state_of(foreign) == "approved"


def test_a_baseline_shows_its_effect_before_it_is_decided(
    fleet: Portal, healthy: Machine, drifted: Machine, admin: User, approver: User, browse: Browse
) -> None:
    body = {"name": "trixie", "reason": REASON}
    address = browse(admin).post(f"/attestations/{newest(drifted)}/capture/", body)["Location"]
    page = browse(approver).get(address).content.decode()
    assert "1 host that passes today would fail" in page
    assert healthy.name in page
    assert browse(approver).post(address, decision()).status_code == 302
    assert fleet.attest(drifted).json()["status"] == "Passed"
    assert fleet.attest(healthy).json()["status"] == "InsecureHostConfiguration"


def test_a_baseline_is_not_captured_without_a_name(
    fleet: Portal, drifted: Machine, admin: User, browse: Browse
) -> None:
    page = browse(admin).post(f"/attestations/{newest(drifted)}/capture/", {"name": "", "reason": REASON})
    assert "Give the baseline a name" in page.content.decode()


@pytest.fixture
def serial(fleet: Portal, healthy: Machine) -> str:
    certificate = service.certificates(UUID(healthy.attester)).first()
    assert certificate is not None
    return certificate.serial


def danger(machine: Machine, **changes: str) -> dict[str, str]:
    return {"reason": REASON, "name": machine.name, "password": PASSWORD} | changes


def test_a_certificate_is_revoked(serial: str, healthy: Machine, admin: User, browse: Browse) -> None:
    page = browse(admin).post(f"/certificates/{serial}/revoke/", danger(healthy), follow=True)
    assert "is revoked" in page.content.decode()
    certificate = service.certificate(serial)
    assert (certificate.revoked_by, certificate.revoked_reason) == ("ada", REASON)
    again = browse(admin).post(f"/certificates/{serial}/revoke/", danger(healthy))
    assert again.status_code == 404


def test_a_host_is_revoked(fleet: Portal, healthy: Machine, approver: User, browse: Browse) -> None:
    assert browse(approver).post(f"/hosts/{healthy.attester}/revoke/", danger(healthy)).status_code == 302
    page = browse(approver).get(f"/hosts/{healthy.attester}/").content.decode()
    assert "This host was revoked" in page
    assert fleet.challenge(healthy).status_code == 403


@pytest.mark.parametrize(
    "changes", [{"name": "another"}, {"name": ""}, {"reason": ""}, {"password": "guessed"}], ids=str
)
def test_a_dangerous_act_wants_name_reason_and_password(
    changes: dict[str, Any], serial: str, healthy: Machine, admin: User, browse: Browse
) -> None:
    for address in (f"/certificates/{serial}/revoke/", f"/hosts/{healthy.attester}/revoke/"):
        assert "Not recorded" in browse(admin).post(address, danger(healthy, **changes)).content.decode()
    assert service.certificate(serial).revoked_at is None
    assert state_of(healthy) == "approved"


def test_a_baseline_is_retired(fleet: Portal, healthy: Machine, admin: User, browse: Browse) -> None:
    baseline = service.baselines().get(name="trixie")
    client, address = browse(admin), f"/baselines/{baseline.pk}/"
    assert "1 host that passes today" in " ".join(client.get(f"{address}retire/").content.decode().split())
    assert "Not recorded" in client.post(f"{address}retire/", danger(healthy)).content.decode()
    assert client.post(f"{address}retire/", danger(healthy, name="trixie")).status_code == 302
    assert "Retired" in client.get(address).content.decode()
    assert fleet.attest(healthy).json()["status"] == "InsecureHostConfiguration"


def test_every_certificate_is_voided_at_once(serial: str, healthy: Machine, approver: User, browse: Browse) -> None:
    client = browse(approver)
    assert "1 host holds a certificate" in client.get("/certificates/deny/").content.decode()
    assert "Not recorded" in client.post("/certificates/deny/", danger(healthy)).content.decode()
    assert client.post("/certificates/deny/", danger(healthy, name="demo")).status_code == 302
    with pytest.raises(Refusal, match="denies certificates issued before"):
        service.verify_certificate(bytes(service.certificate(serial).der), now=datetime.now(UTC))


def test_a_form_without_its_token_is_refused(proposed: str, approver: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(approver)
    answer = client.post(proposed, decision())
    assert answer.status_code == 403
    assert "csrf_failed" in answer.content.decode()


def test_that_the_log_counts_its_entries_is_no_news(fleet: Portal, browse: Browse, admin: User) -> None:
    ledger.sequence_all(now=datetime.now(UTC))
    assert ledger.leaves()[0].act == ledger.COUNTED
    page = browse(admin).get("/fleet/").content.decode()
    assert "The log was closed" not in page
    assert "passed under policy" in page
