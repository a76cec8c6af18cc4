"""The release of keys: authenticate, decide, write down, and only then answer."""

import hashlib
import logging
import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from django.db import IntegrityError, transaction

from attestation import service as attestation
from attestation.errors import Refusal
from attestation.service import HealthStatement, Holding
from kps.approvals import ask, standing_approval, use
from kps.chains import binding, remember
from kps.core import jose
from kps.core.chain import MOST_SUCCESSIONS, VerifiedChain, make_machine, succeed
from kps.core.guardian import Guardian, GuardianKeys
from kps.core.offline import Grant, grant_of
from kps.core.protector import VerifiedProtector, open_protector, roll_protector, verify_protector
from kps.core.release import permit, require_policy
from kps.core.release_policy import KEY, Circumstances
from kps.core.request import ReleaseRequest, parse_request, require_fresh, verify_request
from kps.core.wrap import ReleasedKeys, wrap
from kps.core.wrapped import KEY_SIZE
from kps.errors import ApprovalRequired, ReleaseReplayed, ReleaseRequestRefused
from kps.guardianship import newest_named
from kps.models import KeyProtectorRecord, KeyRelease, ReleaseApproval
from kps.our_pairs import OurPairs
from kps.owner_denials import require_not_denied
from kps.remembered import Remembered, remembered
from kps.returns import holders
from kps.senders import authenticated, held_by_sender
from ledger.service import Leaf, new_leaf, receipt, record_with
from ledger.statements import Change, New

logger = logging.getLogger("guardhouse.releases")
_MACHINE_NONCE = 16


@dataclass(frozen=True, slots=True)
class ReleaseAnswer:
    """`wrapped_keys` opens only in the host's TPM; `key_protector` is for the next start; `receipt` is the log's."""

    wrapped_keys: str
    key_protector: jose.Json
    receipt: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """An authenticated request: by whom, on what certificate, about whose protector as far as that holds."""

    request: ReleaseRequest
    held: Holding
    here: Remembered
    protector: VerifiedProtector | None
    flaw: Refusal | None

    @property
    def attester_id(self) -> UUID:
        return self.held.attester_id

    @property
    def host(self) -> str:
        return self.held.host.name

    @property
    def actor(self) -> str:
        return f"host:{self.attester_id}"


@dataclass(frozen=True, slots=True)
class _Applied:
    """What a release is decided by: the owner's newest chain, and what this fabric remembers of the protector.

    Nothing is remembered of a protector that does not name this fabric, nor taken from one with a `flaw`.
    """

    chain: VerifiedChain
    known: KeyProtectorRecord | None
    flaw: Refusal | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What is written of a request: why it was refused, or else what changes by the release and what it allows."""

    refusal: Refusal | None = None
    approval: ReleaseApproval | None = None
    change: Change | None = None
    grant: Grant | None = None
    made: UUID | None = None


def release(token: object, *, now: datetime) -> ReleaseAnswer:
    """Answer a guarded host's request for a VM's key, or raise a `Refusal`.

    The row, the leaf and the answer are made in one transaction, and the answer leaves after its commit: whatever
    dies when, no key goes out without its row. A refusal is a row too, and spends the nonce. A sender that has not
    authenticated itself leaves no row, only a line in the log.
    """
    request = authenticated(parse_request(token), verify_request, log=_log_stranger)
    try:
        with transaction.atomic():
            asked = _asked(request, now=now)
            answer = _decide(asked, now=now)
    except IntegrityError as error:
        raise _replayed(request, error) from error
    if isinstance(answer, Refusal):
        _log(request, answer.code)
        raise answer
    logger.info("key of vm %s released to host %s, certificate %s", request.vm, asked.host, request.serial)
    return answer


def _asked(request: ReleaseRequest, *, now: datetime) -> _Asked:
    """Find out who asks about what, before anything is decided, so that a refusal is recorded with it.

    In the caller's transaction, in which nothing that counts changes from here on.
    """
    held = held_by_sender(request.serial, now=now)
    protector: VerifiedProtector | None = None
    flaw: Refusal | None = None
    try:
        protector = verify_protector(request.untrusted_protector)
    except Refusal as refusal:
        flaw = refusal
    here = remembered(None if protector is None else protector.chain)
    return _Asked(request, held, here, protector, flaw)


def _decide(asked: _Asked, *, now: datetime) -> ReleaseAnswer | Refusal:
    """Release or refuse, and write it down, in the caller's transaction."""
    applied = None if asked.protector is None else _applied(asked, asked.protector, now=now)
    try:
        host = _proved(asked, now=now)
        if asked.protector is None or applied is None:
            raise asked.flaw or AssertionError("a protector that did not verify has a flaw")
        if applied.flaw is not None:
            raise applied.flaw
        return _release(asked, asked.protector, applied, host, now=now)
    except Refusal as refusal:
        _refuse(asked, applied, refusal, now=now)
        return refusal


def _proved(asked: _Asked, *, now: datetime) -> HealthStatement:
    """Return what the host has proved, as far as that entitles it to keys now."""
    require_fresh(asked.request, now=now)
    held = bytes(asked.held.certificate.der)
    if held != asked.request.certificate and attestation.serial_in(asked.request.certificate) != asked.request.serial:
        raise ReleaseRequestRefused("The request was made with the secret of another certificate than it carries.")
    return attestation.verify_certificate(asked.request.certificate, held=asked.held, now=now)


def _applied(asked: _Asked, protector: VerifiedProtector, *, now: datetime) -> _Applied:
    """Find the owner's newest chain. The record is locked: a denial or a chain comes before this release or after."""
    known, ours = asked.here.known, asked.here.ours
    forged = ours.forged_link(protector.chain, seen=known is not None)
    if forged is not None:
        return _Applied(protector.chain, known, forged)
    if known is None and any(guardian.fingerprint in ours.fingerprints for guardian in protector.guardians):
        known = remember(protector.chain, by=asked.actor, now=now)
    if known is None:
        return _Applied(protector.chain, known)
    return _Applied(binding(known, protector.chain, by=asked.actor, now=now), known)


def _release(
    asked: _Asked, protector: VerifiedProtector, applied: _Applied, host: HealthStatement, *, now: datetime
) -> ReleaseAnswer:
    chain, known, ours = applied.chain, applied.known, asked.here.ours
    ours.require_enabled(chain.guardians)
    ours.require_enabled(protector.guardians)
    allowed = permit(protector, chain, ours=ours.fingerprints, denied=known is not None and known.denied_at is not None)
    if known is None:
        raise AssertionError("a protector that names this fabric is remembered")
    require_not_denied(known)
    approval = _approval(chain, known, host, now=now)
    require_policy(chain.statement.policy, _circumstances(chain, host, approved=approval is not None, now=now))
    ingress, egress = open_protector(protector, ours.keys(allowed.opens).encryption), secrets.token_bytes(KEY_SIZE)
    if approval is not None:
        use(approval, now=now)
    following, sealer = _following(_to_start(chain, allowed.seals, ours, now=now), allowed.seals, ours)
    lasting, grant = following.guardians, grant_of(chain.statement.policy, mode=host.mode, now=now)
    made: UUID | None = None
    if following.made_from == protector.id:  # the file itself stays as it is, for the guardians that it names
        lasting, grant, made = protector.guardians, None, following.statement.id
        remember(following, by=asked.actor, vm=asked.request.vm, now=now)
    change = _used(known, protector, newest_named(lasting, among=ours.pairs), now)
    leaf = _write(asked, applied, _Outcome(approval=approval, change=change, grant=grant, made=made), now=now)
    statement, roll = following.statement, protector.roll + 1
    released = ReleasedKeys(statement.id, statement.level, roll, ingress=ingress, egress=egress)
    return ReleaseAnswer(
        wrapped_keys=wrap(released, transport_spki=host.transport_spki),
        key_protector=roll_protector(protector, following, key=egress, signer=sealer.signing),
        receipt=receipt(leaf, now=now),
    )


def _to_start(chain: VerifiedChain, mine: Guardian, ours: OurPairs, *, now: datetime) -> VerifiedChain:
    """Return the chain of what is started next: this one, or that of a new machine where it is shielding data's."""
    if not chain.statement.makes_machines:
        return chain
    return make_machine(chain, ours.keys(mine), nonce=secrets.token_bytes(_MACHINE_NONCE), now=now)


def _following(chain: VerifiedChain, mine: Guardian, ours: OurPairs) -> tuple[VerifiedChain, GuardianKeys]:
    """Return the chain for the next start, and our keys that seal it: new ones where the owner has allowed it."""
    keys = ours.keys(mine)
    newer = ours.successor_of(mine) if chain.statement.policy.successors else None
    if newer is None or newer in chain.guardians or len(chain.links) > MOST_SUCCESSIONS:
        return chain, keys
    named = replace(newer, name=mine.name)  # as the owner knows this fabric, whatever it calls itself by now
    return succeed(chain, keys, named), ours.keys(newer)


def _approval(
    chain: VerifiedChain, known: KeyProtectorRecord, host: HealthStatement, *, now: datetime
) -> ReleaseApproval | None:
    """Return the owner's yes to this host, where the owner wants to be asked."""
    wanted = chain.statement.policy.approval
    return None if wanted is None else standing_approval(known, host.attester_id, by_key=wanted == KEY, now=now)


def _circumstances(chain: VerifiedChain, host: HealthStatement, *, approved: bool, now: datetime) -> Circumstances:
    statement, others = chain.statement, 0
    if statement.policy.simultaneous_hosts is not None and not statement.makes_machines:
        others = len(set(holders(statement.owner.fingerprint, statement.id, now=now)) - {host.attester_id})
    return Circumstances(group=host.group, mode=host.mode, at=now, others=others, approved=approved)


def _used(known: KeyProtectorRecord, protector: VerifiedProtector, guardian: str, now: datetime) -> Change:
    """Return what a release changes in what is remembered of its protector."""
    known.last_released = now
    known.last_roll = max(known.last_roll, protector.roll + 1)
    known.guardian_fingerprint = guardian
    return Change(known, ["last_released", "last_roll", "guardian_fingerprint"])


def _refuse(asked: _Asked, applied: _Applied | None, refusal: Refusal, *, now: datetime) -> None:
    """Write the refusal down; one that lacks only the owner's yes goes on the owner's list."""
    approval = None
    if isinstance(refusal, ApprovalRequired) and applied is not None and applied.known is not None:
        approval = ask(
            applied.known,
            attester_id=asked.attester_id,
            host=asked.host,
            vm=asked.request.vm,
            attestation_id=asked.held.proved.id,
            needs_key=applied.chain.statement.policy.approval == KEY,
            now=now,
        )
    _write(asked, applied, _Outcome(refusal, approval), now=now)


def _write(asked: _Asked, applied: _Applied | None, outcome: _Outcome, *, now: datetime) -> Leaf:
    """Write the row and its leaf, with what changes by it, in the caller's transaction."""
    row, protector = _row(asked, applied, outcome, now), asked.protector
    leaf = new_leaf(
        actor=asked.actor,
        act="key.refused" if outcome.refusal else "key.released",
        subject=protector.subject if protector else f"certificate:{row.serial}",
        detail=_detail(row) | attestation.bound(asked.held.proved, asked.held.certificate),
        now=now,
    )
    if not record_with(outcome.change, [New(row)], leaf):
        raise AssertionError("the record of a protector is held, and nobody removes one")
    return leaf


def _row(asked: _Asked, applied: _Applied | None, outcome: _Outcome, now: datetime) -> KeyRelease:
    request, held, protector = asked.request, asked.held, asked.protector
    refusal, approval, grant = outcome.refusal, outcome.approval, outcome.grant
    return KeyRelease(
        id=asked.here.number,
        at=now,
        vm=request.vm,
        protector_id=protector.id if protector else None,
        made_id=outcome.made,
        owner_fingerprint=protector.owner.fingerprint if protector else "",
        level=applied.chain.statement.level if applied else "",
        roll=protector.roll if protector else None,
        owner_serial=applied.chain.statement.serial if applied else None,
        statement_sha256=applied.chain.statement_sha256 if applied else "",
        approval_id=approval.pk if approval else None,
        attester_id=held.attester_id,
        host=held.host.name,
        group=str(held.host.group_id),
        serial=request.serial,
        attestation_id=held.proved.id,
        mode=held.proved.mode,
        policy_version=held.proved.policy_version,
        outcome=KeyRelease.Outcome.REFUSED if refusal else KeyRelease.Outcome.RELEASED,
        code=refusal.code if refusal else "",
        detail=str(refusal) if refusal else "",
        nonce_sha256=_nonce_digest(request),
        offline_starts=grant.starts if grant else None,
        offline_until=grant.until if grant else None,
    )


def _detail(row: KeyRelease) -> dict[str, object]:
    """What the leaf says: everything that the row says, so that the row cannot be changed behind its back."""
    return {
        "release": row.pk,
        "vm": row.vm,
        "host": row.host,
        "group": row.group,
        "certificate": row.serial,
        "machine": str(row.made_id) if row.made_id else "",
        "attestation": row.attestation_id,
        "mode": row.mode,
        "policy": row.policy_version,
        "owner": row.owner_fingerprint,
        "owner_serial": row.owner_serial,
        "statement": row.statement_sha256,
        "level": row.level,
        "roll": row.roll,
        "approval": str(row.approval_id) if row.approval_id else "",
        "offline_starts": row.offline_starts or 0,
        "offline_until": row.offline_until.isoformat() if row.offline_until else "",
        "code": row.code,
        "why": row.detail,
    }


def _replayed(request: ReleaseRequest, error: IntegrityError) -> Exception:
    """A row that could not be written is a replay when its nonce is there by now, and else what it was."""
    if not KeyRelease.objects.filter(serial=request.serial, nonce_sha256=_nonce_digest(request)).exists():
        return error
    _log(request, ReleaseReplayed.code)
    return ReleaseReplayed("This request was answered before. A new one needs a new nonce.")


def _nonce_digest(request: ReleaseRequest) -> str:
    return hashlib.sha256(request.nonce).hexdigest()


def _log_stranger(serial: str, code: str) -> None:
    logger.warning("release request refused: certificate %s, code %s", serial, code)


def _log(request: ReleaseRequest, code: str) -> None:
    logger.warning("key of vm %s refused: certificate %s, code %s", request.vm, request.serial, code)
