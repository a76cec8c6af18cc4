"""Where VMs' keys are now: on which hosts, and what those may do by them while they do not reach this fabric."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Coalesce

from attestation import service as attestation
from kps.models import KeyRelease, KeyReturn, OfflineAccount

Place = tuple[str, UUID, UUID, str]
PLACE: Final = ("owner_fingerprint", "machine", "attester_id", "host")


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
    return _places(KeyRelease.objects.filter(attester_id__in=hosts), now=now)


def places_of(keys: Collection[tuple[str, UUID]], *, now: datetime) -> dict[tuple[str, UUID], list[KeyOnHost]]:
    """Return the hosts that each of these machines' keys is on, as far as this fabric knows."""
    owners, machines = {owner for owner, _ in keys}, {machine for _, machine in keys}
    of_machine = Q(protector_id__in=machines) | Q(made_id__in=machines)
    found = defaultdict[tuple[str, UUID], list[KeyOnHost]](list)
    for each in _places(KeyRelease.objects.filter(of_machine, owner_fingerprint__in=owners), now=now):
        found[each.machine].append(each)  # also those of machines made from what was asked for
    return {key: found[key] for key in keys if key in found}


def _places(releases: QuerySet[KeyRelease], *, now: datetime) -> list[KeyOnHost]:
    given = releases.filter(outcome=KeyRelease.Outcome.RELEASED).exclude(owner_fingerprint="").order_by()
    given = given.annotate(machine=Coalesce("made_id", "protector_id"))
    holding, until = _holding(given, now=now), _allowances(given, now=now)
    return [
        KeyOnHost(*place, holds=place in holding, offline_until=until.get(place))
        for place in sorted(holding | set(until))
    ]


def _holding(given: QuerySet[KeyRelease], *, now: datetime) -> set[Place]:
    """Return where releases were not taken back, among the hosts that hold a certificate.

    What was taken back is left out by the database: over the years that is nearly all that there is. Most of it is
    named by a return, which is quickly seen; the rest came before what a return names.
    """
    given = given.exclude(pk__in=KeyReturn.objects.order_by().values("release_id"))
    back = KeyReturn.objects.filter(
        owner_fingerprint=OuterRef("owner_fingerprint"),
        protector_id=OuterRef("machine"),
        attester_id=OuterRef("attester_id"),
        release_id__gte=OuterRef("pk"),
    )
    hosts = set(given.values_list("attester_id", flat=True))
    certified = attestation.hosts_with_certificate(hosts, now=now)
    return set(given.filter(~Exists(back), attester_id__in=certified).values_list(*PLACE).distinct())


def _allowances(given: QuerySet[KeyRelease], *, now: datetime) -> dict[Place, datetime]:
    """Return until when hosts may start a machine without this fabric, by the newest release to each.

    What a host has used up by its own account is left out; of what it has not told, nothing is known.
    """
    released = KeyRelease.objects.filter(outcome=KeyRelease.Outcome.RELEASED, attester_id=OuterRef("attester_id"))
    later = released.annotate(of=Coalesce("made_id", "protector_id")).filter(
        owner_fingerprint=OuterRef("owner_fingerprint"), of=OuterRef("machine"), pk__gt=OuterRef("pk")
    )
    living = given.filter(~Exists(later), offline_until__gt=now, offline_starts__gt=0)
    rows = list(living.values_list("pk", "offline_starts", "offline_until", *PLACE))
    told = OfflineAccount.objects.filter(release_id__in=[pk for pk, *_ in rows]).order_by("pk")
    used = {row.release_id: max(len(row.starts), row.counted) for row in told}
    return {tuple(place): until for pk, starts, until, *place in rows if used.get(pk, 0) < starts}
