"""Hosts of every kind, and the people who decide about them."""

import base64
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from django.contrib.auth.models import Permission, User
from pytest_django import Settings
from rest_framework.test import APIClient

from attestation import service
from attestation.core.base64url import to_b64u
from attestation.models import KerberosGroup, ModeSwitch
from tests import mit
from tests.ad import Domain, may_have_ldap, started
from tests.attestation.tickets import ASKED, GROUP, Approve, send
from tests.ima_lists import ng
from tests.kdc import REALM, Realm, using
from tests.machines import CAPTURES, Machine, booted, booted_from, decoded, switched_on
from tests.measuring import FILES, Running
from tests.tpm_lab import Maker
from tests.updates import with_new_kernel


@pytest.fixture(scope="session")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """The TPM maker that the fabric trusts."""
    return Maker(tmp_path_factory.mktemp("maker"))


@pytest.fixture(scope="session")
def healthy(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with booted(maker, tmp_path_factory.mktemp("tpm"), name="nbg-a01", capture="secureboot-on") as machine:
        yield machine


@pytest.fixture(scope="session")
def drifted(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A host that booted the same system with one more word on the kernel command line."""
    with booted(maker, tmp_path_factory.mktemp("tpm"), name="nbg-a02", capture="cmdline-drift") as machine:
        yield machine


@pytest.fixture(scope="session")
def updated(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A host that booted the healthy one's system with a new kernel."""
    log = with_new_kernel("secureboot-on")
    with booted_from(maker, tmp_path_factory.mktemp("tpm"), name="nbg-a04", log=log) as machine:
        yield machine


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A host whose TPM was made by somebody the fabric does not trust."""
    stranger = Maker(tmp_path_factory.mktemp("stranger"))
    with booted(stranger, tmp_path_factory.mktemp("tpm"), name="nbg-a03", capture="uki") as machine:
        yield machine


@pytest.fixture
def trusted_maker(db: None, maker: Maker, healthy: Machine) -> None:
    for authority in maker.authorities():
        pem = authority.public_bytes(Encoding.PEM)
        service.trust_authority(pem, provenance="the lab", by="system", now=datetime.now(UTC))


def person(name: str, *permissions: str) -> User:
    user = User.objects.create_user(name)
    codenames = Permission.objects.filter(content_type__app_label="attestation", codename__in=permissions)
    user.user_permissions.set(codenames)
    return user


@pytest.fixture
def admin(db: None) -> User:
    return person("ada", "propose", "decide", "revoke")


@pytest.fixture
def approver(db: None) -> User:
    return person("ben", "propose", "decide")


class Portal:
    """The machine API, as an agent uses it, in this process."""

    def __init__(self) -> None:
        self.client = APIClient()

    def post(self, path: str, body: object) -> Any:
        return self.client.post(f"/attestation/v1/{path}", body, format="json")

    def get(self, path: str) -> Any:
        return self.client.get(f"/attestation/v1/{path}")

    def enrol(self, machine: Machine, **changes: object) -> Any:
        """Enrol a machine and activate its credential; return the last answer."""
        answer = self.post("enrolments", machine.enrolment(**changes))
        if answer.status_code != 201:
            return answer
        opened = machine.activate(decoded(answer.json(), "credential_blob"), decoded(answer.json(), "secret"))
        done = self.post(f"enrolments/{answer.json()['id']}/activation", {"secret": to_b64u(opened)})
        if done.status_code == 200:
            machine.attester = done.json()["attester"]
        return done

    def challenge(self, machine: Machine, **extra: object) -> Any:
        return self.post("challenges", {"attester": machine.attester, **extra})

    def attest(self, machine: Machine, **how: Any) -> Any:
        """Take a challenge and answer it."""
        challenge = self.challenge(machine).json()
        body = machine.evidence(decoded(challenge, "nonce"), **how)
        return self.post(f"challenges/{challenge['id']}/evidence", body)


@pytest.fixture
def portal(trusted_maker: None) -> Portal:
    return Portal()


@pytest.fixture
def fabric(portal: Portal, healthy: Machine, admin: User, approver: User) -> Portal:
    """A fabric whose healthy host and its baseline two persons have approved, and that has attested."""
    approve_host(portal, healthy, admin, approver)
    approve_baseline(portal, healthy, admin, approver)
    return portal


def approve_host(portal: Portal, machine: Machine, admin: User, approver: User) -> None:
    assert portal.enrol(machine).status_code == 200
    now = datetime.now(UTC)
    proposal = service.propose_host(UUID(machine.attester), by=admin, reason="new rack", now=now)
    service.decide(proposal.id, by=approver, approve=True, reason="seen the rack", now=now)


def approve_baseline(portal: Portal, machine: Machine, admin: User, approver: User, name: str = "trixie") -> None:
    assert portal.attest(machine).status_code == 200
    now = datetime.now(UTC)
    newest = service.attestations().filter(attester_id=machine.attester, code="").first()
    assert newest is not None
    proposal = service.capture_baseline(newest.id, name=name, by=admin, reason="first boot", now=now)
    service.decide(proposal.id, by=approver, approve=True, reason="compared the log", now=now)


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """An Active Directory that runs; tests take `domain`."""
    with started(tmp_path_factory.mktemp("ad"), with_ldap=may_have_ldap()) as domain:
        yield domain


@pytest.fixture
def domain(directory: Domain) -> Iterator[Domain]:
    with using(directory):
        yield directory


@pytest.fixture(scope="session")
def plain_kdc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    """MIT's KDC, which knows no groups; tests take `no_directory`."""
    with mit.started(tmp_path_factory.mktemp("mit")) as realm:
        yield realm


@pytest.fixture
def no_directory(plain_kdc: Realm) -> Iterator[Realm]:
    with using(plain_kdc):
        yield plain_kdc


@pytest.fixture
def node(db: None, domain: Domain, settings: Settings, tmp_path: Path) -> None:
    """This node has the keytab of its service, and Kerberos mode is in force."""
    settings.KERBEROS_KEYTAB = str(domain.keytab("hgs"))
    settings.KERBEROS_SERVICE = "HTTP@hgs.fabric.test"
    settings.KERBEROS_REALM = REALM
    settings.KERBEROS_REPLAY_CACHE = tmp_path / "replays"
    ModeSwitch.objects.create(mode="kerberos", since=datetime.now(UTC), by="system", reason="a test")


@pytest.fixture
def approve(domain: Domain, admin: User, approver: User) -> Approve:
    def group(name: str = GROUP) -> KerberosGroup:
        now = datetime.now(UTC)
        proposal = service.propose_kerberos_group(domain.sids[name], name, by=admin, reason="ours", now=now)
        service.decide(proposal.id, by=approver, approve=True, reason="compared the SID", now=now)
        return KerberosGroup.objects.get(sid=domain.sids[name], state="approved")

    return group


@pytest.fixture
def attest(domain: Domain) -> Callable[..., Any]:
    def post(
        account: str = "member$", body: bytes = ASKED, *, sent: bytes | None = None, cache: str | None = None
    ) -> Any:
        context, token = domain.begin(account, body=body, cache=cache)
        answer = send(f"Negotiate {base64.b64encode(token).decode()}", body if sent is None else sent)
        if answer.status_code != 401:  # the ticket was good, so the service has proved itself, whatever it says
            context.step(base64.b64decode(answer["WWW-Authenticate"].removeprefix("Negotiate ")))
            assert context.complete
        return answer

    return post


@pytest.fixture(scope="session")
def switched_off(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a TPM that was manufactured and never ran; a copy of it is the same TPM."""
    state = tmp_path_factory.mktemp("tpm") / "nbg-i01"
    maker.manufacture(state)
    return state


@pytest.fixture
def running(maker: Maker, switched_off: Path, tmp_path: Path) -> Iterator[Running]:
    state = Path(shutil.copytree(switched_off, tmp_path / "nbg-i01"))
    log = (CAPTURES / "secureboot-on" / "eventlog.bin").read_bytes()
    with switched_on(maker, state, name="nbg-i01", log=log) as machine:
        yield Running(machine)


@pytest.fixture
def watched(fabric: Portal, running: Running, admin: User, approver: User) -> Portal:
    """A fabric that has approved the running host; its baseline is that of the healthy host, which booted the same."""
    approve_host(fabric, running.machine, admin, approver)
    running.measure(*(ng(path, content) for path, content in FILES.items()))
    return fabric
