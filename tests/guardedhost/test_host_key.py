"""The agent in host-key mode: a key of its own, a proof for each nonce, and following the fabric's mode."""

import json
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from attestation.core.base64url import from_b64u, to_b64u
from attestation.core.possession import HostKey, parse_host_key, verify_possession
from guardedhost import agent, daemon, host_key
from guardedhost.errors import AgentError, StoreDamaged
from guardedhost.store import Store
from tests.guardedhost.conftest import Portal
from tests.guardedhost.test_commands import run
from tests.guardedhost.verifier import SECRET, Verifier


class KeyVerifier(Verifier):
    """A portal that knows hosts by their keys too, and which of its modes is in force."""

    def __init__(self, portal: Portal) -> None:
        super().__init__()
        self.portal, self.tried = portal, list[str]()
        self.key: HostKey | None = None

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if path.endswith("/host-keys"):
            self.key = parse_host_key(from_b64u(body["host_key"]))
            return 201, {"id": "k", "nonce": to_b64u(self.nonce)}
        if path.endswith("/proof"):
            assert self.key is not None
            verify_possession(body["proof"], self.key, nonce=from_b64u(body["nonce"]))
            return 200, {"attester": "by-key", "state": "pending", "detail": "Wait."}
        mode = "hostkey" if path.endswith("/possession") else "tpm"
        status, answer = (200, self._possession(body)) if mode == "hostkey" else super().answer(path, body)
        if "status" in answer:
            self.tried.append(mode)
            if mode != self.portal.mode:  # it is a trial, which earns nothing
                answer = {**answer, "certificate": None, "release_secret": None}
        return status, answer

    def _possession(self, body: dict[str, Any]) -> dict[str, Any]:
        assert self.key is not None
        spki = verify_possession(body["proof"], self.key, nonce=self.nonce).transport_spki
        assert spki is not None
        return self.passed(spki)


@pytest.fixture
def verifier(portal: Portal) -> KeyVerifier:
    verifier = KeyVerifier(portal)
    portal.answer, portal.mode = verifier.answer, "hostkey"
    return verifier


@pytest.fixture
def bare(tmp_path: Path, portal: Portal, verifier: KeyVerifier) -> Store:
    """A host without a TPM, registered by its key."""
    store = Store(tmp_path / "bare")
    with agent.opened(store, replace(store.config(), server=portal.url, tcti="", name="nbg-k01")) as host:
        assert agent.register_host_key(host).state == "pending"
    return store


@pytest.fixture
def both(store: Store, portal: Portal, verifier: KeyVerifier) -> Store:
    """A lab host that is known by its TPM and by a key."""
    with agent.opened(store, replace(store.config(), server=portal.url)) as host:
        agent.enrol(host)
    with agent.opened(store) as host:
        agent.register_host_key(host)
    return store


def test_a_host_without_a_tpm_gets_a_certificate_and_opens_its_secret(bare: Store) -> None:
    with agent.opened(bare) as host:
        assert agent.attest(host).status == "Passed"
        credential = agent.certificate_valid(host)
        assert credential is not None
        assert credential.mode == "hostkey"
        assert agent.open_token(host, credential, credential.release_secret) == SECRET


def test_its_keys_are_its_own_and_only_it_reads_them(bare: Store) -> None:
    with agent.opened(bare) as host:
        agent.attest(host)
    for name in ("host-key.pem", "own-transport.json", "credential.json"):
        assert stat.S_IMODE((bare.folder / name).stat().st_mode) == 0o600
    first = host_key.public_spki(host_key.host_key(bare.folder))
    assert host_key.public_spki(host_key.host_key(bare.folder)) == first
    assert "PRIVATE" not in repr(bare.credential())


def test_the_operators_own_key_is_used(tmp_path: Path) -> None:
    made = rsa.generate_private_key(65537, 2048)
    (tmp_path / "host-key.pem").write_bytes(host_key.private_pem(made))
    assert host_key.public_spki(host_key.host_key(tmp_path)) == host_key.public_spki(made)


@pytest.mark.parametrize("kind", ["none", "another"])
def test_what_is_no_host_key_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    content = b"no key" if kind == "none" else ed25519.Ed25519PrivateKey.generate().private_bytes(*form)
    (tmp_path / "host-key.pem").write_bytes(content)
    with pytest.raises(StoreDamaged):
        host_key.host_key(tmp_path)
    assert (tmp_path / "host-key.pem").read_bytes() == content


def test_a_token_for_another_key_is_not_opened() -> None:
    one, other = (host_key.private_pem(host_key.new_transport_key()) for _ in range(2))
    assert one != other
    with pytest.raises(AgentError):
        host_key.decrypt(one, os.urandom(256))


def test_a_host_that_is_not_registered_for_the_mode_is_told_how(store: Store, portal: Portal) -> None:
    store.save_config(replace(store.config(), server=portal.url, attester="host"))
    portal.mode = "hostkey"
    with agent.opened(store) as host, pytest.raises(agent.NotInMode, match="enrol --mode hostkey"):
        agent.attest(host)


def test_a_host_without_a_tpm_says_so_when_it_is_asked_for_one(bare: Store, portal: Portal) -> None:
    portal.mode = "tpm"
    with agent.opened(bare) as host:
        with pytest.raises(agent.NotInMode):
            agent.attest(host)
        with pytest.raises(AgentError, match="without a TPM"):
            agent.enrol(host)


def test_the_agent_attests_in_the_mode_in_force_and_tries_the_other(
    both: Store, portal: Portal, verifier: KeyVerifier
) -> None:
    for mode, other in (("hostkey", "tpm"), ("tpm", "hostkey")):
        portal.mode = mode
        with agent.opened(both) as host:
            assert agent.attest(host).certificate is not None
            credential = agent.certificate_valid(host)
            assert credential is not None
            assert credential.mode == mode
            assert agent.open_token(host, credential, credential.release_secret) == SECRET
            tried = agent.rehearse(host)
            assert {each: verdict.certificate for each, verdict in tried.items()} == {other: None}
            assert both.credential() == credential  # a trial touches nothing
    assert verifier.tried == ["hostkey", "tpm", "tpm", "hostkey"]


def test_the_daemon_follows_a_switch_by_itself(
    both: Store, portal: Portal, verifier: KeyVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(daemon, "until_next", lambda *_: 3600.0)
    stop, seen = threading.Event(), threading.Event()
    answered = verifier.answer

    def answer(path: str, body: Any) -> tuple[int, Any]:
        status, reply = answered(path, body)
        if verifier.tried == ["hostkey", "tpm"]:  # in force, and the other on trial
            portal.mode = "tpm"
        if len(verifier.tried) > 2:
            seen.set()
            stop.set()
        return status, reply

    portal.answer = answer
    running = threading.Thread(target=daemon.run, args=(both, stop))
    running.start()
    assert seen.wait(30)
    running.join(30)
    assert verifier.tried == ["hostkey", "tpm", "tpm"]
    credential = both.credential()
    assert credential is not None
    assert credential.mode == "tpm"


def test_a_nonce_that_is_none_is_not_signed(tmp_path: Path, portal: Portal) -> None:
    portal.answer = lambda path, body: (201, {"id": "k", "nonce": to_b64u(b"short")})
    store = Store(tmp_path / "bare")
    config = replace(store.config(), server=portal.url, tcti="", name="nbg-k01")
    with agent.opened(store, config) as host, pytest.raises(AgentError):
        agent.register_host_key(host)
    assert len(portal.seen) == 1


def test_an_operator_registers_a_key_and_rehearses(both: Store, portal: Portal, verifier: KeyVerifier) -> None:
    done = run("host", "attest", "--state-dir", both.folder)
    assert (done.returncode, done.stdout) == (0, "Passed\n")
    status = json.loads(run("host", "status", "--json", "--state-dir", both.folder).stdout)
    assert (status["mode"], status["registered"]) == ("hostkey", ["tpm", "hostkey"])
    done = run("host", "rehearse", "--state-dir", both.folder)
    assert (done.returncode, done.stdout) == (0, "tpm: Passed\n")
    verifier.passing = False
    done = run("host", "rehearse", "--json", "--state-dir", both.folder)
    assert done.returncode == 1
    assert json.loads(done.stdout)["tpm"]["findings"][0]["pcrs"] == [8]


def test_a_host_that_is_registered_once_has_nothing_to_rehearse(bare: Store) -> None:
    done = run("host", "rehearse", "--state-dir", bare.folder)
    assert (done.returncode, done.stdout) == (0, "This host is registered for no other mode.\n")


def test_a_host_that_is_registered_by_its_key_on_the_command_line(tmp_path: Path, verifier: KeyVerifier) -> None:
    words = ("--server", verifier.portal.url, "--mode", "hostkey", "--tcti", "", "--name", "nbg-k01")
    done = run("host", "enrol", *words, "--state-dir", tmp_path / "bare")
    assert (done.returncode, done.stdout) == (0, "pending: Wait.\n")
