"""The way of Evidence from the wire to a verdict."""

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction

from attestation import certificates, memory, stored, strangers
from attestation.challenges import spend
from attestation.core.appraise import AttestationResult, Before, appraise
from attestation.core.check import Counters
from attestation.core.claims import IMA_PCR, Claims, Evidence, verify_evidence
from attestation.core.finding import Finding, finding_from, substatus_of
from attestation.core.handover import wrap_to_transport_key
from attestation.core.ima import START
from attestation.core.policy import AppraisalPolicy
from attestation.core.runtime import KnownLines
from attestation.errors import (
    BadSignature,
    EventLogNeeded,
    ImaListNeeded,
    NotFromTpm,
    ParseError,
    Refusal,
    ReplayMismatch,
    VerificationError,
    WrongNonce,
)
from attestation.models import Attestation, Attester, Blob, Challenge, ImaProgress, PolicyVersion
from attestation.policy import NO_POLICY, policy_of, version_in_force
from attestation.stored import position_of
from ledger import service as ledger

log = logging.getLogger(__name__)

# Whoever knows a host's id can send these without its TPM, so they are recorded but say nothing about the host.
ANYONE_CAN_SEND = (ParseError, BadSignature, NotFromTpm, WrongNonce, EventLogNeeded, ImaListNeeded)


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
    attester = challenge.attester
    version = version_in_force(str(attester.group_id), now=now)
    policy = NO_POLICY if version is None else policy_of(version)
    try:
        progress = _progress(challenge)
        known = _known_lines(version, policy)
        logs = _logs(received, challenge, progress, known)
        evidence = Evidence(
            quote=received.quote,
            signature=received.signature,
            pcr_values=received.pcr_values,
            transport_public=received.transport_public,
            transport_certify=received.transport_certify,
            transport_signature=received.transport_signature,
        )
        claims = verify_evidence(evidence, ak=attester.ak(), nonce=bytes(challenge.nonce), logs=logs)
        before = _before(attester, progress, version)
    except Refusal as refusal:
        _record_refusal(challenge, refusal, policy.version, began)
        raise
    result = appraise(claims, policy, host=str(attester.pk), now=now, before=before, known=known)
    judged = _Judged(challenge, received, evidence, claims, result, version, logs.digest)
    with transaction.atomic():
        challenge.attester = _locked(challenge.attester_id)
        return _outcome(_record(judged, began), judged, now=now)


@dataclass(frozen=True, slots=True)
class _Judged:
    """One appraisal on its way into the database."""

    challenge: Challenge
    received: ReceivedEvidence
    evidence: Evidence
    claims: Claims
    result: AttestationResult
    version: PolicyVersion | None
    log_digest: str

    @property
    def runtime(self) -> str:
        """The id of the runtime policy that the IMA list was held against, "" for none."""
        return "" if self.version is None else self.version.content().runtime


def _locked(attester_id: UUID) -> Attester:
    """Return the host as it stands now, held still: somebody may revoke it while its Evidence is being verified."""
    return Attester.objects.select_for_update(of=("self",)).select_related("latest").get(pk=attester_id)


def _progress(challenge: Challenge) -> ImaProgress | None:
    """Return where the IMA list goes on, when the challenge had asked for its rest only."""
    if not challenge.ima_from:
        return None
    progress = ImaProgress.objects.filter(pk=challenge.attester_id, offset=challenge.ima_from).first()
    if progress is None:
        raise ImaListNeeded("Another attestation of this host went on meanwhile. Ask for a new challenge.")
    return progress


def _known_lines(version: PolicyVersion | None, policy: AppraisalPolicy) -> KnownLines | None:
    if version is None or policy.runtime is None:
        return None
    return memory.known_lines(version.content().runtime, policy.runtime)


def _logs(
    received: ReceivedEvidence, challenge: Challenge, progress: ImaProgress | None, known: KnownLines | None
) -> memory.RememberedLogs:
    """The logs to read; a stored event log takes the place of one that was announced as unchanged."""
    sent = received.event_log
    if sent is None and challenge.send_event_log:
        raise EventLogNeeded("The challenge asked for the event log, and none came.")
    after = START if progress is None else position_of(progress)
    ima_log = received.ima_log
    if ima_log is None and progress is not None:
        ima_log = b""  # a list that grew by nothing
    return memory.RememberedLogs(
        digest=challenge.event_log_sha256 if sent is None else hashlib.sha256(sent).hexdigest(),
        load=lambda: bytes(Blob.objects.get(pk=challenge.event_log_sha256).content) if sent is None else sent,
        ima_log=ima_log,
        after=after,
        known=known.digests if known is not None else None,
    )


def _before(attester: Attester, progress: ImaProgress | None, version: PolicyVersion | None) -> Before:
    """What the host's earlier attestations had shown; what was held against another runtime policy is held anew."""
    counters = Counters(reset_count=attester.reset_count, boot_count=attester.boot_count)
    if progress is None or version is None:
        return Before(counters)
    runtime = version.content().runtime
    if progress.runtime == runtime:
        carried = tuple(finding_from(finding) for finding in progress.findings)
    else:
        again = stored.runtime_findings(attester.pk, progress, runtime)
        if again is None:
            progress.delete()  # what is kept does not make a whole: the next challenge asks for the list from its start
            raise ImaListNeeded("The known part of the IMA list is not kept any more. Ask for a new challenge.")
        carried = again
    return Before(counters, carried, progress.entries)


def _record(judged: _Judged, began: _Moment) -> Attestation:
    """Keep what came, what it proved and what was found."""
    attester, claims, result = judged.challenge.attester, judged.claims, judged.result
    findings = (*_standing(attester), *result.findings)
    count = claims.boot.facts.get("boot_count")
    boot_count = count.value if count is not None and isinstance(count.value, int) else None
    return Attestation.objects.create(
        attester=attester,
        challenge=judged.challenge,
        at=began.now,
        mode=certificates.mode_in_force(),
        status=_status(attester, findings),
        substatus=substatus_of(findings),
        findings=[asdict(finding) for finding in findings],
        excepted=[asdict(finding) for finding in result.excepted],
        policy_version=0 if judged.version is None else judged.version.version,
        baseline_id=result.baseline,
        pcrs={str(pcr): value.hex() for pcr, value in claims.pcrs.items()},
        event_log=_kept_log(judged),
        ima_log=_kept_ima(judged),
        ima_from=judged.challenge.ima_from,
        evidence=_as_hex(judged.evidence),
        reset_count=claims.clock.reset_count,
        restart_count=claims.clock.restart_count,
        boot_count=boot_count,
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


def _outcome(attestation: Attestation, judged: _Judged, *, now: datetime) -> Outcome:
    """Certify a host that passed, tell the ledger, and show the result on the host; all in the caller's transaction."""
    attester, claims = attestation.attester, judged.claims
    passed = attestation.status == "Passed"
    certificate = secret = None
    next_at = now + settings.RETRY_AFTER
    if passed:
        issued = certificates.issue(attestation, claims.transport, until=judged.result.valid_until, now=now)
        certificate = bytes(issued.der)
        secret = wrap_to_transport_key(certificates.release_secret(issued.serial), claims.transport.spki)
        next_at = issued.not_after - (issued.not_after - now) / 8
        attester.certified_until = issued.not_after
    news = passed or _differs(attester.latest, attestation)
    _remember_counters(attester, attestation)
    _show(attester, attestation, next_at)
    _go_on(attester, judged)
    if news:  # a certificate is always news; the same failure again is a row of the history and no decision
        _tell(attestation, now=now)
    log.info("attestation %s of host %s: %s", attestation.id, attester.id, attestation.status)
    return Outcome(
        status=attestation.status,
        substatus=tuple(attestation.substatus),
        findings=tuple(finding_from(finding) for finding in attestation.findings),
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
        update_fields=[
            "status",
            "substatus",
            "status_at",
            "latest",
            "next_attestation_at",
            "certified_until",
            "reset_count",
            "boot_count",
        ]
    )


def _remember_counters(attester: Attester, attestation: Attestation) -> None:
    """Take the counters over, unless they went back and nobody answers for it: then the old ones stay."""
    if any(finding["check"] == "counters" for finding in attestation.findings):
        return
    attester.reset_count = attestation.reset_count
    if attestation.boot_count is not None:
        attester.boot_count = attestation.boot_count


def _go_on(attester: Attester, judged: _Judged) -> None:
    """Keep up to where the IMA list is proved; only of approved hosts, whose lists are kept."""
    ima = judged.claims.ima
    if ima is None or attester.state != Attester.State.APPROVED:
        return
    ImaProgress.objects.update_or_create(
        pk=attester.pk,
        defaults={
            "reset_count": judged.claims.clock.reset_count,
            "offset": ima.position.offset,
            "entries": ima.position.entries,
            "pcr_value": judged.claims.pcrs[IMA_PCR].hex(),
            "runtime": judged.runtime,
            "findings": [asdict(finding) for finding in judged.result.runtime],
        },
    )


def _record_refusal(challenge: Challenge, refusal: Refusal, policy_version: int, began: _Moment) -> None:
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
            policy_version=policy_version,
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


def _kept_log(judged: _Judged) -> Blob | None:
    sent = judged.received.event_log
    if sent is None:
        return Blob(pk=judged.log_digest)
    return strangers.keep(judged.challenge.attester, sent)


def _kept_ima(judged: _Judged) -> Blob | None:
    """Keep the proved part of what came. An IMA list has up to 64 MiB, so it is kept for approved hosts only."""
    ima, sent = judged.claims.ima, judged.received.ima_log
    attester = judged.challenge.attester
    if ima is None or not sent or attester.state != Attester.State.APPROVED:
        return None
    proved = sent[: ima.position.offset - judged.challenge.ima_from]
    return strangers.keep(attester, proved) if proved else None


def _as_hex(evidence: Evidence) -> dict[str, str]:
    """Return the small parts of Evidence as JSON, so that the decision can be made again from what is stored."""
    parts = ("quote", "signature", "transport_public", "transport_certify", "transport_signature")
    return {part: getattr(evidence, part).hex() for part in parts}
