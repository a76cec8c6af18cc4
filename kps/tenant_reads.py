"""What an owner's people see of its key protectors: who may run them, where their keys are, and what waits for whom."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Max

from kps.chains import chain_of, newest_of
from kps.core.chain import VerifiedChain
from kps.core.guardian import Guardian
from kps.core.statement_changes import StatementChange, changes
from kps.guardianship import pairs
from kps.models import GuardianPair, KeyProtectorRecord, KeyRelease, MadeMachine, OwnerStatement
from kps.returns import holders, keys_given
from kps.rotation import Awaits, awaited

State = GuardianPair.State


@dataclass(frozen=True, slots=True)
class Named:
    """A guardian that an owner has named; `pair` is which keys of this fabric's they are, None for another fabric."""

    guardian: Guardian
    pair: GuardianPair | None


@dataclass(frozen=True, slots=True)
class Told:
    """A key protector as its owner's newest statement has it."""

    record: KeyProtectorRecord
    chain: VerifiedChain
    guardians: Sequence[Named]
    awaits: Awaits | None  # what it takes until it depends on keys of this fabric's that others took the place of
    starts: bool  # some keys of ours that the owner has named still open it

    @property
    def here(self) -> bool:
        """Say whether the owner has named this fabric."""
        return any(each.pair is not None for each in self.guardians)


@dataclass(frozen=True, slots=True)
class Statement:
    """One of an owner's statements, and what it changed of the one before that is known here."""

    row: OwnerStatement
    chain: VerifiedChain
    changes: Sequence[StatementChange]


@dataclass(frozen=True, slots=True)
class Refused:
    """Why releases of one VM's key were refused lately: the newest of them, and how many there were."""

    newest: KeyRelease
    count: int


def protectors_of(keys: Collection[tuple[str, UUID]]) -> dict[tuple[str, UUID], KeyProtectorRecord]:
    """Return what is remembered of these protectors, by their owners' fingerprints and their ids; one query."""
    wanted = set(keys)
    rows = KeyProtectorRecord.objects.filter(
        owner_fingerprint__in={owner for owner, _ in wanted}, protector_id__in={of for _, of in wanted}
    )
    found = {(row.owner_fingerprint, row.protector_id): row for row in rows}
    return {key: row for key, row in found.items() if key in wanted}


def told(record: KeyProtectorRecord) -> Told:
    """Return what an owner's newest statement says of a protector, and what that means for this fabric's keys."""
    ours = {pair.fingerprint: pair for pair in pairs()}
    chain = newest_of(record)
    named = tuple(Named(each, ours.get(each.fingerprint)) for each in chain.guardians)
    starts = any(each.pair is not None and each.pair.state != State.DISABLED for each in named)
    return Told(record, chain, named, _awaits(record, ours.get(record.guardian_fingerprint)), starts)


def _awaits(record: KeyProtectorRecord, depends_on: GuardianPair | None) -> Awaits | None:
    if depends_on is None or depends_on.state in (State.PRIMARY, State.PREPARED):
        return None
    return awaited([record])[0].awaits


def statements(record: KeyProtectorRecord, *, most: int) -> list[Statement]:
    """Return an owner's newest statements, the newest first, each with what it changed."""
    rows = list(record.statements.all()[: most + 1])
    chains = [chain_of(record, row.token) for row in rows]
    before: list[VerifiedChain | None] = [*chains[1:], None]
    return [
        Statement(row, chain, () if old is None else changes(old.statement, chain.statement))
        for row, chain, old in zip(rows, chains, before, strict=True)
    ][:most]


def holding(owner_fingerprint: str, protector_id: UUID, *, now: datetime) -> list[KeyRelease]:
    """Return the newest release to each host that holds the VM's key now."""
    hosts = holders(owner_fingerprint, protector_id, now=now)
    given = keys_given(owner_fingerprint, protector_id).filter(attester_id__in=hosts)
    newest = given.order_by().values_list("attester_id").annotate(Max("pk"))
    return list(KeyRelease.objects.filter(pk__in=[pk for _, pk in newest]))


def called(keys: Collection[tuple[str, UUID]]) -> dict[tuple[str, UUID], str]:
    """Return what hosts call the machines of these protectors: the one that made it, or that got its key last."""
    owners, ids = {owner for owner, _ in keys}, {of for _, of in keys}
    mine = {"owner_fingerprint__in": owners, "protector_id__in": ids}
    made = MadeMachine.objects.filter(**{f"record__{name}": wanted for name, wanted in mine.items()}).exclude(vm="")
    names = {
        (owner, of): vm for owner, of, vm in made.values_list("record__owner_fingerprint", "record__protector_id", "vm")
    }
    starts = KeyRelease.objects.filter(**mine, outcome=KeyRelease.Outcome.RELEASED, made_id=None)
    newest = starts.order_by().values("owner_fingerprint", "protector_id").annotate(newest=Max("pk")).values("newest")
    for row in KeyRelease.objects.filter(pk__in=newest):
        if row.protector_id is not None:
            names[row.owner_fingerprint, row.protector_id] = row.vm
    return {key: names[key] for key in keys if key in names}


def refused_lately(owner_fingerprint: str, *, since: datetime, most: int) -> list[Refused]:
    """Return why this owner's keys were refused since a moment, by VM and reason, the latest first."""
    if not owner_fingerprint:
        return []
    rows = (
        KeyRelease.objects.filter(
            owner_fingerprint=owner_fingerprint, outcome=KeyRelease.Outcome.REFUSED, at__gte=since
        )
        .order_by()
        .values("protector_id", "code")
        .annotate(newest=Max("pk"), count=Count("pk"))
        .order_by("-newest")[:most]
    )
    counted = {row["newest"]: row["count"] for row in rows}
    return [Refused(row, counted[row.pk]) for row in KeyRelease.objects.filter(pk__in=counted)]
