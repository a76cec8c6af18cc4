"""The key protectors that this fabric knows, registered here or not: what each is for, and where its key is now."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import F, Q, QuerySet
from django.http import Http404

from fabric.models import ShieldingData, VirtualMachine
from kps import service as kps

SHORT = 8


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key protector, the VM or the shielding data that is registered for it, and the hosts that its key is on."""

    record: kps.KeyProtectorRecord
    about: VirtualMachine | ShieldingData | None
    places: Sequence[kps.KeyOnHost]
    called: str = ""  # by the host that made it, or that got its key last

    @property
    def is_file(self) -> bool:
        return isinstance(self.about, ShieldingData)

    @property
    def name(self) -> str:
        """What people call it, and type when they deny it: where it has no name here, how its id begins."""
        return str(self.about) if self.about else str(self.record.protector_id)[:SHORT]

    @property
    def holding(self) -> list[str]:
        """The hosts that hold its key now, as far as this fabric knows."""
        return sorted(each.host for each in self.places if each.holds)

    @property
    def offline_until(self) -> datetime | None:
        """Until when some host may start it without this fabric."""
        return max((each.offline_until for each in self.places if each.offline_until), default=None)

    @property
    def state(self) -> str:
        return "denied" if self.record.denied_at or self.record.owner_denied_at else "allowed"


def search(query: str = "", *, denied: bool = False) -> QuerySet[kps.KeyProtectorRecord]:
    """Find key protectors by owner, id or VM, the latest used first."""
    found = kps.protectors().order_by(F("last_released").desc(nulls_last=True), "-pk")
    if denied:
        found = found.filter(Q(denied_at__isnull=False) | Q(owner_denied_at__isnull=False))
    return narrowed(found, query)


def narrowed(found: QuerySet[kps.KeyProtectorRecord], query: str) -> QuerySet[kps.KeyProtectorRecord]:
    """Return those of some key protectors that a search is about."""
    return found.filter(_mentions(query)) if query else found


def _mentions(query: str) -> Q:
    ids = list(VirtualMachine.objects.filter(name__icontains=query).values_list("protector_id", flat=True))
    ids += ShieldingData.objects.filter(name__icontains=query).values_list("protector_id", flat=True)
    named = kps.releases().filter(vm__icontains=query, made_id=None).order_by().values("protector_id")
    of = Q(owner_name__icontains=query) | Q(owner_fingerprint__startswith=query.lower())
    of |= Q(protector_id__icontains=query) | Q(protector_id__in=ids)
    return of | Q(protector_id__in=named) | Q(making__vm__icontains=query)


def shown(records: Iterable[kps.KeyProtectorRecord], *, now: datetime) -> list[KnownKey]:
    """Return these with what they are for and where they are, in a handful of queries for all of them."""
    rows = list(records)
    keys = {(row.owner_fingerprint, row.protector_id) for row in rows}
    about, places, called = _registered(keys), kps.places_of(keys, now=now), kps.called(keys)
    return [
        KnownKey(row, about.get(key), places.get(key, ()), called.get(key, "")) for row in rows if (key := key_of(row))
    ]


def known(record_id: int, *, now: datetime) -> KnownKey:
    """Return one by its number. Raises Http404."""
    found = kps.protectors().filter(pk=record_id).first()
    if found is None:
        raise Http404
    return shown([found], now=now)[0]


def key_of(record: kps.KeyProtectorRecord) -> tuple[str, UUID]:
    return record.owner_fingerprint, record.protector_id


def _registered(keys: Collection[tuple[str, UUID]]) -> dict[tuple[str, UUID], VirtualMachine | ShieldingData]:
    """Find what is registered for key protectors: by owner and id, since an id alone is anybody's."""
    of = {"protector_id__in": {protector_id for _, protector_id in keys}}
    files = ShieldingData.objects.filter(**of).select_related("tenant").defer("head")
    return {each.key: each for each in (*files, *VirtualMachine.objects.filter(**of).select_related("tenant"))}


def lifts(found: Iterable[kps.DenialLift], *, now: datetime) -> list[tuple[kps.DenialLift, KnownKey]]:
    """Return these proposals, each with what it is about."""
    rows = list(found)
    return list(zip(rows, shown([row.record for row in rows], now=now), strict=True))
