"""A fabric with one approved, attested host, a tenant, and requests that the host makes with its real TPM."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from rest_framework.test import APIClient

from attestation.core.certificate import serial_text
from guardedhost.jwe import open_jwe
from kps import service
from kps.core.guardian import Guardian, GuardianKeys, parse_metadata
from kps.core.protector import create_protector
from kps.core.request import ReleaseRequest, build_request
from kps.core.wrap import ReleasedKeys, parse_released
from tests.attestation.conftest import (
    Portal,
    admin,
    approver,
    fabric,
    healthy,
    maker,
    portal,
    trusted_maker,
)
from tests.kps.parties import ID, KEY, OWNER
from tests.machines import Machine, decoded

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

    def opens(self, wrapped_keys: str) -> ReleasedKeys:
        return parse_released(open_jwe(wrapped_keys, self.machine.unwrap))


@pytest.fixture
def host(fabric: Portal, healthy: Machine) -> Host:
    verdict = fabric.attest(healthy).json()
    assert verdict["certificate"], verdict
    return Host(healthy, decoded(verdict, "certificate"), open_jwe(verdict["release_secret"], healthy.unwrap))


@pytest.fixture
def guardian(db: None) -> Guardian:
    """This fabric, as a tenant has imported it."""
    return parse_metadata(service.metadata(now=datetime.now(UTC)))


@pytest.fixture
def protect(guardian: Guardian) -> Callable[..., dict[str, Any]]:
    """Make the key protector of a VM that this fabric may run."""

    def make(
        *guardians: Guardian, owner: GuardianKeys = OWNER, level: str = "shielded", key: bytes = KEY
    ) -> dict[str, Any]:
        granted = guardians or (guardian,)
        return create_protector(owner, granted, protector_id=ID, level=level, key=key, now=datetime.now(UTC))

    return make
