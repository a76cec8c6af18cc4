"""Host-key mode: a key is registered, approved by people for one host, and asked for a proof at each attestation.

It says which machine answers, and nothing of what runs on it (HGS: host key attestation).
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from attestation import strangers
from attestation.challenges import NONCE_SIZE, spend
from attestation.core.possession import fingerprint, parse_host_key, verify_possession
from attestation.enrolment import ACTIVATION_LIFETIME, approved_as, settled
from attestation.errors import ActivationRefused, IdentityKnown, ParseError, Refusal, WrongMode
from attestation.models import Attester, Enrolment, Mode
from attestation.opening import Opening
from attestation.recording import Moment, Outcome, Shown, conclude_shown, record_refusal
from ledger import service as ledger


@dataclass(frozen=True, slots=True)
class KeyOffer:
    """What a host has to sign to show that the key it named is its own."""

    enrolment: UUID
    nonce: bytes


def offer_host_key(name: str, host_key: bytes, *, now: datetime) -> KeyOffer:
    """Take down a key and return the nonce to be signed with it. Raises `ParseError` or `UnacceptableKey`."""
    try:
        parse_host_key(host_key)
    except Refusal as refusal:
        strangers.refused("host.enrolment_refused", f"name:{name}", refusal, now=now)
        raise
    nonce = secrets.token_bytes(NONCE_SIZE)
    strangers.forget(Enrolment.objects.all, now=now)
    enrolment = Enrolment.objects.create(
        name=name,
        host_key=host_key,
        secret_sha256=hashlib.sha256(nonce).digest(),
        created_at=now,
        expires_at=now + ACTIVATION_LIFETIME,
    )
    return KeyOffer(enrolment.id, nonce)


def prove_host_key(enrolment_id: UUID, nonce: bytes, proof: str, *, now: datetime) -> Attester:
    """Spend an offer with a proof over its nonce, and return the host that it stands for; it waits for a person."""
    live = Enrolment.objects.filter(pk=enrolment_id, host_key__isnull=False, spent_at=None, expires_at__gt=now)
    enrolment = Enrolment.objects.get(pk=enrolment_id) if live.update(spent_at=now) == 1 else None
    try:
        if enrolment is None or not hmac.compare_digest(bytes(enrolment.secret_sha256), hashlib.sha256(nonce).digest()):
            raise ActivationRefused("This offer is unknown, used or too old. Register the key again.")
        host_key = bytes(enrolment.host_key or b"")
        verify_possession(proof, parse_host_key(host_key), nonce=nonce)
        return settled(lambda: _attester(enrolment.name, host_key, now=now))
    except Refusal as refusal:
        strangers.refused("host.activation_refused", f"enrolment:{enrolment_id}", refusal, now=now)
        raise


def _attester(name: str, host_key: bytes, *, now: datetime) -> Attester:
    identity = fingerprint(host_key)
    known = Attester.objects.filter(mode=Mode.HOST_KEY, identity=identity).first()
    if known is not None:
        if known.name != name:
            raise IdentityKnown(f"This key is registered as {known.name}. A host has a key of its own.")
        return known
    attester = Attester.objects.create(
        name=name,
        mode=Mode.HOST_KEY,
        identity=identity,
        host_key=host_key,
        replaces=approved_as(name, Mode.HOST_KEY),
        enrolled_at=now,
        status="UnauthorizedHost",
        status_at=now,
    )
    replaces = "" if attester.replaces is None else str(attester.replaces.id)
    ledger.record(
        actor=attester.subject,
        act="host.key_registered",
        subject=attester.subject,
        detail={"name": name, "host_key": identity, "replaces": replaces},
        now=now,
    )
    return attester


def appraise_possession(challenge_id: UUID, proof: str, *, now: datetime) -> Outcome:
    """Spend a challenge with a proof over its nonce, record it, and certify the transport key of an approved host.

    Raises `ChallengeSpent`, or what says why the proof is none; that is recorded too.
    """
    began = Moment.begun(now)
    opening = spend(challenge_id, now=now)
    try:
        shown = _shown(opening, proof)
    except Refusal as refusal:
        record_refusal(opening, refusal, began)
        raise
    return conclude_shown(opening, shown, began)


def _shown(opening: Opening, proof: str) -> Shown:
    host = opening.host
    if host.mode != Mode.HOST_KEY:
        raise WrongMode(f"{host.name} is known here by its {host.get_mode_display()}, not by a host key.")
    key = parse_host_key(bytes(host.host_key or b""))
    said = verify_possession(proof, key, nonce=bytes(opening.challenge.nonce))
    if said.transport_spki is None:
        raise ParseError("The proof names no transport key, so no certificate could be given for one.")
    return Shown(said.transport_spki, {"proof": proof})
