"""Evidence that is fresh, authentic and accepted yields a certificate; every other kind is refused and kept."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography import x509
from django.contrib.auth.models import User
from django.db import connection
from django.db.utils import DatabaseError

from attestation import service
from attestation.core.base64url import to_b64u
from attestation.core.eventlog import EVENT_LOG_LIMIT
from attestation.models import Attestation, Attester, Blob, Challenge, HealthCertificate
from ledger import service as ledger
from ledger.models import Leaf
from tests.attestation.conftest import Portal, approve_host
from tests.machines import Machine, decoded
from tests.tpm_lab import TRANSPORT

pytestmark = pytest.mark.django_db


def refused_with(answer: Any, code: str, *, status: int = 422) -> None:
    """Check a refusal, and that exactly its row and its leaf were written."""
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer["content-type"] == "application/problem+json"
    row = Attestation.objects.order_by("-id").first()
    assert row is not None
    assert (row.status, row.code) == ("TpmError", code)
    assert ledger.leaves(act_prefix="attestation.refused").first().detail["code"] == code  # type: ignore[union-attr]


def test_a_healthy_approved_host_gets_a_certificate_for_its_transport_key(fabric: Portal, healthy: Machine) -> None:
    verdict = fabric.attest(healthy).json()
    assert (verdict["status"], verdict["findings"]) == ("Passed", [])
    certificate = x509.load_der_x509_certificate(decoded(verdict, "certificate"))
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime <= timedelta(hours=8, minutes=5)
    statement = service.verify_certificate(decoded(verdict, "certificate"), now=datetime.now(UTC))
    assert (statement.host, statement.mode, statement.policy_version) == (healthy.name, "tpm", 1)


def test_the_release_secret_opens_only_in_the_hosts_tpm(fabric: Portal, healthy: Machine) -> None:
    verdict = fabric.attest(healthy).json()
    wrapped_key = verdict["release_secret"].split(".")[1]
    assert len(healthy.unwrap(decoded({"key": wrapped_key}, "key"))) == 32


def test_a_pending_host_is_told_to_wait_and_its_evidence_is_kept(portal: Portal, healthy: Machine) -> None:
    portal.enrol(healthy)
    verdict = portal.attest(healthy).json()
    assert verdict["status"] == "UnauthorizedHost"
    assert verdict["certificate"] is None
    assert {finding["code"] for finding in verdict["findings"]} == {"host_pending", "policy_empty"}
    assert Blob.objects.filter(pk=healthy.log_digest).exists()


def test_an_approved_host_without_any_baseline_does_not_pass(
    portal: Portal, healthy: Machine, admin: User, approver: User
) -> None:
    approve_host(portal, healthy, admin, approver)
    verdict = portal.attest(healthy).json()
    assert verdict["status"] == "InsecureHostConfiguration"
    assert [finding["code"] for finding in verdict["findings"]] == ["policy_empty"]


def test_a_changed_kernel_command_line_is_named(fabric: Portal, drifted: Machine, admin: User, approver: User) -> None:
    approve_host(fabric, drifted, admin, approver)
    verdict = fabric.attest(drifted).json()
    assert (verdict["status"], verdict["certificate"]) == ("InsecureHostConfiguration", None)
    assert any("drift=1" in finding["what"] for finding in verdict["findings"])


def test_the_same_failure_again_is_history_and_no_news(
    fabric: Portal, drifted: Machine, admin: User, approver: User
) -> None:
    approve_host(fabric, drifted, admin, approver)
    for _ in range(3):
        fabric.attest(drifted)
    attester = Attester.objects.get(pk=drifted.attester)
    assert attester.attestations.count() == 3
    assert ledger.leaves(act_prefix="attestation.failed", subject=attester.subject).count() == 1
    assert attester.latest is not None
    assert attester.status_at < attester.latest.at  # type: ignore[operator]  # set by the first attestation


def test_an_unchanged_log_travels_once(fabric: Portal, healthy: Machine) -> None:
    challenge = fabric.challenge(healthy, event_log_sha256=healthy.log_digest).json()
    assert challenge["send_event_log"] is False
    body = healthy.evidence(decoded(challenge, "nonce"), with_log=False)
    assert fabric.post(f"challenges/{challenge['id']}/evidence", body).json()["status"] == "Passed"


def test_a_log_that_was_asked_for_and_does_not_come_is_refused(fabric: Portal, healthy: Machine) -> None:
    refused_with(fabric.attest(healthy, with_log=False), "event_log_needed")


def test_challenges_are_random_and_of_full_length(fabric: Portal, healthy: Machine) -> None:
    nonces = {decoded(fabric.challenge(healthy).json(), "nonce") for _ in range(50)}
    assert len(nonces) == 50
    assert {len(nonce) for nonce in nonces} == {32}


def test_a_challenge_answers_once(fabric: Portal, healthy: Machine) -> None:
    challenge = fabric.challenge(healthy).json()
    body = healthy.evidence(decoded(challenge, "nonce"))
    path = f"challenges/{challenge['id']}/evidence"
    first, second = fabric.post(path, body), fabric.post(path, body)
    assert (first.status_code, second.status_code) == (200, 409)
    assert second.json()["code"] == "challenge_spent"
    replay = ledger.leaves(act_prefix="challenge.refused", subject=f"challenge:{challenge['id']}").get()
    assert (replay.actor, replay.detail["code"]) == ("stranger", "challenge_spent")


def test_a_failed_answer_spends_the_challenge_too(fabric: Portal, healthy: Machine) -> None:
    challenge = fabric.challenge(healthy).json()
    path = f"challenges/{challenge['id']}/evidence"
    bad = healthy.evidence(bytes(32))
    assert fabric.post(path, bad).json()["code"] == "wrong_nonce"
    good = healthy.evidence(decoded(challenge, "nonce"))
    assert fabric.post(path, good).json()["code"] == "challenge_spent"


def test_a_challenge_lives_for_a_minute(fabric: Portal, healthy: Machine) -> None:
    challenge = fabric.challenge(healthy).json()
    Challenge.objects.filter(pk=challenge["id"]).update(expires_at=datetime.now(UTC))
    answer = fabric.post(f"challenges/{challenge['id']}/evidence", healthy.evidence(decoded(challenge, "nonce")))
    assert answer.json()["code"] == "challenge_spent"


def test_an_unknown_challenge_is_refused(fabric: Portal, healthy: Machine) -> None:
    answer = fabric.post(f"challenges/{uuid4()}/evidence", healthy.evidence(bytes(32)))
    assert (answer.status_code, answer.json()["code"]) == (409, "challenge_spent")


def test_an_unknown_host_gets_no_challenge_and_leaves_a_trace(fabric: Portal) -> None:
    answer = fabric.post("challenges", {"attester": str(uuid4())})
    assert (answer.status_code, answer.json()["code"]) == (403, "unauthorized_host")
    assert ledger.leaves(act_prefix="challenge.refused").count() == 1


def test_a_revoked_host_gets_no_challenge(fabric: Portal, healthy: Machine, admin: User) -> None:
    service.revoke_host(UUID(healthy.attester), by=admin, reason="stolen", now=datetime.now(UTC))
    assert fabric.challenge(healthy).json()["code"] == "unauthorized_host"


def test_the_quote_of_another_host_is_refused(fabric: Portal, healthy: Machine, drifted: Machine) -> None:
    challenge = fabric.challenge(healthy).json()
    body = drifted.evidence(decoded(challenge, "nonce"))
    refused_with(fabric.post(f"challenges/{challenge['id']}/evidence", body), "bad_signature")


def test_a_quote_over_fewer_pcrs_is_refused(fabric: Portal, healthy: Machine) -> None:
    refused_with(fabric.attest(healthy, pcrs=(0, 1, 2, 3, 4, 5, 6, 7)), "wrong_pcr_selection")


def test_pcr_values_that_were_not_signed_are_refused(fabric: Portal, healthy: Machine) -> None:
    challenge = fabric.challenge(healthy).json()
    body = healthy.evidence(decoded(challenge, "nonce"))
    body["pcr_values"]["8"] = to_b64u(bytes(32))
    refused_with(fabric.post(f"challenges/{challenge['id']}/evidence", body), "wrong_pcr_digest")


def test_a_stripped_log_is_refused(fabric: Portal, healthy: Machine, drifted: Machine) -> None:
    refused_with(fabric.attest(healthy, log=drifted.log), "log_replay_mismatch")
    assert Attester.objects.get(pk=healthy.attester).status == "TpmError"


def test_a_transport_key_that_a_password_opens_is_refused(fabric: Portal, healthy: Machine) -> None:
    with healthy.another_transport_key(f"{TRANSPORT}|userwithauth") as loose:
        refused_with(fabric.attest(healthy, transport=loose), "unacceptable_key")


@pytest.mark.parametrize("policy", [pytest.param(b"", id="no policy"), pytest.param(bytes(32), id="another boot")])
def test_a_transport_key_that_is_not_bound_to_this_boot_is_refused(
    fabric: Portal, healthy: Machine, policy: bytes
) -> None:
    with healthy.another_transport_key(policy=policy) as other:
        refused_with(fabric.attest(healthy, transport=other), "transport_key_not_bound")


def test_a_transport_key_certified_for_another_challenge_is_refused(fabric: Portal, healthy: Machine) -> None:
    answer = fabric.attest(healthy, certify_nonce=bytes(32))
    assert (answer.status_code, answer.json()["code"]) in {(422, "wrong_nonce"), (422, "transport_key_not_certified")}


def test_a_transport_key_that_was_not_certified_is_refused(fabric: Portal, healthy: Machine) -> None:
    with healthy.another_transport_key() as other:
        uncertified = to_b64u(other.public)
    challenge = fabric.challenge(healthy).json()
    body = healthy.evidence(decoded(challenge, "nonce")) | {"transport_public": uncertified}
    refused_with(fabric.post(f"challenges/{challenge['id']}/evidence", body), "transport_key_not_certified")


def test_forged_evidence_does_not_change_what_the_host_is_shown_as(fabric: Portal, healthy: Machine) -> None:
    fabric.attest(healthy)
    challenge = fabric.challenge(healthy).json()
    body = healthy.evidence(decoded(challenge, "nonce")) | {"signature": to_b64u(b"\x00\x18\x00\x0b" + bytes(70))}
    assert fabric.post(f"challenges/{challenge['id']}/evidence", body).status_code in {400, 422}
    assert Attester.objects.get(pk=healthy.attester).status == "Passed"
    assert Attestation.objects.order_by("-id")[0].status == "TpmError"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"quote": "A" * 6000}, "too_large", id="quote over 4 KiB"),
        pytest.param({"event_log": "A" * (EVENT_LOG_LIMIT * 4 // 3 + 8)}, "too_large", id="log over 1 MiB"),
        pytest.param({"pcr_values": {"99": "AA"}}, "malformed_request", id="no such PCR"),
        pytest.param({"pcr_values": []}, "malformed_request", id="values not an object"),
        pytest.param({"signature": 7}, "malformed_request", id="signature not text"),
    ],
)
def test_a_malformed_message_is_refused_before_the_challenge_is_spent(
    fabric: Portal, healthy: Machine, change: dict[str, object], code: str
) -> None:
    challenge = fabric.challenge(healthy).json()
    body = healthy.evidence(decoded(challenge, "nonce"))
    path = f"challenges/{challenge['id']}/evidence"
    answer = fabric.post(path, body | change)
    assert answer.status_code in {400, 413}
    assert answer.json()["code"] == code
    assert fabric.post(path, body).json()["status"] == "Passed"


def test_a_new_attestation_yields_a_new_certificate(fabric: Portal, healthy: Machine) -> None:
    first = decoded(fabric.attest(healthy).json(), "certificate")
    second = decoded(fabric.attest(healthy).json(), "certificate")
    assert first != second
    assert HealthCertificate.objects.count() == 2


@pytest.mark.parametrize("statement", ["UPDATE {} SET id = id", "DELETE FROM {}"])
@pytest.mark.parametrize("model", [Attestation, Leaf])
def test_the_database_refuses_to_change_what_was_recorded(
    fabric: Portal, healthy: Machine, statement: str, model: type[Attestation] | type[Leaf]
) -> None:
    assert model.objects.exists()
    with pytest.raises(DatabaseError, match="append-only"), connection.cursor() as cursor:
        cursor.execute(statement.format(model._meta.db_table))


def test_no_nonce_secret_or_evidence_reaches_the_log(
    fabric: Portal, healthy: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    challenge = fabric.challenge(healthy).json()
    body = healthy.evidence(decoded(challenge, "nonce"))
    verdict = fabric.post(f"challenges/{challenge['id']}/evidence", body).json()
    written = caplog.text
    for secret in (challenge["nonce"], decoded(challenge, "nonce").hex(), body["quote"], verdict["release_secret"]):
        assert secret[:24] not in written
