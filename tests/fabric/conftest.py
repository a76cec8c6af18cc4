"""People of every role, a tenant, and hosts in every state, with real evidence from software TPMs."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.test import Client

from attestation import service
from fabric.models import Membership, Tenant, VirtualMachine
from kps import service as kps
from kps.approvals import ask
from kps.core.chain import verify_chain
from kps.models import KeyProtectorRecord, KeyRelease, ReleaseApproval
from ledger import service as ledger
from tests.attestation.conftest import (
    Portal,
    approve_host,
    drifted,
    fabric,
    foreign,
    healthy,
    maker,
    portal,
    running,
    switched_off,
    trusted_maker,
    updated,
    watched,
)
from tests.kps.parties import ID, OWNER, STRANGER, protector
from tests.machines import Machine

__all__ = [
    "drifted",
    "fabric",
    "foreign",
    "healthy",
    "maker",
    "portal",
    "running",
    "switched_off",
    "trusted_maker",
    "updated",
    "watched",
]

PASSWORD = "correct horse battery staple"
REASON = "Seen with my own eyes this morning."


@cache
def kept_password() -> str:
    """Return what the database keeps of `PASSWORD`: made as Guardhouse makes it, but once for all persons of a run."""
    return make_password(PASSWORD)


def person(name: str, *groups: str) -> User:
    user = User.objects.create(username=name, password=kept_password())
    user.groups.set(Group.objects.filter(name__in=groups))
    return user


@pytest.fixture
def admin(db: None) -> User:
    return person("ada", "fabric admin")


@pytest.fixture
def approver(db: None) -> User:
    return person("ben", "approver")


@pytest.fixture
def both(db: None) -> User:
    """Someone who holds two roles: four eyes must bind this one too."""
    return person("bob", "fabric admin", "approver")


@pytest.fixture
def auditor(db: None) -> User:
    return person("eve", "auditor")


@pytest.fixture
def tenant(db: None) -> Tenant:
    return Tenant.objects.create(name="Brandt", slug="brandt", owner_fingerprint=OWNER.guardian.fingerprint)


@pytest.fixture
def other_tenant(db: None) -> Tenant:
    return Tenant.objects.create(name="Halske", slug="halske", owner_fingerprint="7" * 64)


@pytest.fixture
def owner(tenant: Tenant) -> User:
    user = person("tim")
    Membership.objects.create(tenant=tenant, user=user, role=Membership.Role.OWNER)
    return user


@pytest.fixture
def operator(tenant: Tenant) -> User:
    user = person("olga")
    Membership.objects.create(tenant=tenant, user=user, role=Membership.Role.OPERATOR)
    return user


@pytest.fixture
def stranger_tenant(other_tenant: Tenant) -> User:
    """The owner of another tenant."""
    user = person("hal")
    Membership.objects.create(tenant=other_tenant, user=user, role=Membership.Role.OWNER)
    return user


@pytest.fixture
def nobody(db: None) -> User:
    """Signed in, without a role."""
    return person("nemo")


@pytest.fixture
def machine(tenant: Tenant) -> VirtualMachine:
    return VirtualMachine.objects.create(
        tenant=tenant, name="payroll", protector_id=ID, level="shielded", added_at=datetime.now(UTC)
    )


@pytest.fixture
def browse() -> Callable[[User | None], Client]:
    """Return a browser in which this person is signed in."""

    def signed_in(user: User | None) -> Client:
        client = Client()
        if user is not None:
            client.force_login(user)
        return client

    return signed_in


@pytest.fixture
def fleet(fabric: Portal, healthy: Machine, drifted: Machine, foreign: Machine, admin: User, approver: User) -> Portal:
    """One host that passes, one approved that booted another command line, one that waits and names no TPM maker."""
    assert fabric.attest(healthy).json()["status"] == "Passed"
    approve_host(fabric, drifted, admin, approver)
    assert fabric.attest(drifted).json()["status"] == "InsecureHostConfiguration"
    foreign.ek_certificate = None
    assert fabric.enrol(foreign).json()["state"] == "pending"
    return fabric


def known(document: dict[str, Any], *, by: User) -> KeyProtectorRecord:
    """Let this fabric know a key protector, as it does when its machine is added."""
    chain = verify_chain(document["chain"])
    kps.know_protector(chain, by=by, now=datetime.now(UTC))
    return kps.protectors_of([(chain.statement.owner.fingerprint, chain.statement.id)]).popitem()[1]


def waiting_lift(admin: User) -> kps.DenialLift:
    """A denied key that nobody has registered, and that it is allowed again: put forward, decided by nobody."""
    other = known(protector(owner=STRANGER), by=admin)
    key, now = (other.owner_fingerprint, other.protector_id), datetime.now(UTC)
    kps.deny_protector(*key, by=admin, reason=REASON, now=now)
    return kps.propose_lift(*key, by=admin, reason=REASON, now=now)


def asks(
    record: KeyProtectorRecord, *, attestation_id: int = 1, needs_key: bool = False, code: str = "approval_required"
) -> ReleaseApproval:
    """Write what a host leaves that asks for a key and is refused because its owner has not approved it."""
    now, attester = datetime.now(UTC), uuid4()
    about: dict[str, Any] = {
        "attester_id": attester,
        "host": "nbg-a07",
        "vm": "payroll",
        "attestation_id": attestation_id,
    }
    with transaction.atomic():
        KeyRelease.objects.create(
            at=now,
            owner_fingerprint=record.owner_fingerprint,
            protector_id=record.protector_id,
            serial="A1",
            mode="tpm",
            policy_version=1,
            outcome=KeyRelease.Outcome.REFUSED,
            code=code,
            detail="The owner approves each release of this key.",
            nonce_sha256=attester.hex,
            **about,
        )
        return ask(record, needs_key=needs_key, now=now, **about)


def sequenced(owner: str) -> int:
    """Record an act that concerns an owner, put it into the log, and return its place."""
    now = datetime.now(UTC)
    with transaction.atomic():
        leaf = ledger.record(actor="system", act="key.released", subject="x:1", detail={"owner": owner}, now=now)
    ledger.sequence_all(now=now)
    return ledger.entries_of([leaf])[leaf.pk].index


def newest(machine: Machine) -> int:
    """Return the number of a machine's newest verified attestation."""
    found = service.attestations(attester_id=UUID(machine.attester)).filter(code="").first()
    assert found is not None
    return found.pk
