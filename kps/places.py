"""Where VMs' keys are now: on which hosts, and what those may do by them while they do not reach this fabric."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Max, QuerySet
from django.db.models.functions import Coalesce

from attestation import service as attestation
from kps.models import KeyRelease, KeyReturn, OfflineAccount
from kps.returns import keys_given

Place = tuple[str, UUID, UUID]  # an owner's fingerprint, a machine's key protector, a host


@dataclass(frozen=True, slots=True)
class KeyOnHost:
    """A host that got a machine's key and counts as its holder, or may start the machine without this fabric.

    `holds` is what `kps.returns.holders` says. An allowance goes on after the machine has stopped and after the host's
    certificate has lapsed; a later release to the same host takes its place.
    """

    owner_fingerprint: str
    machine_id: UUID
    attester_id: UUID
    holds: bool
    offline_until: datetime | None

    @property
    def machine(self) -> tuple[str, UUID]:
        return self.owner_fingerprint, self.machine_id


def keys_on(hosts: Collection[UUID], *, now: datetime) -> list[KeyOnHost]:
    """Return every machine's key that is on one of these hosts, as far as this fabric knows."""
    given = KeyRelease.objects.filter(attester_id__in=hosts, outcome=KeyRelease.Outcome.RELEASED)
    return _places(given, KeyReturn.objects.filter(attester_id__in=hosts), now=now)


def places_of_key(owner_fingerprint: str, protector_id: UUID, *, now: datetime) -> list[KeyOnHost]:
    """Return the hosts that one machine's key is on, as far as this fabric knows."""
    of = {"owner_fingerprint": owner_fingerprint, "protector_id": protector_id}
    found = _places(keys_given(owner_fingerprint, protector_id), KeyReturn.objects.filter(**of), now=now)
    return [each for each in found if each.machine_id == protector_id]  # not those of machines made from it


def _places(given: QuerySet[KeyRelease], returned: QuerySet[KeyReturn], *, now: datetime) -> list[KeyOnHost]:
    given = given.annotate(machine=Coalesce("made_id", "protector_id")).order_by()
    newest = _by_place(given.values_list("owner_fingerprint", "machine", "attester_id").annotate(Max("pk")))
    back = returned.order_by().values_list("owner_fingerprint", "protector_id", "attester_id")
    stopped = _by_place(back.annotate(Max("release_id")))
    certified = attestation.hosts_with_certificate({host for _, _, host in newest}, now=now)
    until = _allowances(given, newest.values(), now=now)
    found = (
        KeyOnHost(*place, holds=place[2] in certified and pk > stopped.get(place, 0), offline_until=until.get(pk))
        for place, pk in newest.items()
    )
    return [each for each in found if each.holds or each.offline_until]


def _by_place(rows: Iterable[tuple[str, UUID | None, UUID, int]]) -> dict[Place, int]:
    return {(owner, machine, host): newest for owner, machine, host, newest in rows if owner and machine}


def _allowances(given: QuerySet[KeyRelease], newest: Collection[int], *, now: datetime) -> dict[int, datetime]:
    """Return until when hosts may start a machine without this fabric, by the releases that allowed it.

    What a host has used up by its own account is left out; of what it has not told, nothing is known.
    """
    living = given.filter(offline_until__gt=now, offline_starts__gt=0)
    counts = set(newest)
    allowed = {
        pk: (starts, until)
        for pk, starts, until in living.values_list("pk", "offline_starts", "offline_until")
        if pk in counts
    }
    told = OfflineAccount.objects.filter(release_id__in=allowed).order_by("pk")
    used = {row.release_id: max(len(row.starts), row.counted) for row in told}
    return {pk: until for pk, (starts, until) in allowed.items() if until and used.get(pk, 0) < (starts or 0)}
