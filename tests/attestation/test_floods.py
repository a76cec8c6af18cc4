"""What strangers send in any number leaves something to see, and does not fill what can never be pruned."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import User

from attestation import strangers
from attestation.core.base64url import to_b64u
from attestation.errors import Refusal
from attestation.models import Attestation, Blob, Challenge, Enrolment
from ledger import service as ledger
from tests.attestation.conftest import Portal, approve_host
from tests.machines import Machine, decoded

pytestmark = pytest.mark.django_db


def test_a_flood_of_refusals_is_recorded_up_to_a_bound(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "MOST_LEAVES", 3)
    for _ in range(5):
        assert portal.post("challenges", {"attester": str(uuid4())}).status_code == 403
        assert portal.post(f"enrolments/{uuid4()}/activation", {"secret": to_b64u(bytes(32))}).status_code == 403
    assert ledger.leaves(act_prefix="challenge.refused").count() == 3
    assert ledger.leaves(act_prefix="host.activation_refused").count() == 3


def test_a_refusal_after_the_flood_is_recorded_again(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "MOST_LEAVES", 1)
    refusal = Refusal("no")
    for minutes in (0, 0.5, 2):
        now = datetime.now(UTC) + timedelta(minutes=minutes)
        strangers.refused("challenge.refused", f"host:{uuid4()}", refusal, now=now)
    assert ledger.leaves(act_prefix="challenge.refused").count() == 2


def test_challenges_that_nobody_answered_are_forgotten(
    fabric: Portal, healthy: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "EVERY", 4)
    spent = Challenge.objects.count()
    for _ in range(5):
        fabric.challenge(healthy)
    Challenge.objects.update(expires_at=datetime.now(UTC) - timedelta(hours=1))
    for _ in range(4):
        fabric.challenge(healthy)
    assert spent < Challenge.objects.count() <= spent + 4


def test_enrolments_that_nobody_finished_are_forgotten(
    portal: Portal, healthy: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "EVERY", 1)
    for _ in range(3):
        portal.post("enrolments", healthy.enrolment())
    Enrolment.objects.update(expires_at=datetime.now(UTC) - timedelta(hours=1))
    portal.post("enrolments", healthy.enrolment())
    assert Enrolment.objects.count() == 1


def test_waiting_hosts_fill_a_bounded_shelf_of_logs(
    portal: Portal, healthy: Machine, drifted: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "MOST_LOGS", 1)
    for machine in (healthy, drifted):
        portal.enrol(machine)
        assert portal.attest(machine).json()["status"] == "UnauthorizedHost"
    assert list(Blob.objects.values_list("pk", flat=True)) == [healthy.log_digest]
    newest = Attestation.objects.order_by("-id")[0]
    assert (newest.attester.name, newest.event_log) == (drifted.name, None)


def test_a_full_shelf_does_not_disturb_approved_hosts(
    fabric: Portal, drifted: Machine, admin: User, approver: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "MOST_LOGS", 0)
    approve_host(fabric, drifted, admin, approver)
    assert any("drift=1" in finding["what"] for finding in fabric.attest(drifted).json()["findings"])
    assert Blob.objects.filter(pk=drifted.log_digest).exists()


def test_the_ima_list_of_a_waiting_host_is_checked_and_not_kept(portal: Portal, healthy: Machine) -> None:
    portal.enrol(healthy)
    challenge = portal.challenge(healthy).json()
    body = healthy.evidence(decoded(challenge, "nonce")) | {"ima_log": ""}
    assert portal.post(f"challenges/{challenge['id']}/evidence", body).json()["status"] == "UnauthorizedHost"
    assert Attestation.objects.get().ima_log is None
