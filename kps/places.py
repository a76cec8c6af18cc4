"""Where VMs' keys are now: on which hosts, and what those may do by them while they do not reach this fabric."""

from collections import defaultdict
from collections.abc import Collection, Set
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Max, Q, QuerySet
from django.db.models.functions import Coalesce

from attestation import service as attestation
from kps.models import KeyRelease, KeyReturn, OfflineAccount


@dataclass(frozen=True, slots=True)
class KeyOnHost:
    """A host that got a machine's key and counts as its holder, or may start the machine without this fabric.

    `holds` is what `kps.returns.holders` says. An allowance goes on after the machine has stopped and after the host's
    certificate has lapsed; a later release to the same host takes its place.
    """

    owner_fingerprint: str
    machine_id: UUID
    attester_id: UUID
    host: str
    holds: bool
    offline_until: datetime | None

    @property
    def machine(self) -> tuple[str, UUID]:
        return self.owner_fingerprint, self.machine_id


def keys_on(hosts: Collection[UUID], *, now: datetime) -> list[KeyOnHost]:
    """Return every machine's key that is on one of these hosts, as far as this fabric knows."""
    given = KeyRelease.objects.filter(attester_id__in=hosts, outcome=KeyRelease.Outcome.RELEASED)
    return _places(given, KeyReturn.objects.filter(attester_id__in=hosts), now=now)


def places_of(keys: Collection[tuple[str, UUID]], *, now: datetime) -> dict[tuple[str, UUID], list[KeyOnHost]]:
    """Return the hosts that each of these machines' keys is on, as far as this fabric knows."""
    owners, machines = {owner for owner, _ in keys}, {machine for _, machine in keys}
    of_machine = Q(protector_id__in=machines) | Q(made_id__in=machines)
    given = KeyRelease.objects.filter(of_machine, owner_fingerprint__in=owners, outcome=KeyRelease.Outcome.RELEASED)
    returned = KeyReturn.objects.filter(owner_fingerprint__in=owners, protector_id__in=machines)
    found = defaultdict[tuple[str, UUID], list[KeyOnHost]](list)
    for each in _places(given, returned, now=now):  # among them machines made from what was asked for
        found[each.machine].append(each)
    return {key: found[key] for key in keys if key in found}


def _places(given: QuerySet[KeyRelease], returned: QuerySet[KeyReturn], *, now: datetime) -> list[KeyOnHost]:
    given = given.annotate(machine=Coalesce("made_id", "protector_id")).order_by()
    newest = {
        (owner, machine, attester): (host, pk)
        for owner, machine, attester, host, pk in given.values_list(
            "owner_fingerprint", "machine", "attester_id"
        ).annotate(Max("host"), Max("pk"))
        if owner and machine
    }
    stopped = {
        (owner, machine, attester): pk
        for owner, machine, attester, pk in returned.order_by()
        .values_list("owner_fingerprint", "protector_id", "attester_id")
        .annotate(Max("release_id"))
    }
    certified = attestation.hosts_with_certificate({attester for _, _, attester in newest}, now=now)
    until = _allowances(given, {pk for _, pk in newest.values()}, now=now)
    found = (
        KeyOnHost(*place, host, place[2] in certified and pk > stopped.get(place, 0), until.get(pk))
        for place, (host, pk) in newest.items()
    )
    return [each for each in found if each.holds or each.offline_until]


def _allowances(given: QuerySet[KeyRelease], newest: Set[int], *, now: datetime) -> dict[int, datetime]:
    """Return until when hosts may start a machine without this fabric, by the releases that allowed it.

    What a host has used up by its own account is left out; of what it has not told, nothing is known.
    """
    living = given.filter(offline_until__gt=now, offline_starts__gt=0)
    allowed = {
        pk: (starts, until)
        for pk, starts, until in living.values_list("pk", "offline_starts", "offline_until")
        if pk in newest
    }
    told = OfflineAccount.objects.filter(release_id__in=allowed).order_by("pk")
    used = {row.release_id: max(len(row.starts), row.counted) for row in told}
    return {pk: until for pk, (starts, until) in allowed.items() if until and used.get(pk, 0) < (starts or 0)}
