"""What a stop of releases would do, before anybody does it: to a host, to a group of hosts, or to all."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.http import Http404

from attestation import service as attestation
from attestation.errors import NotFound
from fabric.models import VirtualMachine
from fabric.tenancy import usage
from kps import service as kps

MOST_DENIED: Final = 50


@dataclass(frozen=True, slots=True)
class Scope:
    """To whom releases would be stopped. `name` is what whoever does it types; `hosts` are the approved ones."""

    kind: str
    target: str
    name: str
    title: str
    hosts: frozenset[UUID]

    def stop(self, *, by: User, reason: str, now: datetime) -> attestation.Stop:
        if self.kind == "host":
            return attestation.stop_host(UUID(self.target), by=by, reason=reason, now=now)
        if self.kind == "group":
            return attestation.stop_group(self.target, by=by, reason=reason, now=now)
        return attestation.stop_fabric(by=by, reason=reason, now=now)


@dataclass(frozen=True, slots=True)
class Impact:
    """`certified` of the hosts hold a certificate; `started` VMs started there last, which are of `tenants` tenants."""

    hosts: int
    certified: int
    started: int
    tenants: int


def scope_of(kind: str, target: str, *, now: datetime) -> Scope:
    """Return a scope by its address. Raises Http404 for one that is not there."""
    if kind == "fabric":
        return Scope(kind, "", settings.FABRIC_NAME, "the whole fabric", _approved("", now))
    if kind == "group":
        found = next((each for each in attestation.groups() if each.pk == target), None)
        if found is None:
            raise Http404
        return Scope(kind, target, found.name, f"the group {found.name}", _approved(target, now))
    try:
        host = attestation.attester(UUID(target))
    except (NotFound, ValueError) as error:
        raise Http404 from error
    return Scope(kind, target, host.name, f"host {host.name}", frozenset({host.pk}))


def _approved(group: str, now: datetime) -> frozenset[UUID]:
    found = attestation.attesters(group=group, now=now).filter(state="approved")
    return frozenset(found.order_by().values_list("pk", flat=True))


def impact_of(scope: Scope, *, now: datetime) -> Impact:
    there = [each for each in usage(VirtualMachine.objects.all()) if each.last and each.last.attester_id in scope.hosts]
    certified = attestation.certified_among(scope.hosts, now=now)
    return Impact(len(scope.hosts), len(certified), len(there), len({each.machine.tenant_id for each in there}))


def denied_keys() -> list[tuple[kps.KeyProtectorRecord, VirtualMachine | None]]:
    """Return the key protectors that this fabric's people deny, the latest first, with their VMs if registered here."""
    rows = list(kps.denied()[:MOST_DENIED])
    found = VirtualMachine.objects.select_related("tenant").filter(protector_id__in=[row.protector_id for row in rows])
    machines = {machine.key: machine for machine in found}
    return [(row, machines.get((row.owner_fingerprint, row.protector_id))) for row in rows]
