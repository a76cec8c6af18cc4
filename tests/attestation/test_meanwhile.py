"""Between the opening of an appraisal and the record of it much can happen to a host; both are few statements."""

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from attestation import appraisal, service, strangers
from attestation.core.appraise import appraise
from attestation.core.claims import verify_evidence
from attestation.models import Attestation, Attester, Challenge, HealthCertificate
from ledger import service as ledger
from tests.attestation.conftest import Portal, approve_host
from tests.machines import Machine, decoded

pytestmark = pytest.mark.django_db

# SQLite has no statement that changes one row and reads or writes others, so there each part is one.
ON_POSTGRESQL = {"challenge": ["INSERT"], "evidence": ["WITH changed AS (UPDATE"] * 2}
ON_SQLITE = {
    "challenge": ["INSERT"],
    "evidence": ["UPDATE", "UPDATE", "WITH changed AS (SELECT", "UPDATE", "INSERT", "INSERT", "INSERT"],
}


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Give what lets something happen once, after the Evidence was verified and before anything is recorded."""

    def happen(act: Callable[[], object]) -> None:
        def appraise_late(*args: Any, **more: Any) -> Any:
            monkeypatch.setattr(appraisal, "appraise", appraise)
            act()
            return appraise(*args, **more)

        monkeypatch.setattr(appraisal, "appraise", appraise_late)

    return happen


def evidence_for(portal: Portal, machine: Machine) -> tuple[str, dict[str, Any]]:
    challenge = portal.challenge(machine, event_log_sha256=machine.log_digest).json()
    body = machine.evidence(decoded(challenge, "nonce"), with_log=challenge["send_event_log"])
    return f"challenges/{challenge['id']}/evidence", body


def statements(act: Callable[[], object]) -> list[str]:
    """Return how the statements of an act begin; the savepoints are the test's own transaction showing."""
    with CaptureQueriesContext(connection) as captured:
        act()
    begun = [" ".join(query["sql"].split()) for query in captured]
    known = sorted({*ON_SQLITE["evidence"], *ON_POSTGRESQL["evidence"]}, key=len, reverse=True)
    return [next((word for word in known if sql.startswith(word)), sql) for sql in begun]


def test_an_attestation_takes_one_statement_for_the_challenge_and_two_for_the_evidence(
    fabric: Portal, healthy: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "_offers", count(1))  # some challenge has to clean up after those before it
    fabric.attest(healthy)  # compiles the policy, reads the log, opens the signer
    fabric.challenge(healthy)
    wanted = ON_POSTGRESQL if connection.vendor == "postgresql" else ON_SQLITE
    expected = {**wanted, "outside": [] if connection.vendor == "postgresql" else ["SAVEPOINT", "RELEASE"] * 2}
    message = evidence_for(fabric, healthy)
    asked = statements(lambda: fabric.challenge(healthy, event_log_sha256=healthy.log_digest, boot=1))
    answered = statements(lambda: fabric.post(*message))
    assert asked == expected["challenge"]
    assert [each for each in answered if "SAVEPOINT" not in each] == expected["evidence"]
    assert [each.split()[0] for each in answered if "SAVEPOINT" in each] == expected["outside"]
    assert Attester.objects.get(pk=healthy.attester).status == "Passed"


def test_a_host_that_is_revoked_meanwhile_gets_no_certificate(
    fabric: Portal, healthy: Machine, admin: User, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    fabric.attest(healthy)
    certificates, host = HealthCertificate.objects.count(), UUID(healthy.attester)
    path, body = evidence_for(fabric, healthy)
    meanwhile(lambda: service.revoke_host(host, by=admin, reason="stolen", now=datetime.now(UTC)))
    verdict = fabric.post(path, body).json()
    assert (verdict["status"], verdict["certificate"], verdict["release_secret"]) == ("UnauthorizedHost", None, None)
    assert HealthCertificate.objects.count() == certificates
    row = Attester.objects.get(pk=host)
    assert (row.state, row.certified_until) == (Attester.State.REVOKED, None)
    newest = ledger.leaves(subject=row.subject)[:2]
    assert [leaf.act for leaf in newest] == ["attestation.failed", "host.revoked"]
    assert fabric.post(path, body).json()["code"] == "challenge_spent"


def test_a_host_that_is_moved_meanwhile_is_judged_by_its_new_group(
    fabric: Portal, healthy: Machine, admin: User, meanwhile: Callable[[Callable[[], object]], None]
) -> None:
    service.add_group("edge", "Edge", description="", canary_of=None, by=admin, now=datetime.now(UTC))
    meanwhile(lambda: Attester.objects.filter(pk=healthy.attester).update(group="edge"))
    verdict = fabric.attest(healthy).json()
    assert [finding["code"] for finding in verdict["findings"]] == ["policy_empty"]
    assert Attestation.objects.order_by("-id")[0].policy_version == 0


def test_a_host_that_attests_twice_at_once_makes_the_same_news_once(
    fabric: Portal,
    drifted: Machine,
    admin: User,
    approver: User,
    meanwhile: Callable[[Callable[[], object]], None],
) -> None:
    approve_host(fabric, drifted, admin, approver)
    meanwhile(lambda: fabric.attest(drifted))
    fabric.attest(drifted)
    host = Attester.objects.get(pk=drifted.attester)
    assert host.attestations.count() == 2
    assert ledger.leaves(act_prefix="attestation.failed", subject=host.subject).count() == 1
    assert Challenge.objects.filter(spent_at=None, attester=host).count() == 0


def test_evidence_that_is_refused_does_not_hide_what_somebody_decided_meanwhile(
    fabric: Portal, healthy: Machine, drifted: Machine, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = UUID(healthy.attester)

    def revoked_first(*args: Any, **more: Any) -> Any:
        service.revoke_host(host, by=admin, reason="stolen", now=datetime.now(UTC))
        return verify_evidence(*args, **more)

    monkeypatch.setattr(appraisal, "verify_evidence", revoked_first)
    assert fabric.attest(healthy, log=drifted.log).json()["code"] == "log_replay_mismatch"
    assert Attester.objects.get(pk=host).status == "UnauthorizedHost"
