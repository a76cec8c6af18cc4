"""The agent in Kerberos mode, with tickets of a real directory, before a portal that accepts them as ours does."""

import json
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from attestation.core.base64url import from_b64u
from attestation.errors import Refusal
from attestation.kerberos import Acceptor, Caller, Ticket, parse_negotiate, written_negotiate
from guardedhost import agent
from guardedhost.diagnosis.bundle import read_bundle, write_bundle
from guardedhost.diagnosis.checks import diagnose
from guardedhost.diagnosis.collect import collect
from guardedhost.diagnosis.outcome import Result
from guardedhost.errors import AgentError, LibraryMissing, Refused, Unproven, Unreachable
from guardedhost.store import Store
from tests.ad import Domain, started
from tests.guardedhost.conftest import Portal
from tests.guardedhost.test_commands import run
from tests.guardedhost.verifier import SECRET, Verifier
from tests.kdc import REALM, using

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Service:
    """A portal in Kerberos mode: the acceptor is the portal's own, the verdict is that a member passes."""

    acceptor: Acceptor
    url: str = ""
    passing: bool = True
    reply: str | None = None  # instead of the proof
    refusal: tuple[int, object] | None = None  # what an impostor says who cannot open a ticket
    tickets: list[Ticket] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    with started(tmp_path_factory.mktemp("ad")) as domain:
        yield domain


@pytest.fixture
def domain(running: Domain) -> Iterator[Domain]:
    with using(running):
        yield running


@pytest.fixture
def service(domain: Domain, tmp_path: Path) -> Iterator[Service]:
    state = Service(Acceptor(domain.keytab("hgs"), "HTTP@hgs.fabric.test", REALM, tmp_path / "replays"))
    verdicts = Verifier()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200, {"fabric": "f", "mode": "kerberos", "version": "0.1.0"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if state.refusal is not None:
                self.answer(*state.refusal, state.reply or "")
                return
            proof = ""
            try:
                ticket = state.acceptor.accept(parse_negotiate(self.headers.get("Authorization", "")), body=body)
                state.tickets.append(ticket)
                proof = written_negotiate(ticket.reply) if state.reply is None else state.reply
                caller = state.acceptor.caller(ticket)
            except Refusal as refusal:
                answer = {"code": refusal.code, "detail": str(refusal)}
                self.answer(refusal.status, answer, proof or refusal.scheme)
                return
            state.callers.append(caller)
            asked = json.loads(body)
            spki, verdicts.trial = from_b64u(asked["transport_key"]), asked["trial"]
            verdicts.passing = state.passing
            self.answer(200, verdicts.passed(spki), proof)

        def answer(self, status: int, answer: object, proof: str = "") -> None:
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if proof:
                self.send_header("WWW-Authenticate", proof)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def member(service: Service, domain: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A host without a TPM that has its machine account's keytab."""
    monkeypatch.setattr(agent, "service_host", lambda server: "hgs.fabric.test")  # no DNS leads to the test's portal
    store = Store(tmp_path / "host")
    keytab = str(domain.keytab("member"))
    config = replace(store.config(), server=service.url, tcti="", keytab=keytab, name="nbg-d01")
    with agent.opened(store, config) as host:
        agent.use_account(host)
    return store


def test_a_member_gets_a_certificate_and_opens_its_secret(member: Store, service: Service) -> None:
    with agent.opened(member) as host:
        assert agent.attest(host).status == "Passed"
        credential = agent.certificate_valid(host)
        assert credential is not None
        assert credential.mode == "kerberos"
        assert agent.open_token(host, credential, credential.release_secret) == SECRET
    (caller,) = service.callers
    assert caller.account == "member$"


def test_each_attestation_has_a_ticket_of_its_own(member: Store, service: Service) -> None:
    with agent.opened(member) as host:
        for _ in range(3):
            assert agent.attest(host).status == "Passed"
    assert len(service.callers) == 3


@pytest.mark.parametrize("reply", ["", "Negotiate", "Negotiate AAAA", "Basic AAAA", "Negotiate !!"])
def test_a_portal_that_does_not_prove_itself_is_not_believed(member: Store, service: Service, reply: str) -> None:
    service.reply = reply
    with agent.opened(member) as host, pytest.raises(Unproven, match="has not proved"):
        agent.attest(host)
    assert member.credential() is None


def test_the_proof_of_another_conversation_is_none(member: Store, service: Service) -> None:
    with agent.opened(member) as host:
        agent.attest(host)
        service.reply = written_negotiate(service.tickets[0].reply)
        with pytest.raises(Unproven, match="has not proved"):
            agent.attest(host)


def test_a_keytab_that_is_not_there_or_not_the_domains_is_named(
    member: Store, service: Service, domain: Domain, tmp_path: Path
) -> None:
    with agent.opened(member, replace(member.config(), keytab=str(tmp_path / "none"))) as host:
        with pytest.raises(AgentError, match="There is no keytab"):
            agent.use_account(host)
        with pytest.raises(AgentError, match="gave no ticket"):
            agent.attest(host)
    nobody = replace(member.config(), principal=f"nobody$@{REALM}")
    with agent.opened(member, nobody) as host, pytest.raises(AgentError, match="gave no ticket"):
        agent.attest(host)
    assert not service.callers


def test_a_service_that_the_domain_does_not_know_gets_no_ticket(
    member: Store, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "service_host", lambda server: "impostor.fabric.test")
    with agent.opened(member) as host, pytest.raises(AgentError, match="gave no ticket"):
        agent.attest(host)
    assert not service.callers


def test_a_portal_that_refuses_is_heard(member: Store, service: Service, domain: Domain) -> None:
    person = replace(member.config(), keytab=str(domain.keytab("alice")))
    with agent.opened(member, person) as host, pytest.raises(Refused, match="no machine account"):
        agent.attest(host)
    assert member.credential() is None


@pytest.fixture
def without_gssapi(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose operator has not installed what Kerberos mode needs."""
    monkeypatch.delitem(sys.modules, "guardedhost.kerberos", raising=False)
    monkeypatch.setitem(sys.modules, "gssapi", None)


def test_a_host_without_gssapi_is_told_what_to_run(
    member: Store, service: Service, domain: Domain, without_gssapi: None
) -> None:
    with agent.opened(member) as host:
        with pytest.raises(LibraryMissing, match="gssapi and libkrb5, which cannot be loaded") as caught:
            agent.attest(host)
        with pytest.raises(LibraryMissing):
            agent.use_account(host)
    ticket = next(line.outcome for line in diagnose(collect(member)).lines if line.check == "ticket")
    assert ticket.result is Result.FAIL
    assert ticket.remedy == caught.value.remedy
    (command,) = re.findall(r"`(.+?)`", ticket.remedy)
    python, *words = shlex.split(command)
    assert Path(python).samefile(sys.executable)
    assert words == ["-m", "pip", "install", "--require-hashes", "-r", "requirements/kerberos.txt"]
    assert not service.callers


def test_what_a_host_is_told_to_install_is_pinned_beside_all_else_that_it_has() -> None:
    """One host may install both files, so what is in both has one version."""
    of_hosts, of_kerberos = pinned("host"), pinned("kerberos")
    assert "gssapi" in of_kerberos
    assert "gssapi" not in of_hosts
    assert of_kerberos.keys() - of_hosts.keys() == {"gssapi", "decorator"}
    assert all(of_hosts[name] == of_kerberos[name] for name in of_hosts.keys() & of_kerberos.keys())


def pinned(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE))


UNKNOWN = {"code": "unauthorized_host", "detail": "Nobody knows this host."}


@pytest.mark.parametrize("reply", ["", "Negotiate", "Negotiate AAAA", "Basic AAAA"])
@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_a_refusal_by_somebody_else_is_none_of_the_portals(
    member: Store, service: Service, status: int, reply: str
) -> None:
    """Its certificate in hand stays, and whoever reads the message is told that the portal may think otherwise."""
    with agent.opened(member) as host:
        agent.attest(host)
        service.refusal, service.reply = (status, UNKNOWN), reply
        with pytest.raises(Unproven, match=r"has not proved .* refuses this host: Nobody knows"):
            agent.attest(host)
        assert agent.certificate_valid(host) is not None


def test_a_refusal_with_the_proof_of_another_conversation_is_none_of_the_portals(
    member: Store, service: Service
) -> None:
    with agent.opened(member) as host:
        agent.attest(host)
        service.refusal, service.reply = (403, UNKNOWN), written_negotiate(service.tickets[0].reply)
        with pytest.raises(Unproven):
            agent.attest(host)


def test_a_refusal_of_the_ticket_itself_is_heard_and_said_to_be_unproven(member: Store, service: Service) -> None:
    """A portal that cannot open a ticket can prove nothing; that a clock is off has to be said all the same."""
    service.refusal = (401, {"code": "ticket_refused", "detail": "Often a clock is off."})
    service.reply = "Negotiate"
    with agent.opened(member) as host, pytest.raises(Refused, match="TLS alone vouches") as caught:
        agent.attest(host)
    assert caught.value.code == "ticket_refused"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_portal_that_cannot_answer_now_is_tried_later(member: Store, service: Service, status: int) -> None:
    service.refusal = (status, {})
    with agent.opened(member) as host, pytest.raises(Unreachable):
        agent.attest(host)


def test_the_diagnosis_tells_the_portals_refusal_from_an_impostors(
    member: Store, service: Service, domain: Domain
) -> None:
    member.save_config(replace(member.config(), keytab=str(domain.keytab("alice"))))
    said = diagnose(collect(member))
    assert said.status == "UnauthorizedHost"
    assert "not_a_machine" in said.lines[-1].outcome.what
    service.refusal = (403, UNKNOWN)
    trace = collect(member)
    said = diagnose(trace)
    assert said.status == "TransientError"
    assert said.lines[-1].outcome.result is Result.FAIL
    assert "has not proved" in said.lines[-1].outcome.what
    assert "no verdict" in said.lines[-1].outcome.why
    assert diagnose(read_bundle(write_bundle(trace))) == said


def test_the_command_line_takes_the_keytab(domain: Domain, portal: Portal, tmp_path: Path) -> None:
    words = ("--server", portal.url, "--mode", "kerberos", "--tcti", "", "--state-dir", tmp_path / "h")
    done = run("host", "enrol", *words, "--keytab", tmp_path / "none")
    assert done.returncode != 0
    assert "There is no keytab" in done.stderr
    done = run("host", "enrol", *words, "--keytab", domain.keytab("member"))
    assert done.returncode == 0
    status = json.loads(run("host", "status", "--json", "--state-dir", tmp_path / "h").stdout)
    assert status["registered"] == ["kerberos"]


def test_the_diagnosis_of_a_member_finds_all_in_order(member: Store) -> None:
    """Its certificate too, whose key is bound to no TPM and to no boot."""
    with agent.opened(member) as host:
        agent.attest(host)
    trace = collect(member)
    lines = {line.check: line.outcome for line in diagnose(trace).lines}
    assert lines["keytab"].result is lines["ticket"].result is Result.PASS
    assert lines["tpm"].result is Result.SKIPPED
    assert lines["certificate"].result is Result.PASS
    assert lines["verdict"].result is Result.PASS
    assert read_bundle(write_bundle(trace)) == trace
    assert b"BEGIN" not in write_bundle(trace)


def test_a_look_at_a_member_leaves_its_certificate_alone(member: Store, service: Service, domain: Domain) -> None:
    with agent.opened(member) as host:
        agent.attest(host)
    service.passing = False
    before = {path.name: path.read_bytes() for path in member.folder.iterdir()}
    assert diagnose(collect(member)).status == "InsecureHostConfiguration"
    member.save_config(replace(member.config(), keytab=str(domain.keytab("alice"))))
    assert diagnose(collect(member)).status == "UnauthorizedHost"
    after = {path.name: path.read_bytes() for path in member.folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"config.json"}
    assert before.keys() == after.keys()


@pytest.mark.parametrize("trouble", ["none", "missing", "open", "stranger"])
def test_the_diagnosis_says_what_is_wrong_with_the_account(
    member: Store, domain: Domain, tmp_path: Path, trouble: str
) -> None:
    keytab = tmp_path / "moved"
    if trouble != "missing":
        shutil.copy(domain.keytab("member"), keytab)
        keytab.chmod(0o644 if trouble == "open" else 0o600)
    member.save_config(
        replace(
            member.config(),
            attester="by-its-tpm" if trouble == "none" else "",
            keytab="" if trouble == "none" else str(keytab),
            principal=f"nobody$@{REALM}" if trouble == "stranger" else "",
        )
    )
    lines = {line.check: line.outcome for line in diagnose(collect(member)).lines}
    wrong, said = {
        "none": ("keytab", "told of no keytab"),
        "missing": ("keytab", "cannot be read"),
        "open": ("keytab", "by others than its owner"),
        "stranger": ("ticket", "gave no ticket"),
    }[trouble]
    assert lines[wrong].result is Result.FAIL
    assert said in lines[wrong].what
    assert lines[wrong].remedy
