"""A trial says what the verdict would be, and leaves the host as it is shown and what it holds alone."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.contrib.auth.models import User
from django.db import DatabaseError, connection
from django.forms.models import model_to_dict

from attestation import service
from attestation.core.base64url import from_b64u
from attestation.core.possession import prove
from attestation.errors import HostFailing
from attestation.models import (
    Attestation,
    Attester,
    Blob,
    Challenge,
    Component,
    HealthCertificate,
    ImaProgress,
    ModeSwitch,
    Trial,
)
from ledger import service as ledger
from tests.attestation.conftest import Portal, approve_host
from tests.attestation.keys import TRANSPORT, spki
from tests.attestation.test_host_keys import KeyHost, approve
from tests.ima_lists import ng
from tests.machines import Machine, decoded
from tests.measuring import Running

pytestmark = pytest.mark.django_db


def tried(portal: Portal, machine: Machine, **how: Any) -> Any:
    """Take a challenge for a trial and answer it."""
    challenge = portal.challenge(machine, trial=True).json()
    assert challenge["trial"] is True
    body = machine.evidence(decoded(challenge, "nonce"), **how)
    return portal.post(f"challenges/{challenge['id']}/evidence", body)


def standing(machine: Machine) -> tuple[object, ...]:
    """All that rests on a host's attestations."""
    counted = (Attestation, HealthCertificate, Blob, Component, ImaProgress)
    host = Attester.objects.get(pk=machine.attester)
    return (model_to_dict(host), *(model.objects.count() for model in counted), service.per_hour(now=datetime.now(UTC)))


def test_a_trial_says_what_an_attestation_would_and_earns_nothing(fabric: Portal, healthy: Machine) -> None:
    fabric.attest(healthy)
    before = standing(healthy)
    verdict = tried(fabric, healthy).json()
    assert (verdict["status"], verdict["findings"]) == ("Passed", [])
    assert (verdict["certificate"], verdict["release_secret"]) == (None, None)
    assert standing(healthy) == before
    trial = Trial.objects.get()
    assert (trial.status, trial.policy_version, trial.code) == ("Passed", 1, "")
    assert set(trial.evidence) >= {"quote", "signature"}
    assert [leaf.act for leaf in ledger.leaves(act_prefix="trial.")] == ["trial.passed"]


def test_pages_that_count_failures_count_no_trial(
    fabric: Portal, healthy: Machine, drifted: Machine, admin: User, approver: User
) -> None:
    approve_host(fabric, drifted, admin, approver)
    fabric.attest(healthy)
    last, causes = service.last_failure(), service.failing(now=datetime.now(UTC))
    tried(fabric, drifted)
    assert service.last_failure() == last
    assert service.failing(now=datetime.now(UTC)) == causes
    assert not service.attestations(attester_id=UUID(drifted.attester)).exists()


def test_a_host_that_never_attested_is_no_better_off_by_a_trial(
    fabric: Portal, drifted: Machine, admin: User, approver: User
) -> None:
    approve_host(fabric, drifted, admin, approver)
    before = standing(drifted)
    assert tried(fabric, drifted).json()["status"] == "InsecureHostConfiguration"
    assert standing(drifted) == before


def test_a_failing_trial_leaves_the_certificate_in_force_and_is_recorded(
    fabric: Portal, healthy: Machine, drifted: Machine, admin: User, approver: User
) -> None:
    """The host would fail, and does once it attests: the trial has neither hidden that nor brought it forward."""
    approve_host(fabric, drifted, admin, approver)
    certificate = decoded(fabric.attest(healthy).json(), "certificate")
    service.retire_baseline(service.baselines()[0].pk, by=admin, reason="a drill", now=datetime.now(UTC))
    for _ in range(2):
        before = standing(healthy)
        verdict = tried(fabric, healthy).json()
        assert (verdict["status"], verdict["certificate"]) == ("InsecureHostConfiguration", None)
        assert standing(healthy) == before
    found = [finding["code"] for finding in verdict["findings"]]
    assert found
    assert [trial.status for trial in service.trials(UUID(healthy.attester))] == ["InsecureHostConfiguration"] * 2
    leaves = ledger.leaves(act_prefix="trial.failed", subject=f"host:{healthy.attester}")
    assert [leaf.detail["codes"] for leaf in leaves] == [found] * 2
    assert fabric.attest(healthy).json()["status"] == "InsecureHostConfiguration"
    with pytest.raises(HostFailing):
        service.verify_certificate(certificate, now=datetime.now(UTC))


@pytest.mark.parametrize(
    ("how", "code"),
    [
        pytest.param({"with_log": False}, "event_log_needed", id="a part is missing"),
        pytest.param({"log": b"junk"}, "malformed", id="a log that is none"),
        pytest.param({"pcrs": (0, 1, 2, 3)}, "wrong_pcr_selection", id="its own TPM signed it"),
    ],
)
def test_evidence_that_is_refused_is_recorded_as_a_trial(
    fabric: Portal, healthy: Machine, how: dict[str, Any], code: str
) -> None:
    certificate = decoded(fabric.attest(healthy).json(), "certificate")
    before = standing(healthy)
    assert tried(fabric, healthy, **how).json()["code"] == code
    trial = Trial.objects.get()
    assert (trial.status, trial.code) == ("TpmError", code)
    (leaf,) = ledger.leaves(act_prefix="trial.refused")
    assert (leaf.subject, leaf.detail["code"]) == (f"host:{healthy.attester}", code)
    assert standing(healthy) == before
    assert service.verify_certificate(certificate, now=datetime.now(UTC)).host == healthy.name


def test_a_log_that_does_not_replay_costs_the_host_its_standing_only_when_it_attests(
    fabric: Portal, healthy: Machine, drifted: Machine
) -> None:
    certificate = decoded(fabric.attest(healthy).json(), "certificate")
    assert tried(fabric, healthy, log=drifted.log).json()["code"] == "log_replay_mismatch"
    assert service.verify_certificate(certificate, now=datetime.now(UTC)).host == healthy.name
    assert fabric.attest(healthy, log=drifted.log).json()["code"] == "log_replay_mismatch"
    with pytest.raises(HostFailing):
        service.verify_certificate(certificate, now=datetime.now(UTC))


def test_the_evidence_of_another_host_is_refused(fabric: Portal, healthy: Machine, drifted: Machine) -> None:
    challenge = fabric.challenge(healthy, trial=True).json()
    answer = fabric.post(f"challenges/{challenge['id']}/evidence", drifted.evidence(decoded(challenge, "nonce")))
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_signature")
    assert Trial.objects.get().code == "bad_signature"
    assert ledger.leaves(act_prefix="trial.refused")[0].actor == "stranger"


def test_a_stranger_gets_no_trial_and_leaves_a_trace(fabric: Portal) -> None:
    answer = fabric.post("challenges", {"attester": str(uuid4()), "trial": True})
    assert (answer.status_code, answer.json()["code"]) == (403, "unauthorized_host")
    assert ledger.leaves(act_prefix="challenge.refused").count() == 1
    assert not Trial.objects.exists()


def test_a_revoked_host_gets_no_trial(fabric: Portal, healthy: Machine, admin: User) -> None:
    service.revoke_host(UUID(healthy.attester), by=admin, reason="stolen", now=datetime.now(UTC))
    assert fabric.challenge(healthy, trial=True).json()["code"] == "unauthorized_host"


def test_a_trial_is_answered_once(fabric: Portal, healthy: Machine) -> None:
    challenge = fabric.challenge(healthy, trial=True).json()
    path, body = f"challenges/{challenge['id']}/evidence", healthy.evidence(decoded(challenge, "nonce"))
    assert fabric.post(path, body).status_code == 200
    assert fabric.post(path, body).json()["code"] == "challenge_spent"
    assert Trial.objects.count() == 1


def test_what_was_asked_for_as_a_trial_cannot_be_answered_as_an_attestation(fabric: Portal, healthy: Machine) -> None:
    """And the other way round: the challenge has it, and the answer has no say."""
    for trial in (True, False):
        challenge = fabric.challenge(healthy, trial=trial).json()
        body = healthy.evidence(decoded(challenge, "nonce")) | {"trial": not trial}
        verdict = fabric.post(f"challenges/{challenge['id']}/evidence", body).json()
        assert (verdict["certificate"] is None) == trial


@pytest.mark.parametrize("word", ["perhaps", 7, [], {}, None])
def test_a_word_that_is_neither_yes_nor_no_is_refused(fabric: Portal, healthy: Machine, word: object) -> None:
    answer = fabric.challenge(healthy, trial=word)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
    assert not Challenge.objects.filter(spent_at=None).exists()


def test_who_waits_for_approval_adds_nothing_to_the_ledger(portal: Portal, healthy: Machine) -> None:
    portal.enrol(healthy)
    before = ledger.leaves().count()
    for _ in range(3):
        verdict = tried(portal, healthy).json()
        assert verdict["status"] == "UnauthorizedHost"
        assert "host_pending" in {finding["code"] for finding in verdict["findings"]}
    assert ledger.leaves().count() == before
    assert Trial.objects.count() == 3


def test_a_trial_takes_nothing_of_the_list_with_it(watched: Portal, running: Running) -> None:
    """The next attestation goes on where the one before it ended, and the parts make the whole list again."""
    running.attest(watched)
    boot = Attestation.objects.filter(attester_id=running.machine.attester)[0].reset_count
    end = len(running.list)
    running.measure(ng(b"/usr/bin/ssh", b"ssh"))
    before = standing(running.machine)
    assert running.attest(watched, boot=boot, trial=True).json()["certificate"] is None
    assert running.asked_from == end
    assert standing(running.machine) == before
    assert running.attest(watched, boot=boot).json()["status"] == "Passed"
    assert running.asked_from == end


def test_a_host_key_can_be_tried_too(portal: Portal, admin: User, approver: User) -> None:
    ModeSwitch.objects.create(mode="hostkey", since=datetime.now(UTC), by="system", reason="a test")
    host = KeyHost(portal, "nbg-k01", ec.generate_private_key(ec.SECP256R1()))
    host.register()
    approve(host, admin, approver)
    asked = portal.post("challenges", {"attester": host.attester, "trial": True}).json()
    proof = prove(host.key, nonce=from_b64u(asked["nonce"]), transport_spki=spki(TRANSPORT))
    verdict = portal.post(f"challenges/{asked['id']}/possession", {"proof": proof}).json()
    assert (verdict["status"], verdict["certificate"]) == ("Passed", None)
    assert Attester.objects.get(pk=host.attester).latest is None
    assert not HealthCertificate.objects.exists()
    asked = portal.post("challenges", {"attester": host.attester, "trial": True}).json()
    bad = prove(ec.generate_private_key(ec.SECP256R1()), nonce=from_b64u(asked["nonce"]))
    answer = portal.post(f"challenges/{asked['id']}/possession", {"proof": bad})
    assert answer.json()["code"] == "bad_signature"
    assert [trial.code for trial in Trial.objects.all()] == ["bad_signature", ""]


@pytest.mark.parametrize("statement", ["UPDATE {} SET id = id", "DELETE FROM {}"])
def test_the_database_refuses_to_change_what_was_recorded(fabric: Portal, healthy: Machine, statement: str) -> None:
    tried(fabric, healthy)
    with pytest.raises(DatabaseError, match="append-only"), connection.cursor() as cursor:
        cursor.execute(statement.format(Trial._meta.db_table))
