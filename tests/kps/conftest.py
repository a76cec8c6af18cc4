"""A fabric with one approved, attested host, a tenant, and requests that the host makes with its real TPM."""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from attestation.core.certificate import serial_text
from guardedhost.jwe import open_jwe
from kps import service
from kps.core.chain import new_statement, sign_statement
from kps.core.guardian import Guardian, GuardianKeys, parse_metadata
from kps.core.handback import Return, build_return
from kps.core.offline import Account, build_account
from kps.core.protector import wrap_again
from kps.core.release_policy import NO_POLICY, ReleasePolicy
from kps.core.request import ReleaseRequest, build_request
from kps.core.wrap import ReleasedKeys, parse_released
from tests.attestation.conftest import (
    Portal,
    admin,
    approve_host,
    approver,
    fabric,
    healthy,
    maker,
    portal,
    trusted_maker,
)
from tests.kps.parties import ID, KEY, OWNER, OWNERS
from tests.machines import Machine, booted, decoded
from tests.tpm_lab import Maker

__all__ = ["admin", "approver", "fabric", "healthy", "maker", "portal", "trusted_maker"]


@dataclass
class Host:
    """A host that holds a health certificate and the secret that came with it."""

    machine: Machine
    certificate: bytes
    secret: bytes
    client: APIClient = field(default_factory=APIClient)

    @property
    def serial(self) -> str:
        from cryptography import x509

        return serial_text(x509.load_der_x509_certificate(self.certificate).serial_number)

    def asks(self, protector: Any, *, secret: bytes | None = None, **changes: Any) -> str:
        """Return a request for the key in `protector`, honest unless told otherwise."""
        fields: dict[str, Any] = {
            "serial": self.serial,
            "certificate": self.certificate,
            "vm": "payroll",
            "nonce": secrets.token_bytes(32),
            "at": int(datetime.now(UTC).timestamp()),
            "untrusted_protector": protector,
        }
        return build_request(ReleaseRequest(**(fields | changes)), secret or self.secret)

    def posts(self, token: object) -> Any:
        return self.client.post("/kps/v1/releases", {"request": token}, format="json")

    def starts(self, protector: Any, **changes: Any) -> Any:
        """Ask for a key, and return the answer's body."""
        return self.posts(self.asks(protector, **changes)).json()

    def gives_back(self, *, secret: bytes | None = None, **changes: Any) -> Any:
        """Say that the VM has stopped, honestly unless told otherwise."""
        fields: dict[str, Any] = {
            "serial": self.serial,
            "owner_fingerprint": OWNERS,
            "protector": ID,
            "vm": "payroll",
            "nonce": secrets.token_bytes(32),
            "at": int(datetime.now(UTC).timestamp()),
        }
        token = build_return(Return(**(fields | changes)), secret or self.secret)
        return self.client.post("/kps/v1/returns", {"message": token}, format="json")

    def tells(self, *starts: int, secret: bytes | None = None, **changes: Any) -> Any:
        """Give an account of starts without the fabric, honest unless told otherwise."""
        fields: dict[str, Any] = {
            "serial": self.serial,
            "owner_fingerprint": OWNERS,
            "protector": ID,
            "vm": "payroll",
            "roll": 1,
            "starts": starts,
            "counted": len(starts),
            "nonce": secrets.token_bytes(32),
            "at": int(datetime.now(UTC).timestamp()),
        }
        token = build_account(Account(**(fields | changes)), secret or self.secret)
        return self.client.post("/kps/v1/offline-starts", {"message": token}, format="json")

    def opens(self, wrapped_keys: str) -> ReleasedKeys:
        return parse_released(open_jwe(wrapped_keys, self.machine.unwrap))


def lifted(owner: str, protector_id: UUID, *, by: User, reason: str = "lifted", now: datetime | None = None) -> None:
    """End a denial: one puts that forward, another one decides it."""
    now = now or datetime.now(UTC)
    second = User.objects.filter(username="walter").first() or User.objects.create_superuser("walter")
    proposal = service.propose_lift(owner, protector_id, by=by, reason=reason, now=now)
    service.decide_lift(proposal.pk, by=second, approve=True, reason=reason, now=now)


@pytest.fixture
def host(fabric: Portal, healthy: Machine) -> Host:
    return holding(fabric, healthy)


def holding(fabric: Portal, machine: Machine) -> Host:
    """Let a machine attest, and return it with what it earned."""
    verdict = fabric.attest(machine).json()
    assert verdict["certificate"], verdict
    return Host(machine, decoded(verdict, "certificate"), open_jwe(verdict["release_secret"], machine.unwrap))


@pytest.fixture(scope="session")
def twin(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Another machine that booted what the healthy one did."""
    with booted(maker, tmp_path_factory.mktemp("tpm"), name="nbg-a05", capture="secureboot-on") as machine:
        yield machine


@pytest.fixture
def second(fabric: Portal, twin: Machine, admin: User, approver: User) -> Host:
    """A second host that holds a certificate."""
    approve_host(fabric, twin, admin, approver)
    return holding(fabric, twin)


@pytest.fixture
def guardian(db: None) -> Guardian:
    """This fabric, as a tenant has imported it."""
    return parse_metadata(service.metadata(now=datetime.now(UTC)))


@pytest.fixture
def protect(guardian: Guardian) -> Callable[..., dict[str, Any]]:
    """Make the key protector of a VM that this fabric may run."""

    def make(
        *guardians: Guardian,
        owner: GuardianKeys = OWNER,
        level: str = "shielded",
        key: bytes = KEY,
        policy: ReleasePolicy = NO_POLICY,
        serial: int = 0,
    ) -> dict[str, Any]:
        first = new_statement(
            owner.guardian, guardians or (guardian,), protector_id=ID, level=level, policy=policy, now=datetime.now(UTC)
        )
        chain = sign_statement(replace(first, serial=serial), owner)
        return wrap_again(chain, roll=0, key=key, signer=owner.signing)

    return make
