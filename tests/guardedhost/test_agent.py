"""The agent against a portal that uses the real verifier: what it sends, what it keeps, what it does not."""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from attestation.core.base64url import from_b64u, to_b64u
from attestation.core.credential import make_credential
from attestation.core.eventlog import EVENT_LOG_LIMIT
from attestation.core.tpm import parse_public
from guardedhost import agent, lab
from guardedhost.errors import AgentError, Refused, TpmFailure, Unreachable
from guardedhost.jwe import NotOpened
from guardedhost.store import Store
from tests.guardedhost.conftest import DRIFT, ON, Portal
from tests.guardedhost.verifier import NONCE, SECRET, Verifier


@pytest.fixture
def verifier(portal: Portal, store: Store) -> Verifier:
    """A portal at which the lab host is enrolled."""
    verifier = Verifier()
    portal.answer = verifier.answer
    with agent.opened(store, replace(store.config(), server=portal.url)) as host:
        assert agent.enrol(host).state == "pending"
    return verifier


def test_a_host_that_passes_holds_a_certificate_and_a_secret_that_its_tpm_opens(
    verifier: Verifier, store: Store
) -> None:
    with agent.opened(store) as host:
        assert agent.attest(host).status == "Passed"
        credential = agent.certificate_valid(host)
        assert credential is not None
        assert agent.open_token(host, credential, credential.release_secret) == SECRET
    assert credential.serial == "abc"
    last = store.last_attestation()
    assert last is not None
    assert (last.status, last.certificate_until) == ("Passed", credential.not_after)
    for path in store.folder.glob("*.json"):
        assert SECRET not in path.read_bytes()
        assert to_b64u(SECRET).encode() not in path.read_bytes()


def test_the_log_travels_only_when_the_portal_asks(verifier: Verifier, store: Store) -> None:
    with agent.opened(store) as host:
        agent.attest(host)
        verifier.send_event_log = False
        agent.attest(host)
    first, second = verifier.evidence
    assert from_b64u(first["event_log"]) == ON.read_bytes()
    assert "event_log" not in second
    assert "ima_log" not in second


def test_the_transport_key_is_made_once_per_boot(verifier: Verifier, store: Store) -> None:
    for _ in range(2):
        with agent.opened(store) as host:
            agent.attest(host)
    lab.reboot(store.folder, boot_log=ON, ima_log=None)
    with agent.opened(store) as host:
        agent.attest(host)
    first, second, third = (evidence["transport_public"] for evidence in verifier.evidence)
    assert first == second != third


@pytest.mark.parametrize("private", [b"", b"\0", b"\0\x02??", bytes(300)])
def test_a_transport_key_that_the_tpm_does_not_know_is_made_again(
    verifier: Verifier, store: Store, private: bytes
) -> None:
    with agent.opened(store) as host:
        agent.attest(host)
        saved = store.transport_key()
        assert saved is not None
        store.save_transport_key(replace(saved[0], private=private), saved[1])
        assert agent.attest(host).status == "Passed"


def test_a_certificate_of_another_boot_is_replaced_before_it_is_used(verifier: Verifier, store: Store) -> None:
    with agent.opened(store) as host:
        agent.attest(host)
        agent.ensure_certificate(host)
    assert len(verifier.evidence) == 1
    lab.reboot(store.folder, boot_log=DRIFT, ima_log=None)
    verifier.passing = False
    with agent.opened(store) as host, pytest.raises(agent.NotAttested) as refusal:
        agent.ensure_certificate(host)
    assert refusal.value.verdict.findings[0].what == "The command line has drift=1 added."
    assert store.credential() is None


def test_a_host_that_no_longer_passes_drops_its_certificate(verifier: Verifier, store: Store) -> None:
    with agent.opened(store) as host:
        agent.attest(host)
        verifier.passing = False
        agent.attest(host)
        assert agent.certificate_valid(host) is None


def test_a_certificate_about_to_lapse_is_renewed_on_demand(verifier: Verifier, store: Store) -> None:
    verifier.lifetime = timedelta(seconds=1)
    with agent.opened(store) as host:
        agent.attest(host)
        verifier.lifetime = timedelta(hours=8)
        assert agent.ensure_certificate(host).not_after > datetime.now(UTC) + timedelta(hours=7)


def test_a_portal_that_is_away_does_not_cost_the_certificate(verifier: Verifier, store: Store, portal: Portal) -> None:
    with agent.opened(store) as host:
        agent.attest(host)
        portal.answer = lambda path, body: (503, {})
        with pytest.raises(Unreachable):
            agent.attest(host)
        assert agent.ensure_certificate(host).serial == "abc"


def test_a_token_for_another_key_does_not_open(verifier: Verifier, store: Store) -> None:
    with agent.opened(store) as host:
        credential = agent.ensure_certificate(host)
        head, _, rest = credential.release_secret.split(".", 2)
        with pytest.raises((NotOpened, TpmFailure)):
            agent.open_token(host, credential, f"{head}.{to_b64u(os.urandom(256))}.{rest}")


def test_a_host_that_answers_for_another_tpm_cannot_activate(verifier: Verifier, store: Store, portal: Portal) -> None:
    def swapped(path: str, body: Any) -> tuple[int, Any]:
        status, answer = verifier.answer(path, body)
        if path.endswith("/enrolments"):
            blob, seed = make_credential(
                parse_public(verifier.ek), b"\x00\x0b" + bytes(32), SECRET, seed=bytes(64), ephemeral=None
            )
            answer = {"id": "e", "credential_blob": to_b64u(blob), "secret": to_b64u(seed)}
        return status, answer

    portal.answer = swapped
    with agent.opened(store) as host, pytest.raises(TpmFailure, match="credential"):
        agent.enrol(host)


def test_a_host_without_a_boot_log_says_so(verifier: Verifier, store: Store) -> None:
    store.save_config(replace(store.config(), event_log="/nowhere/log"))
    with agent.opened(store) as host, pytest.raises(AgentError, match="no boot log at /nowhere/log"):
        agent.attest(host)


def test_a_boot_log_that_is_too_large_is_not_sent(verifier: Verifier, store: Store) -> None:
    log = store.folder / "large"
    log.write_bytes(bytes(EVENT_LOG_LIMIT + 1))
    store.save_config(replace(store.config(), event_log=str(log)))
    with agent.opened(store) as host, pytest.raises(AgentError, match="larger than"):
        agent.attest(host)
    assert not verifier.evidence


def test_a_refusal_of_the_evidence_is_raised_and_changes_nothing(
    verifier: Verifier, store: Store, portal: Portal
) -> None:
    with agent.opened(store) as host:
        agent.attest(host)
        before = store.credential()
        portal.answer = lambda path, body: (
            (422, {"code": "wrong_nonce", "detail": "No."})
            if path.endswith("evidence")
            else verifier.answer(path, body)
        )
        with pytest.raises(Refused, match="wrong_nonce"):
            agent.attest(host)
    assert store.credential() == before


def test_nothing_secret_is_logged(verifier: Verifier, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with agent.opened(store) as host:
        agent.open_token(host, agent.ensure_certificate(host), agent.ensure_certificate(host).release_secret)
    sent = verifier.evidence[0]
    for secret in (SECRET.hex(), to_b64u(SECRET), NONCE.hex(), to_b64u(NONCE), sent["quote"], sent["signature"]):
        assert secret not in caplog.text
    assert "status=Passed certificate=abc findings=-" in caplog.text
