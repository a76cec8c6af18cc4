"""The way of Evidence from the wire to a verdict."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction

from attestation import certificates, strangers
from attestation.challenges import spend
from attestation.core.appraise import AttestationResult, Finding, appraise
from attestation.core.claims import Claims, Evidence, verify_evidence
from attestation.core.handover import wrap_to_transport_key
from attestation.errors import (
    BadSignature,
    EventLogNeeded,
    NotFromTpm,
    ParseError,
    Refusal,
    ReplayMismatch,
    VerificationError,
    WrongNonce,
)
from attestation.models import Attestation, Attester, Blob, Challenge
from attestation.policy import policy_in_force
from ledger import service as ledger

log = logging.getLogger(__name__)

# Whoever knows a host's id can send these without its TPM, so they are recorded but say nothing about the host.
ANYONE_CAN_SEND = (ParseError, BadSignature, NotFromTpm, WrongNonce, EventLogNeeded)


@dataclass(frozen=True, slots=True)
class ReceivedEvidence:
    """Evidence as it came over the wire: the event log only when the challenge had asked for it."""

    quote: bytes
    signature: bytes
    pcr_values: Mapping[int, bytes]
    event_log: bytes | None
    ima_log: bytes | None
    transport_public: bytes
    transport_certify: bytes
    transport_signature: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict as the host gets it; certificate and wrapped release secret only when it passed."""

    status: str
    substatus: tuple[str, ...]
    findings: tuple[Finding, ...]
    next_attestation_at: datetime
    certificate: bytes | None = None
    release_secret: str | None = None


@dataclass(frozen=True, slots=True)
class _Moment:
    """When an appraisal began: by the calendar, and by a counter that nobody sets."""

    now: datetime
    ticks: int

    def elapsed_us(self) -> int:
        return (time.perf_counter_ns() - self.ticks) // 1000


def appraise_evidence(challenge_id: UUID, received: ReceivedEvidence, *, now: datetime) -> Outcome:
    """Spend the challenge, verify, appraise, record, and certify the host if it passed.

    Raises `ChallengeSpent`, or the `VerificationError` or `ParseError` that says why the Evidence is not authentic;
    that is recorded too. The nonce is spent outside the transaction: a failed appraisal must not bring it back.
    """
    began = _Moment(now, time.perf_counter_ns())
    challenge = spend(challenge_id, now=now)
    try:
        evidence = _complete(received, challenge)
        claims = verify_evidence(evidence, ak=challenge.attester.ak(), nonce=bytes(challenge.nonce))
    except Refusal as refusal:
        _record_refusal(challenge, refusal, began)
        raise
    policy = policy_in_force()
    result = appraise(claims.pcrs, claims.events, policy)
    with transaction.atomic():
        challenge.attester = _locked(challenge.attester_id)
        attestation = _record(challenge, evidence, claims, result, policy_version=policy.version, began=began)
        return _outcome(attestation, claims, now=now)


def _locked(attester_id: UUID) -> Attester:
    """Return the host as it stands now, held still: somebody may revoke it while its Evidence is being verified."""
    return Attester.objects.select_for_update(of=("self",)).select_related("latest").get(pk=attester_id)


def _complete(received: ReceivedEvidence, challenge: Challenge) -> Evidence:
    """Put the stored event log in the place of one that did not travel because the host announced it as unchanged."""
    event_log = received.event_log
    if event_log is None:
        if challenge.send_event_log:
            raise EventLogNeeded("The challenge asked for the event log, and none came.")
        event_log = bytes(Blob.objects.get(pk=challenge.event_log_sha256).content)
    return Evidence(
        quote=received.quote,
        signature=received.signature,
        pcr_values=received.pcr_values,
        event_log=event_log,
        ima_log=received.ima_log,
        transport_public=received.transport_public,
        transport_certify=received.transport_certify,
        transport_signature=received.transport_signature,
    )


def _record(
    challenge: Challenge,
    evidence: Evidence,
    claims: Claims,
    result: AttestationResult,
    *,
    policy_version: int,
    began: _Moment,
) -> Attestation:
    """Keep what came, what it proved and what was found."""
    attester = challenge.attester
    findings = (*_standing(attester), *result.findings)
    return Attestation.objects.create(
        attester=attester,
        challenge=challenge,
        at=began.now,
        mode=certificates.mode_in_force(),
        status=_status(attester, findings),
        substatus=sorted({finding.substatus for finding in findings if finding.substatus}),
        findings=[asdict(finding) for finding in findings],
        policy_version=policy_version,
        baseline_id=result.baseline,
        pcrs={str(pcr): value.hex() for pcr, value in claims.pcrs.items()},
        event_log=strangers.keep(attester, evidence.event_log),
        ima_log=_kept_ima(attester, evidence.ima_log),
        evidence=_as_hex(evidence),
        reset_count=claims.clock.reset_count,
        restart_count=claims.clock.restart_count,
        firmware_version=f"{claims.firmware_version:016x}",
        duration_us=began.elapsed_us(),
    )


def _standing(attester: Attester) -> tuple[Finding, ...]:
    if attester.state == Attester.State.APPROVED:
        return ()
    return (
        Finding(
            code="host_pending",
            substatus="",
            what=f"The host {attester.name} is enrolled, and nobody has approved it.",
            why="Its TPM has proved who it is; a person has to say that it belongs to this fabric.",
            remedy="Put it forward on its page and have it approved.",
        ),
    )


def _status(attester: Attester, findings: tuple[Finding, ...]) -> str:
    if attester.state != Attester.State.APPROVED:
        return "UnauthorizedHost"
    return "InsecureHostConfiguration" if findings else "Passed"


def _outcome(attestation: Attestation, claims: Claims, *, now: datetime) -> Outcome:
    """Certify a host that passed, tell the ledger, and show the result on the host; all in the caller's transaction."""
    attester = attestation.attester
    passed = attestation.status == "Passed"
    certificate = secret = None
    next_at = now + settings.RETRY_AFTER
    if passed:
        issued = certificates.issue(attestation, claims.transport, now=now)
        certificate = bytes(issued.der)
        secret = wrap_to_transport_key(certificates.release_secret(issued.serial), claims.transport.spki)
        next_at = issued.not_after - settings.CERTIFICATE_LIFETIME / 8
        attester.certified_until = issued.not_after
    news = passed or _differs(attester.latest, attestation)
    _show(attester, attestation, next_at)
    if news:  # a certificate is always news; the same failure again is a row of the history and no decision
        _tell(attestation, now=now)
    log.info("attestation %s of host %s: %s", attestation.id, attester.id, attestation.status)
    return Outcome(
        status=attestation.status,
        substatus=tuple(attestation.substatus),
        findings=tuple(Finding(**finding) for finding in attestation.findings),
        next_attestation_at=next_at,
        certificate=certificate,
        release_secret=secret,
    )


def _differs(before: Attestation | None, now: Attestation) -> bool:
    """Say whether an attestation found something else than the one before it."""
    if before is None or (before.status, before.policy_version) != (now.status, now.policy_version):
        return True
    return [finding["what"] for finding in before.findings] != [finding["what"] for finding in now.findings]


def _tell(attestation: Attestation, *, now: datetime) -> None:
    attester = attestation.attester
    ledger.record(
        actor=attester.subject,
        act="attestation.passed" if attestation.status == "Passed" else "attestation.failed",
        subject=attester.subject,
        detail={
            "name": attester.name,
            "attestation": attestation.id,
            "status": attestation.status,
            "codes": [finding["code"] for finding in attestation.findings],
            "policy": attestation.policy_version,
        },
        now=now,
    )


def _show(attester: Attester, attestation: Attestation, next_at: datetime) -> None:
    """Let the host's row say what was found; `status_at` is since when, not when last."""
    if attester.status != attestation.status:
        attester.status_at = attestation.at
    attester.status, attester.substatus = attestation.status, attestation.substatus
    attester.latest, attester.next_attestation_at = attestation, next_at
    attester.save(
        update_fields=["status", "substatus", "status_at", "latest", "next_attestation_at", "certified_until"]
    )


def _record_refusal(challenge: Challenge, refusal: Refusal, began: _Moment) -> None:
    """Keep forged or broken Evidence as a row with its code; it changes the host's status only if its TPM signed it."""
    attester = challenge.attester
    substatus = ["TcgLogVerification"] if isinstance(refusal, ReplayMismatch) else []
    finding = Finding(
        code=refusal.code,
        substatus=substatus[0] if substatus else "",
        what="The Evidence of this attestation is not authentic.",
        why=str(refusal),
        remedy="If the host itself sent it, look at its TPM and boot log; if not, somebody else used its name.",
    )
    with transaction.atomic():
        attestation = Attestation.objects.create(
            attester=attester,
            challenge=challenge,
            at=began.now,
            mode=certificates.mode_in_force(),
            status="TpmError",
            substatus=substatus,
            code=refusal.code,
            findings=[asdict(finding)],
            policy_version=policy_in_force().version,
            duration_us=began.elapsed_us(),
        )
        if isinstance(refusal, VerificationError) and not isinstance(refusal, ANYONE_CAN_SEND):
            _show(attester, attestation, began.now + settings.RETRY_AFTER)
        ledger.record(
            actor="stranger" if isinstance(refusal, ANYONE_CAN_SEND) else attester.subject,
            act="attestation.refused",
            subject=attester.subject,
            detail={"name": attester.name, "attestation": attestation.id, "code": refusal.code},
            now=began.now,
        )
    log.warning("attestation %s of host %s refused: %s", attestation.id, attester.id, refusal.code)


def _kept_ima(attester: Attester, content: bytes | None) -> Blob | None:
    """An IMA list has up to 64 MiB, and no baseline is made of it: it is kept for approved hosts only."""
    if content is None or attester.state != Attester.State.APPROVED:
        return None
    return strangers.keep(attester, content)


def _as_hex(evidence: Evidence) -> dict[str, str]:
    """Return the small parts of Evidence as JSON, so that the decision can be made again from what is stored."""
    parts = ("quote", "signature", "transport_public", "transport_certify", "transport_signature")
    return {part: getattr(evidence, part).hex() for part in parts}
