"""The wire: where the agent refuses to talk, and what it makes of bad answers."""

from typing import Any

import pytest

from guardedhost.client import Client
from guardedhost.errors import AgentError, Refused, Unreachable
from tests.guardedhost.conftest import Portal

CHALLENGE = {
    "id": "c1",
    "nonce": "A" * 43,
    "pcrs": [0, 1, 10],
    "boot_pcrs": [0, 1],
    "bank": "sha256",
    "send_event_log": True,
}


@pytest.mark.parametrize(
    "server",
    [
        "http://portal.example",
        "http://192.0.2.1:8000",
        "http://127.0.0.1.example",
        "http://localhost.example",
        "http://10.0.0.1",
        "ftp://127.0.0.1",
        "https://user:password@portal.example",
        "https://portal.example/?query",
        "portal.example",
        "",
    ],
)
def test_the_agent_talks_to_no_such_url(server: str) -> None:
    with pytest.raises(AgentError):
        Client(server)


@pytest.mark.parametrize(
    "server", ["https://portal.example", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"]
)
def test_the_agent_talks_to_https_and_to_this_machine(server: str) -> None:
    Client(server)


def test_a_challenge_is_read(portal: Portal) -> None:
    portal.answer = lambda path, body: (201, CHALLENGE)
    challenge = Client(portal.url + "/").challenge("host", "00")
    assert (challenge.id, challenge.nonce, challenge.boot_pcrs) == ("c1", bytes(32), (0, 1))
    assert portal.seen == [("/attestation/v1/challenges", {"attester": "host", "event_log_sha256": "00"})]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"nonce": ""}, id="no nonce"),
        pytest.param({"nonce": "A" * 20}, id="short nonce"),
        pytest.param({"nonce": "A" * 200}, id="something else to sign"),
        pytest.param({"bank": "sha1"}, id="weak bank"),
        pytest.param({"pcrs": []}, id="no PCRs"),
        pytest.param({"pcrs": [24]}, id="no such PCR"),
        pytest.param({"boot_pcrs": [-1]}, id="negative PCR"),
        pytest.param({"pcrs": "all"}, id="PCRs in words"),
        pytest.param({"nonce": 7}, id="number for text"),
    ],
)
def test_a_challenge_that_should_not_be_signed_is_not(portal: Portal, change: dict[str, Any]) -> None:
    portal.answer = lambda path, body: (201, {**CHALLENGE, **change})
    with pytest.raises(Unreachable, match="agreed form"):
        Client(portal.url).challenge("host", "00")


def test_a_refusal_keeps_its_code_and_sentence(portal: Portal) -> None:
    portal.answer = lambda path, body: (409, {"code": "challenge_spent", "detail": "Ask for another.", "status": 409})
    with pytest.raises(Refused, match="Ask for another") as refusal:
        Client(portal.url).challenge("host", "00")
    assert refusal.value.code == "challenge_spent"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("answer", [{"code": "x"}, b"<html>", b""])
def test_a_portal_in_trouble_is_asked_again_later(portal: Portal, status: int, answer: Any) -> None:
    portal.answer = lambda path, body: (status, answer)
    with pytest.raises(Unreachable):
        Client(portal.url).challenge("host", "00")


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b"{}", b'"text"', b"{" + b" " * (5 << 20) + b"}"])
def test_an_answer_in_another_form_is_not_believed(portal: Portal, answer: bytes) -> None:
    portal.answer = lambda path, body: (200, answer)
    with pytest.raises(Unreachable, match="agreed form"):
        Client(portal.url).challenge("host", "00")


def test_a_redirect_is_not_followed(portal: Portal) -> None:
    portal.answer = lambda path, body: (307, {})
    portal.headers = {"Location": "/elsewhere"}
    with pytest.raises(Unreachable):
        Client(portal.url).challenge("host", "00")
    assert len(portal.seen) == 1


def test_a_proxy_in_the_environment_is_not_asked(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    portal.answer = lambda path, body: (201, CHALLENGE)
    assert Client(portal.url).challenge("host", "00").id == "c1"


def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="nobody answers"):
        Client("http://127.0.0.1:9").challenge("host", "00")


def test_an_absent_authorities_file_is_a_sentence() -> None:
    with pytest.raises(AgentError, match="trusted authorities"):
        Client("https://127.0.0.1:9", ca="/nowhere/ca.pem").challenge("host", "00")
