"""The wire: where the agent refuses to talk, and what it makes of bad answers."""

import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

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
    challenge = Client(portal.url + "/").challenge("host", "00", boot=7, trial=False)
    assert (challenge.id, challenge.nonce, challenge.boot_pcrs) == ("c1", bytes(32), (0, 1))
    assert portal.seen == [
        ("/attestation/v1/challenges", {"attester": "host", "event_log_sha256": "00", "boot": 7, "trial": False})
    ]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"nonce": ""}, id="no nonce"),
        pytest.param({"pcrs": [float("inf")]}, id="no number"),
        pytest.param({"nonce": "A" * 20}, id="short nonce"),
        pytest.param({"nonce": "A" * 200}, id="something else to sign"),
        pytest.param({"bank": "sha1"}, id="weak bank"),
        pytest.param({"pcrs": []}, id="no PCRs"),
        pytest.param({"pcrs": [24]}, id="no such PCR"),
        pytest.param({"boot_pcrs": [-1]}, id="negative PCR"),
        pytest.param({"pcrs": "all"}, id="PCRs in words"),
        pytest.param({"nonce": 7}, id="number for text"),
        pytest.param({"trial": True}, id="for a trial"),
    ],
)
def test_a_challenge_that_should_not_be_signed_is_not(portal: Portal, change: dict[str, Any]) -> None:
    portal.answer = lambda path, body: (201, {**CHALLENGE, **change})
    with pytest.raises(Unreachable, match="agreed form"):
        Client(portal.url).challenge("host", "00", boot=7, trial=False)


def test_a_refusal_keeps_its_code_and_sentence(portal: Portal) -> None:
    portal.answer = lambda path, body: (409, {"code": "challenge_spent", "detail": "Ask for another.", "status": 409})
    with pytest.raises(Refused, match="Ask for another") as refusal:
        Client(portal.url).challenge("host", "00", boot=7, trial=False)
    assert refusal.value.code == "challenge_spent"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("answer", [{"code": "x"}, b"<html>", b""])
def test_a_portal_in_trouble_is_asked_again_later(portal: Portal, status: int, answer: Any) -> None:
    portal.answer = lambda path, body: (status, answer)
    with pytest.raises(Unreachable):
        Client(portal.url).challenge("host", "00", boot=7, trial=False)


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b"{}", b'"text"', b"{" + b" " * (5 << 20) + b"}"])
def test_an_answer_in_another_form_is_not_believed(portal: Portal, answer: bytes) -> None:
    portal.answer = lambda path, body: (200, answer)
    with pytest.raises(Unreachable, match="agreed form"):
        Client(portal.url).challenge("host", "00", boot=7, trial=False)


def test_a_redirect_is_not_followed(portal: Portal) -> None:
    portal.answer = lambda path, body: (307, {})
    portal.headers = {"Location": "/elsewhere"}
    with pytest.raises(Unreachable):
        Client(portal.url).challenge("host", "00", boot=7, trial=False)
    assert len(portal.seen) == 1


def test_a_proxy_in_the_environment_is_not_asked(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    portal.answer = lambda path, body: (201, CHALLENGE)
    assert Client(portal.url).challenge("host", "00", boot=7, trial=False).id == "c1"


def test_nobody_there_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="nobody answers"):
        Client("http://127.0.0.1:9").challenge("host", "00", boot=7, trial=False)


def test_an_absent_authorities_file_is_a_sentence() -> None:
    with pytest.raises(AgentError, match="trusted authorities"):
        Client("https://127.0.0.1:9", ca="/nowhere/ca.pem").challenge("host", "00", boot=7, trial=False)


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An https server on a loopback address that answers with a refusal, and the certificate it shows."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "portal")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    certificate = builder.add_extension(addresses, False).add_extension(constraints, True).sign(key, hashes.SHA256())
    shown, private = tmp_path / "portal.pem", tmp_path / "portal.key"
    shown.write_bytes(certificate.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown, private)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(403)
            self.end_headers()
            self.wfile.write(b'{"code": "reached", "detail": "Reached."}')

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(HTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that hangs up during the handshake is what the test is about."""

    with Server(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}", shown
        server.shutdown()
        thread.join()


def test_a_portal_with_a_certificate_of_nobody_we_know_gets_nothing(tls: tuple[str, Path]) -> None:
    with pytest.raises(Unreachable, match="certificate is not trusted"):
        Client(tls[0]).challenge("host", "00", boot=7, trial=False)


def test_the_operator_names_the_authorities_of_the_portal(tls: tuple[str, Path]) -> None:
    with pytest.raises(Refused, match="Reached"):
        Client(tls[0], ca=str(tls[1])).challenge("host", "00", boot=7, trial=False)
