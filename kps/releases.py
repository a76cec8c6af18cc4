"""The release of keys: authenticate, decide, write down, and only then answer."""

import hashlib
import logging
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from django.db import IntegrityError, transaction

from attestation import service as attestation
from attestation import standing
from attestation.errors import Refusal
from attestation.service import HealthStatement
from kps.approvals import ask, standing_approval, use
from kps.chains import binding, record_of, remember
from kps.core import jose
from kps.core.chain import MOST_SUCCESSIONS, VerifiedChain, succeed
from kps.core.guardian import Guardian, GuardianKeys
from kps.core.protector import VerifiedProtector, open_protector, roll_protector, verify_protector
from kps.core.release import permit, require_policy
from kps.core.release_policy import KEY, Circumstances
from kps.core.request import ReleaseRequest, parse_request, require_fresh, verify_request
from kps.core.wrap import ReleasedKeys, wrap
from kps.core.wrapped import KEY_SIZE
from kps.errors import ApprovalRequired, ReleaseReplayed, ReleaseRequestRefused
from kps.guardianship import newest_named, our_fingerprints, our_keys, require_enabled, successor_of
from kps.models import KeyProtectorRecord, KeyRelease, ReleaseApproval
from kps.returns import holders
from kps.senders import authenticated
from ledger.service import Leaf, receipt, record

logger = logging.getLogger("guardhouse.releases")


@dataclass(frozen=True, slots=True)
class ReleaseAnswer:
    """`wrapped_keys` opens only in the host's TPM; `key_protector` is for the next start; `receipt` is the log's."""

    wrapped_keys: str
    key_protector: jose.Json
    receipt: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """An authenticated request: who asks, on what attestation, and about whose protector as far as that holds."""

    request: ReleaseRequest
    attester_id: UUID
    host: str
    group: str
    attestation_id: int
    mode: str
    policy_version: int
    grounds: Mapping[str, object]  # digests of what the certificate rests on
    protector: VerifiedProtector | None
    flaw: Refusal | None

    @property
    def actor(self) -> str:
        return f"host:{self.attester_id}"


@dataclass(frozen=True, slots=True)
class _Applied:
    """What a release is decided by: the owner's newest chain, and what this fabric remembers of the protector.

    Nothing is remembered of a protector that does not name this fabric.
    """

    chain: VerifiedChain
    ours: Collection[str]
    known: KeyProtectorRecord | None


def release(token: object, *, now: datetime) -> ReleaseAnswer:
    """Answer a guarded host's request for a VM's key, or raise a `Refusal`.

    The row, the leaf and the answer are made in one transaction, and the answer leaves after its commit: whatever
    dies when, no key goes out without its row. A refusal is a row too, and spends the nonce. A sender that has not
    authenticated itself leaves no row, only a line in the log.
    """
    request = authenticated(parse_request(token), verify_request, log=_log_stranger, now=now)
    if _answered(request):
        _log(request, ReleaseReplayed.code)
        raise ReleaseReplayed("This request was answered before. A new one needs a new nonce.")
    asked = _asked(request)
    try:
        with transaction.atomic():
            answer = _decide(asked, now=now)
    except IntegrityError as error:
        raise _replayed(request, error) from error
    if isinstance(answer, Refusal):
        _log(request, answer.code)
        raise answer
    logger.info("key of vm %s released to host %s, certificate %s", request.vm, asked.host, request.serial)
    return answer


def _answered(request: ReleaseRequest) -> bool:
    return KeyRelease.objects.filter(serial=request.serial, nonce_sha256=_nonce_digest(request)).exists()


def _asked(request: ReleaseRequest) -> _Asked:
    """Find out who asks about what, before anything is decided, so that a refusal is recorded with it."""
    certificate = attestation.certificate(request.serial)
    protector: VerifiedProtector | None = None
    flaw: Refusal | None = None
    try:
        protector = verify_protector(request.untrusted_protector)
    except Refusal as refusal:
        flaw = refusal
    return _Asked(
        request=request,
        attester_id=certificate.attester.id,
        host=certificate.attester.name,
        group=str(certificate.attester.group_id),
        attestation_id=certificate.attestation.id,
        mode=certificate.attestation.mode,
        policy_version=certificate.attestation.policy_version,
        grounds=attestation.bound(certificate.attestation, certificate),
        protector=protector,
        flaw=flaw,
    )


def _decide(asked: _Asked, *, now: datetime) -> ReleaseAnswer | Refusal:
    """Release or refuse, and write it down; in the caller's transaction, in which nothing that counts changes."""
    standing.hold()
    applied = None if asked.protector is None else _applied(asked, asked.protector, now=now)
    try:
        host = _proved(asked, now=now)
        if asked.protector is None or applied is None:
            raise asked.flaw or AssertionError("a protector that did not verify has a flaw")
        return _release(asked, asked.protector, applied, host, now=now)
    except Refusal as refusal:
        _refuse(asked, applied, refusal, now=now)
        return refusal


def _proved(asked: _Asked, *, now: datetime) -> HealthStatement:
    """Return what the host has proved, as far as that entitles it to keys now."""
    require_fresh(asked.request, now=now)
    statement = attestation.verify_certificate(asked.request.certificate, now=now)
    if statement.serial != asked.request.serial:
        raise ReleaseRequestRefused("The request was made with the secret of another certificate than it carries.")
    return statement


def _applied(asked: _Asked, protector: VerifiedProtector, *, now: datetime) -> _Applied:
    """Find the owner's newest chain, and lock the record: a denial or a chain comes before this release or after."""
    ours = our_fingerprints()
    known = record_of(protector.chain)
    if known is None and any(guardian.fingerprint in ours for guardian in protector.guardians):
        known = remember(protector.chain, by=asked.actor, now=now)
    if known is None:
        return _Applied(protector.chain, ours, known)
    return _Applied(binding(known, protector.chain, by=asked.actor, now=now), ours, known)


def _release(
    asked: _Asked, protector: VerifiedProtector, applied: _Applied, host: HealthStatement, *, now: datetime
) -> ReleaseAnswer:
    chain, known = applied.chain, applied.known
    require_enabled(chain.guardians)
    require_enabled(protector.guardians)
    allowed = permit(protector, chain, ours=applied.ours, denied=known is not None and known.denied_at is not None)
    if known is None:
        raise AssertionError("a protector that names this fabric is remembered")
    approval = _approval(chain, known, host, now=now)
    require_policy(chain.statement.policy, _circumstances(chain, host, approved=approval is not None, now=now))
    ingress, egress = open_protector(protector, our_keys(allowed.opens).encryption), secrets.token_bytes(KEY_SIZE)
    if approval is not None:
        use(approval, now=now)
    following, sealer = _following(chain, allowed.seals, now=now)
    _remember(known, protector, following, now)
    leaf = _write(asked, applied, None, approval=approval, now=now)
    released = ReleasedKeys(protector.id, chain.statement.level, protector.roll + 1, ingress=ingress, egress=egress)
    return ReleaseAnswer(
        wrapped_keys=wrap(released, transport_spki=host.transport_spki),
        key_protector=roll_protector(protector, following, key=egress, signer=sealer.signing),
        receipt=receipt(leaf, now=now),
    )


def _following(chain: VerifiedChain, mine: Guardian, *, now: datetime) -> tuple[VerifiedChain, GuardianKeys]:
    """Return the chain for the next start, and our keys that seal it: new ones where the owner has allowed it."""
    keys = our_keys(mine)
    newer = successor_of(mine, now=now) if chain.statement.policy.successors else None
    if newer is None or newer in chain.guardians or len(chain.links) > MOST_SUCCESSIONS:
        return chain, keys
    named = replace(newer, name=mine.name)  # as the owner knows this fabric, whatever it calls itself by now
    return succeed(chain, keys, named), our_keys(newer)


def _approval(
    chain: VerifiedChain, known: KeyProtectorRecord, host: HealthStatement, *, now: datetime
) -> ReleaseApproval | None:
    """Return the owner's yes to this host, where the owner wants to be asked."""
    wanted = chain.statement.policy.approval
    return None if wanted is None else standing_approval(known, host.attester_id, by_key=wanted == KEY, now=now)


def _circumstances(chain: VerifiedChain, host: HealthStatement, *, approved: bool, now: datetime) -> Circumstances:
    statement, others = chain.statement, 0
    if statement.policy.simultaneous_hosts is not None:
        others = len(set(holders(statement.owner.fingerprint, statement.id, now=now)) - {host.attester_id})
    return Circumstances(group=host.group, mode=host.mode, at=now, others=others, approved=approved)


def _remember(known: KeyProtectorRecord, protector: VerifiedProtector, following: VerifiedChain, now: datetime) -> None:
    known.last_released = now
    known.last_roll = max(known.last_roll, protector.roll + 1)
    known.guardian_fingerprint = newest_named(following.guardians)
    known.save(update_fields=["last_released", "last_roll", "guardian_fingerprint"])


def _refuse(asked: _Asked, applied: _Applied | None, refusal: Refusal, *, now: datetime) -> None:
    """Write the refusal down; one that lacks only the owner's yes goes on the owner's list."""
    approval = None
    if isinstance(refusal, ApprovalRequired) and applied is not None and applied.known is not None:
        approval = ask(
            applied.known,
            attester_id=asked.attester_id,
            host=asked.host,
            vm=asked.request.vm,
            attestation_id=asked.attestation_id,
            needs_key=applied.chain.statement.policy.approval == KEY,
            now=now,
        )
    _write(asked, applied, refusal, approval=approval, now=now)


def _write(
    asked: _Asked,
    applied: _Applied | None,
    refusal: Refusal | None,
    *,
    approval: ReleaseApproval | None,
    now: datetime,
) -> Leaf:
    """Write the row and its leaf, in the caller's transaction."""
    request, protector = asked.request, asked.protector
    row = KeyRelease.objects.create(
        at=now,
        vm=request.vm,
        protector_id=protector.id if protector else None,
        owner_fingerprint=protector.owner.fingerprint if protector else "",
        level=applied.chain.statement.level if applied else "",
        roll=protector.roll if protector else None,
        owner_serial=applied.chain.statement.serial if applied else None,
        statement_sha256=applied.chain.statement_sha256 if applied else "",
        approval_id=approval.pk if approval else None,
        attester_id=asked.attester_id,
        host=asked.host,
        group=asked.group,
        serial=request.serial,
        attestation_id=asked.attestation_id,
        mode=asked.mode,
        policy_version=asked.policy_version,
        outcome=KeyRelease.Outcome.REFUSED if refusal else KeyRelease.Outcome.RELEASED,
        code=refusal.code if refusal else "",
        detail=str(refusal) if refusal else "",
        nonce_sha256=_nonce_digest(request),
    )
    return record(
        actor=asked.actor,
        act="key.refused" if refusal else "key.released",
        subject=protector.subject if protector else f"certificate:{request.serial}",
        detail={**_detail(row), **asked.grounds},
        now=now,
    )


def _detail(row: KeyRelease) -> dict[str, object]:
    """What the leaf says: everything that the row says, so that the row cannot be changed behind its back."""
    return {
        "release": row.pk,
        "vm": row.vm,
        "host": row.host,
        "group": row.group,
        "certificate": row.serial,
        "attestation": row.attestation_id,
        "mode": row.mode,
        "policy": row.policy_version,
        "owner": row.owner_fingerprint,
        "owner_serial": row.owner_serial,
        "statement": row.statement_sha256,
        "level": row.level,
        "roll": row.roll,
        "approval": str(row.approval_id) if row.approval_id else "",
        "code": row.code,
        "why": row.detail,
    }


def _replayed(request: ReleaseRequest, error: IntegrityError) -> Exception:
    """A row that could not be written is a replay when its nonce is there by now, and else what it was."""
    if not _answered(request):
        return error
    _log(request, ReleaseReplayed.code)
    return ReleaseReplayed("This request was answered before. A new one needs a new nonce.")


def _nonce_digest(request: ReleaseRequest) -> str:
    return hashlib.sha256(request.nonce).hexdigest()


def _log_stranger(serial: str, code: str) -> None:
    logger.warning("release request refused: certificate %s, code %s", serial, code)


def _log(request: ReleaseRequest, code: str) -> None:
    logger.warning("key of vm %s refused: certificate %s, code %s", request.vm, request.serial, code)
