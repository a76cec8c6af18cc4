"""The newest word of each owner on each key protector: kept when it is seen, and applied whatever a host presents."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import F

from kps.core import jose
from kps.core.chain import VerifiedChain, parse_chain, verify_chain, verify_links
from kps.errors import ChainNotNewer, ChainUnknown, MalformedDocument, MalformedProtector
from kps.guardianship import newest_named
from kps.models import KeyProtectorRecord, MadeMachine, OwnerStatement
from kps.our_pairs import all_pairs
from ledger import service as ledger


def record_of(chain: VerifiedChain) -> KeyProtectorRecord | None:
    """Return what is remembered of this owner's protector, locked until the transaction ends; None if nothing is."""
    statement = chain.statement
    known = KeyProtectorRecord.objects.select_for_update().filter(protector_id=statement.id)
    return known.filter(owner_fingerprint=statement.owner.fingerprint).first()


def remember(chain: VerifiedChain, *, by: str, vm: str = "", now: datetime) -> KeyProtectorRecord:
    """Return the record of a protector, locked, after making it if there is none. `vm` is the name of its machine."""
    statement = chain.statement
    known, new = KeyProtectorRecord.objects.select_for_update().get_or_create(
        owner_fingerprint=statement.owner.fingerprint,
        protector_id=statement.id,
        defaults={
            "owner_name": statement.owner.name,
            "level": statement.level,
            "serial": statement.serial,
            "statement_sha256": chain.statement_sha256,
            "first_seen": now,
            "guardian_fingerprint": newest_named(chain.guardians),
        }
        | _denial_of_origin(chain),
    )
    if new:
        _store(known, chain, by=by, now=now)
    if new and chain.made_from is not None:
        _note_making(known, chain, made_from=chain.made_from, by=by, vm=vm, now=now)
    return known


def _denial_of_origin(chain: VerifiedChain) -> dict[str, object]:
    """Return the denial that a machine begins with when the shielding data which it was made from is denied here."""
    if chain.made_from is None:
        return {}
    origin = (
        KeyProtectorRecord.objects.select_for_update()
        .filter(owner_fingerprint=chain.statement.owner.fingerprint, protector_id=chain.made_from)
        .filter(denies_machines=True)
        .first()
    )
    if origin is None:
        return {}
    said = {"denied_at": origin.denied_at, "denied_by": origin.denied_by, "denied_reason": origin.denied_reason}
    return said | {"denied_with": chain.made_from}


def binding(known: KeyProtectorRecord, presented: VerifiedChain, *, by: str, now: datetime) -> VerifiedChain:
    """Return the chain that counts for a protector whose record is locked: the newest that its owner has signed.

    One that is newer than all before is kept, even when what it came with is refused. Of two with one serial, which
    only an owner makes who signs from two places, the first that came here stays.
    """
    if presented.statement_sha256 == known.statement_sha256:
        return presented
    if presented.statement.serial > known.serial:
        _replace(known, presented, by=by, now=now)
        return presented
    return newest_of(known)


def newest_of(known: KeyProtectorRecord) -> VerifiedChain:
    """Return the chain that begins with the newest statement which is known here."""
    return chain_of(known, known.statements.get(serial=known.serial).token)


def newest_of_each(records: Sequence[KeyProtectorRecord]) -> list[VerifiedChain]:
    """Return `newest_of` each of several, found with one query."""
    newest = OwnerStatement.objects.filter(record__in=records, serial=F("record__serial"))
    tokens = dict(newest.values_list("record_id", "token"))
    return [chain_of(record, tokens[record.pk]) for record in records]


def chain_of(known: KeyProtectorRecord, statement: str) -> VerifiedChain:
    """Return the chain that begins with one of the owner's statements on a protector."""
    chain = verify_chain([statement])
    if chain.statement.id != known.protector_id:  # it is that of the shielding data which the machine was made from
        chain = verify_chain([statement, known.making.link])
    return chain


def take_chain(document: object, *, by: str | None = None, now: datetime) -> VerifiedChain:
    """Keep an owner's newer chain, which binds the next release; its own signature is what authenticates it.

    `by` is who brought it, where that is a person of this portal. Raises `MalformedProtector`, `ProtectorRefused`,
    `ChainUnknown`, `LinkForged` or `ChainNotNewer`; the last two leave one leaf for each statement, however often
    somebody tries it again.
    """
    return _brought(document, take=True, by=by, now=now)[1]


def hear(chain: VerifiedChain, *, by: str, now: datetime) -> ChainNotNewer | None:
    """Take the owner's word as it came with shielding data, in the caller's transaction; return why it is not in force.

    A newer one binds from then on, and one that is in force already is welcome. An older one is noted.
    """
    known = remember(chain, by=by, now=now)
    if chain.statement_sha256 == known.statement_sha256:
        return None
    refusal = _not_newer(known, chain)
    if refusal is None:
        _replace(known, chain, by=by, now=now)
    else:
        _note_refusal(known, chain, refusal.code, by=by, now=now)
    return refusal


def examine_chain(document: object, *, by: str, now: datetime) -> tuple[VerifiedChain, VerifiedChain]:
    """Return the chain that is in force and the newer one that somebody has, which is not kept yet.

    Raises, and leaves in the ledger, what `take_chain` does.
    """
    return _brought(document, take=False, by=by, now=now)


def _brought(document: object, *, take: bool, by: str | None, now: datetime) -> tuple[VerifiedChain, VerifiedChain]:
    try:
        chain = verify_links(parse_chain(document))
    except MalformedDocument as error:
        raise MalformedProtector(str(error)) from error
    by = by or f"owner:{chain.statement.owner.fingerprint}"
    with transaction.atomic():
        known = record_of(chain)
        if known is None:
            raise ChainUnknown("This fabric knows no such key protector of this owner. Register the VM here first.")
        before = newest_of(known)
        refusal = all_pairs().forged_link(chain, seen=True) or _not_newer(known, chain)
        if refusal is not None:
            _note_refusal(known, chain, refusal.code, by=by, now=now)
        elif take:
            _replace(known, chain, by=by, now=now)
    if refusal is not None:
        raise refusal
    return before, chain


def _not_newer(known: KeyProtectorRecord, chain: VerifiedChain) -> ChainNotNewer | None:
    if chain.statement.serial > known.serial:
        return None
    return ChainNotNewer(
        f"Statement {known.serial} of the owner's is in force here, and this one is number {chain.statement.serial}."
        " Take the newest chain from this fabric, and change that one."
    )


def _replace(known: KeyProtectorRecord, chain: VerifiedChain, *, by: str, now: datetime) -> None:
    before = known.serial
    known.serial, known.statement_sha256 = chain.statement.serial, chain.statement_sha256
    known.level, known.owner_name = chain.statement.level, chain.statement.owner.name
    known.save(update_fields=["serial", "statement_sha256", "level", "owner_name"])
    _store(known, chain, by=by, now=now)
    detail = _said(chain) | {"before": before}
    ledger.record(actor=by, act="chain.taken", subject=chain.subject, detail=detail, now=now)


def _store(known: KeyProtectorRecord, chain: VerifiedChain, *, by: str, now: datetime) -> None:
    OwnerStatement.objects.create(
        record=known,
        serial=chain.statement.serial,
        sha256=chain.statement_sha256,
        token=chain.links[0],
        seen_at=now,
        brought_by=by,
    )


def _note_making(
    known: KeyProtectorRecord, chain: VerifiedChain, *, made_from: UUID, by: str, vm: str, now: datetime
) -> None:
    MadeMachine.objects.create(record=known, made_from=made_from, link=chain.word[1], vm=vm, seen_at=now, brought_by=by)
    detail = _said(chain) | {"shielding_data": str(made_from), "name": vm}
    ledger.record(actor=by, act="machine.made", subject=chain.subject, detail=detail, now=now)


def _note_refusal(known: KeyProtectorRecord, chain: VerifiedChain, code: str, *, by: str, now: datetime) -> None:
    """Write that a chain was refused; once for each statement and reason, for whoever holds one can repeat it."""
    before = ledger.leaves(act_prefix="chain.refused", subject=chain.subject)
    if not before.filter(detail__statement=chain.statement_sha256, detail__code=code).exists():
        detail = _said(chain) | {"in_force": known.serial, "code": code}
        ledger.record(actor=by, act="chain.refused", subject=chain.subject, detail=detail, now=now)


def _said(chain: VerifiedChain) -> jose.Json:
    statement = chain.statement
    return {
        "owner": statement.owner.fingerprint,
        "serial": statement.serial,
        "statement": chain.statement_sha256,
        "level": statement.level,
        "guardians": [guardian.fingerprint for guardian in statement.guardians],
        "release_policy": statement.policy.document,
    }
