"""What a stop of releases would do, before anybody does it: to a host, to a group of hosts, or to all."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.http import Http404

from attestation import service as attestation
from attestation.errors import NotFound
from fabric.known_keys import KnownKey, shown
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
    """What a stop would reach, and what it would not.

    `certified` of the hosts hold a certificate; `running` VMs of `owners` run there as far as this fabric knows, and go
    on; `offline` VMs can be started there without this fabric, the last of them until `offline_until`.
    """

    hosts: int
    certified: int
    running: int
    owners: int
    offline: int
    offline_until: datetime | None


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
    return impacts_of([scope], now=now)[0]


def impacts_of(scopes: Sequence[Scope], *, now: datetime) -> list[Impact]:
    """Return what each of these stops would do; where keys are is read once for all of them."""
    hosts = frozenset[UUID]().union(*(scope.hosts for scope in scopes))
    keys, certified = kps.keys_on(hosts, now=now), attestation.certified_among(hosts, now=now)
    return [
        _impact(scope, [each for each in keys if each.attester_id in scope.hosts], len(certified & scope.hosts))
        for scope in scopes
    ]


def _impact(scope: Scope, keys: Collection[kps.KeyOnHost], certified: int) -> Impact:
    running = {each.machine for each in keys if each.holds}
    offline = {each.machine for each in keys if each.offline_until}
    ends = [each.offline_until for each in keys if each.offline_until]
    owners = len({owner for owner, _ in running})
    return Impact(len(scope.hosts), certified, len(running), owners, len(offline), max(ends, default=None))


@dataclass(frozen=True, slots=True)
class Voided:
    """What it means to deny certificates by when they were issued: which hosts have none then, and what runs there."""

    before: datetime
    hosts: int
    running: int
    owners: int


def impact_of_denial(before: datetime, *, now: datetime) -> Voided:
    hosts = attestation.certified_before(before, now=now)
    running = {each.machine for each in kps.keys_on(hosts, now=now) if each.holds}
    return Voided(before, len(hosts), len(running), len({owner for owner, _ in running}))


def denied_keys(*, now: datetime) -> list[KnownKey]:
    """Return the key protectors that this fabric's people deny, the latest first."""
    return shown(kps.denied()[:MOST_DENIED], now=now)
