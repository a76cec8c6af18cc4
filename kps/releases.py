"""The release of keys: authenticate, decide, write down, and only then answer."""

import hashlib
import logging
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import IntegrityError, transaction

from attestation import service as attestation
from attestation.errors import NotFound, Refusal
from kps.core import jose
from kps.core.protector import VerifiedProtector, open_protector, roll_protector, verify_protector
from kps.core.release import permit
from kps.core.request import ReleaseRequest, parse_request, require_fresh, verify_request
from kps.core.wrap import ReleasedKeys, wrap
from kps.core.wrapped import KEY_SIZE
from kps.errors import ReleaseReplayed, ReleaseRequestRefused
from kps.guardianship import newest_named, our_fingerprints, our_keys, require_enabled
from kps.models import KeyProtectorRecord, KeyRelease
from ledger.service import Leaf, receipt, record

logger = logging.getLogger("guardhouse.releases")
ANSWERED_AFTER_EXPIRY = timedelta(days=1)


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
    attestation_id: int
    mode: str
    policy_version: int
    protector: VerifiedProtector | None
    flaw: Refusal | None


def release(token: object, *, now: datetime) -> ReleaseAnswer:
    """Answer a guarded host's request for a VM's key, or raise a `Refusal`.

    The row, the leaf and the answer are made in one transaction, and the answer leaves after its commit: whatever
    dies when, no key goes out without its row. A refusal is a row too, in a transaction of its own, and spends the
    nonce. A sender that has not authenticated itself leaves no row, only a line in the log.
    """
    request = _authenticated(token, now=now)
    if _answered(request):
        _log(request, ReleaseReplayed.code)
        raise ReleaseReplayed("This request was answered before. A new one needs a new nonce.")
    asked = _asked(request)
    try:
        with transaction.atomic():
            answer = _release(asked, now=now)
    except IntegrityError as error:
        raise _replayed(request, error) from error
    except Refusal as refusal:
        _refuse(asked, refusal, now=now)
        raise
    logger.info("key of vm %s released to host %s, certificate %s", request.vm, asked.host, request.serial)
    return answer


def _authenticated(token: object, *, now: datetime) -> ReleaseRequest:
    """Return the request of somebody who holds a certificate, or held one lately: nobody writes rows here for ever."""
    unverified = parse_request(token)
    try:
        request = verify_request(unverified, attestation.release_secret(unverified.kid))
        if attestation.certificate(request.serial).not_after < now - ANSWERED_AFTER_EXPIRY:
            raise NotFound("The certificate lapsed long ago.")
    except NotFound as error:
        raise ReleaseRequestRefused("The request does not prove that its sender holds the certificate.") from error
    except Refusal as refusal:
        logger.warning("release request refused: certificate %s, code %s", unverified.kid, refusal.code)
        raise
    return request


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
        attestation_id=certificate.attestation.id,
        mode=certificate.attestation.mode,
        policy_version=certificate.attestation.policy_version,
        protector=protector,
        flaw=flaw,
    )


def _release(asked: _Asked, *, now: datetime) -> ReleaseAnswer:
    require_fresh(asked.request, now=now)
    statement = attestation.verify_certificate(asked.request.certificate, now=now)
    if statement.serial != asked.request.serial:
        raise ReleaseRequestRefused("The request was made with the secret of another certificate than it carries.")
    if asked.protector is None:
        raise asked.flaw or AssertionError("a protector that did not verify has a flaw")
    protector = asked.protector
    known = _locked_record(protector, now)
    require_enabled(protector.guardians)
    keys = our_keys(permit(protector, ours=our_fingerprints(), denied=known.denied_at is not None))
    ingress, egress = open_protector(protector, keys.encryption), secrets.token_bytes(KEY_SIZE)
    _remember(known, protector, now)
    leaf = _write(asked, None, now=now)
    released = ReleasedKeys(protector.id, protector.level, protector.roll + 1, ingress=ingress, egress=egress)
    return ReleaseAnswer(
        wrapped_keys=wrap(released, transport_spki=statement.transport_spki),
        key_protector=roll_protector(protector, key=egress, signer=keys.signing),
        receipt=receipt(leaf, now=now),
    )


def _locked_record(protector: VerifiedProtector, now: datetime) -> KeyProtectorRecord:
    """Return the record of this protector, locked: a denial is decided before this release or after it."""
    known, _ = KeyProtectorRecord.objects.select_for_update().get_or_create(
        owner_fingerprint=protector.owner.fingerprint,
        protector_id=protector.id,
        defaults={
            "owner_name": protector.owner.name,
            "level": protector.level,
            "first_seen": now,
            "last_released": now,
            "last_roll": protector.roll,
        },
    )
    return known


def _remember(known: KeyProtectorRecord, protector: VerifiedProtector, now: datetime) -> None:
    known.last_released = now
    known.last_roll = max(known.last_roll, protector.roll + 1)
    known.level = protector.level
    known.guardian_fingerprint = newest_named(protector.guardians)
    known.save(update_fields=["last_released", "last_roll", "level", "guardian_fingerprint"])


def _refuse(asked: _Asked, refusal: Refusal, *, now: datetime) -> None:
    _log(asked.request, refusal.code)
    try:
        with transaction.atomic():
            _write(asked, refusal, now=now)
    except IntegrityError as error:  # the same request, answered meanwhile by another node
        raise _replayed(asked.request, error) from error


def _write(asked: _Asked, refusal: Refusal | None, *, now: datetime) -> Leaf:
    """Write the row and its leaf, in the caller's transaction."""
    request, protector = asked.request, asked.protector
    row = KeyRelease.objects.create(
        at=now,
        vm=request.vm,
        protector_id=protector.id if protector else None,
        owner_fingerprint=protector.owner.fingerprint if protector else "",
        level=protector.level if protector else "",
        roll=protector.roll if protector else None,
        attester_id=asked.attester_id,
        host=asked.host,
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
        actor=f"host:{asked.attester_id}",
        act="key.refused" if refusal else "key.released",
        subject=protector.subject if protector else f"certificate:{request.serial}",
        detail=_detail(row),
        now=now,
    )


def _detail(row: KeyRelease) -> dict[str, object]:
    """What the leaf says: everything that the row says, so that the row cannot be changed behind its back."""
    return {
        "release": row.pk,
        "vm": row.vm,
        "host": row.host,
        "certificate": row.serial,
        "attestation": row.attestation_id,
        "mode": row.mode,
        "policy": row.policy_version,
        "owner": row.owner_fingerprint,
        "level": row.level,
        "roll": row.roll,
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


def _log(request: ReleaseRequest, code: str) -> None:
    logger.warning("key of vm %s refused: certificate %s, code %s", request.vm, request.serial, code)
