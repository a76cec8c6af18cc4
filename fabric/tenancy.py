"""What a tenant may do with its machines."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Protocol
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from attestation.errors import NotAllowed, Refusal
from fabric.models import Membership, Tenant, Viewer, VirtualMachine
from kps import service as kps
from kps.core import jose
from kps.core.protector import PROTECTOR_LIMIT, VerifiedProtector, verify_protector
from ledger import service as ledger


class Release(Protocol):
    """As much of a release as a tenant's list of machines shows."""

    at: datetime
    host: str
    attester_id: UUID


class OwnerMismatch(Refusal):
    """The key protector is signed by another owner than this tenant."""

    code: ClassVar[str] = "owner_mismatch"
    status: ClassVar[int] = 422


class MachineKnown(Refusal):
    code: ClassVar[str] = "machine_known"
    status: ClassVar[int] = 409


def speaks_for(user: Viewer, tenant: Tenant) -> bool:
    """Say whether this person is an owner of this tenant; operators and the fabric's own people are not."""
    owners = Membership.objects.filter(tenant=tenant, role=Membership.Role.OWNER)
    return user.is_authenticated and owners.filter(user=user).exists()


@dataclass(frozen=True, slots=True)
class Usage:
    """A machine, and what became of its key; `known` is what this fabric remembers of its key protector."""

    machine: VirtualMachine
    starts: int
    last: Release | None
    known: kps.KeyProtectorRecord | None

    @property
    def level(self) -> str:
        """The level that the owner's newest statement gives it, not the one that it was added with."""
        return self.known.level if self.known else self.machine.level


def started_on(attesters: Collection[UUID]) -> int:
    """Return how many machines started on one of these hosts last, by the newest release of their keys."""
    lasts = [each.last for each in usage(VirtualMachine.objects.all())] if attesters else []
    return sum(last is not None and last.attester_id in attesters for last in lasts)


def usage(machines: QuerySet[VirtualMachine]) -> list[Usage]:
    """Return these machines, each with how often its key was released, and its newest release."""
    return usage_of(list(machines.select_related("tenant").distinct()))


def usage_of(machines: Collection[VirtualMachine]) -> list[Usage]:
    """Return the same of machines that were read already, a page of a list for instance; their tenants too."""
    keys = [machine.key for machine in machines]
    given, known = kps.starts(keys), kps.protectors_of(keys)
    return [_used(each, given.get(each.key), known.get(each.key)) for each in machines]


def _used(machine: VirtualMachine, given: tuple[int, Release] | None, known: kps.KeyProtectorRecord | None) -> Usage:
    starts, last = given or (0, None)
    return Usage(machine, starts, last, known)


def add_machine(tenant: Tenant, name: str, document: bytes, *, by: User, now: datetime) -> VirtualMachine:
    """Register a machine by its key protector, after checking every signature in it and that its owner is this tenant.

    Raises `ProtectorRefused`, `MalformedProtector`, `OwnerMismatch` or `MachineKnown`.
    """
    if not speaks_for(by, tenant):
        raise NotAllowed("Only an owner of this tenant adds its machines.")
    protector = _read(document)
    if protector.owner.fingerprint != tenant.owner_fingerprint:
        raise OwnerMismatch(
            f"This key protector was signed by the owner {protector.owner.fingerprint[:16]}…, and the owner key of"
            f" {tenant.name} is {tenant.owner_fingerprint[:16]}…"
        )
    try:
        with transaction.atomic():
            machine = VirtualMachine.objects.create(
                tenant=tenant, name=name, protector_id=protector.id, level=protector.level, added_at=now
            )
            kps.know_protector(protector.chain, by=by, now=now)
            detail = {
                "name": name,
                "tenant": tenant.slug,
                "level": protector.level,
                "owner": tenant.owner_fingerprint,
            }
            actor = f"user:{by.get_username()}"
            ledger.record(actor=actor, act="machine.added", subject=protector.subject, detail=detail, now=now)
    except IntegrityError:
        raise MachineKnown(
            "A machine of this name, or with this key protector, is registered for this tenant already."
        ) from None
    return machine


def _read(document: bytes) -> VerifiedProtector:
    """Take a key protector by itself, or the state file beside the disk, of which only the protector is looked at."""
    content = jose.read_json(document, limit=PROTECTOR_LIMIT)
    if isinstance(content, dict) and content.keys() == {"protector", "secrets"}:
        content = content["protector"]
    return verify_protector(content)
