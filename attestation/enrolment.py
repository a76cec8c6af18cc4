"""Enrolment: a host names its keys, proves that they live in one TPM, and waits for a person."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from django.db import IntegrityError, transaction

from attestation import strangers
from attestation.core.credential import make_credential
from attestation.core.endorsement import require_ek
from attestation.core.tpm import TpmPublic, parse_public, require_ak
from attestation.endorsements import Trust, judge_endorsement
from attestation.errors import ActivationRefused, IdentityKnown, Refusal
from attestation.models import Attester, Enrolment, Mode
from ledger import service as ledger

SECRET_SIZE = 32
ACTIVATION_LIFETIME = timedelta(minutes=5)
SEED_SIZE = 64  # enough for the largest name algorithm of an EK; the core takes what it needs


@dataclass(frozen=True, slots=True)
class EnrolmentRequest:
    """What a host says of itself: a name, and TPM2B_PUBLIC and certificate bytes."""

    name: str
    ek_public: bytes
    ek_certificate: bytes | None
    ak_public: bytes


@dataclass(frozen=True, slots=True)
class Credential:
    """TPM2_MakeCredential's answer; only the TPM that holds both the EK and the AK can open it."""

    enrolment: UUID
    credential_blob: bytes
    secret: bytes


def enrol(request: EnrolmentRequest, *, now: datetime) -> Credential:
    """Check the keys and return a credential for them. Raises `ParseError` or `VerificationError`, and records that."""
    try:
        ek, ak = parse_public(request.ek_public), parse_public(request.ak_public)
        require_ek(ek)
        require_ak(ak)
        judge_endorsement(ek, request.ek_certificate, trust=Trust(), now=now)
    except Refusal as refusal:
        strangers.refused("host.enrolment_refused", f"name:{request.name}", refusal, now=now)
        raise
    secret = secrets.token_bytes(SECRET_SIZE)
    blob, encrypted = make_credential(
        ek, ak.name, secret, seed=secrets.token_bytes(SEED_SIZE), ephemeral=_ephemeral_for(ek)
    )
    strangers.forget(Enrolment.objects.all, now=now)
    enrolment = Enrolment.objects.create(
        name=request.name,
        ek_public=request.ek_public,
        ek_certificate=request.ek_certificate,
        ak_public=request.ak_public,
        secret_sha256=hashlib.sha256(secret).digest(),
        created_at=now,
        expires_at=now + ACTIVATION_LIFETIME,
    )
    return Credential(enrolment=enrolment.id, credential_blob=blob, secret=encrypted)


def activate(enrolment_id: UUID, secret: bytes, *, now: datetime) -> Attester:
    """Spend an enrolment with the secret that only its TPM could read, and return the host it stands for.

    A TPM that is enrolled already under this name gets its old row back. A name that another approved TPM holds
    stays with that TPM: the new one waits for a person, and says which host it would replace.
    """
    live = Enrolment.objects.filter(pk=enrolment_id, host_key=None, spent_at=None, expires_at__gt=now)
    enrolment = Enrolment.objects.get(pk=enrolment_id) if live.update(spent_at=now) == 1 else None
    digest = hashlib.sha256(secret).digest()
    if enrolment is None or not hmac.compare_digest(bytes(enrolment.secret_sha256), digest):
        refusal = ActivationRefused("The secret is not the one that was sealed to this TPM, or it came too late.")
        strangers.refused("host.activation_refused", f"enrolment:{enrolment_id}", refusal, now=now)
        raise refusal
    try:
        return settled(lambda: _attester_of(enrolment, now=now))
    except Refusal as refusal:
        strangers.refused("host.activation_refused", f"enrolment:{enrolment_id}", refusal, now=now)
        raise


def settled(find_or_make: Callable[[], Attester]) -> Attester:
    """Return a host's row, found or made; when another request makes it at the same time, the one that it made."""
    try:
        with transaction.atomic():
            return find_or_make()
    except IntegrityError:  # it has its row by now
        with transaction.atomic():
            return find_or_make()


def _attester_of(enrolment: Enrolment, *, now: datetime) -> Attester:
    ek, ak = parse_public(bytes(enrolment.ek_public)), parse_public(bytes(enrolment.ak_public))
    fingerprint = hashlib.sha256(ek.spki).hexdigest()
    known = Attester.objects.filter(ek_fingerprint=fingerprint, ak_name=ak.name.hex()).first()
    if known is not None:
        if known.name != enrolment.name:
            raise IdentityKnown(f"This TPM is enrolled as {known.name}. Enrol it under that name, or revoke it first.")
        return known
    _require_one_place(fingerprint, enrolment.name)
    certificate = None if enrolment.ek_certificate is None else bytes(enrolment.ek_certificate)
    verdict = judge_endorsement(ek, certificate, trust=Trust(), now=now)
    attester = Attester.objects.create(
        name=enrolment.name,
        replaces=approved_as(enrolment.name, Mode.TPM),
        ek_fingerprint=fingerprint,
        ek_public=enrolment.ek_public,
        ek_certificate=certificate,
        ek_verdict=verdict.verdict,
        ek_detail=verdict.detail,
        endorsement=verdict.endorsement,
        ak_name=ak.name.hex(),
        ak_public=enrolment.ak_public,
        enrolled_at=now,
        status="UnauthorizedHost",
        status_at=now,
    )
    replaces = "" if attester.replaces is None else str(attester.replaces.id)
    ledger.record(
        actor=attester.subject,
        act="host.identity_changed" if replaces else "host.enrolled",
        subject=attester.subject,
        detail={"name": attester.name, "ek": fingerprint, "ek_verdict": verdict.verdict, "replaces": replaces},
        now=now,
    )
    return attester


def approved_as(name: str, mode: Mode) -> Attester | None:
    """Return the approved host that has this name in a mode, and that a new one of that name would replace."""
    return Attester.objects.filter(name=name, mode=mode, state=Attester.State.APPROVED).first()


def _require_one_place(fingerprint: str, name: str) -> None:
    """Refuse a TPM that comes back with another AK to get another name, or out of what people decided about it."""
    same = list(Attester.objects.filter(ek_fingerprint=fingerprint))
    alive = [row for row in same if row.state in (Attester.State.PENDING, Attester.State.APPROVED)]
    elsewhere = next((row for row in alive if row.name != name), None)
    if elsewhere is not None:
        raise IdentityKnown(f"This TPM is enrolled as {elsewhere.name}. Enrol it under that name, or revoke it first.")
    if same and not alive:
        raise IdentityKnown(
            f"This TPM was {same[-1].state} as {same[-1].name}; another attestation key changes nothing."
        )


def _ephemeral_for(ek: TpmPublic) -> ec.EllipticCurvePrivateKey | None:
    return ec.generate_private_key(ek.key.curve) if isinstance(ek.key, ec.EllipticCurvePublicKey) else None
