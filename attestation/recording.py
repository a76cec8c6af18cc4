"""What an appraisal leaves, all or nothing: attestation, certificate, leaf, and what the host is shown as."""

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction

from attestation import certificates, components, dossiers, strangers, trials
from attestation.core.appraise import AttestationResult
from attestation.core.claims import IMA_PCR, Claims, Evidence
from attestation.core.finding import Finding, finding_from, substatus_of
from attestation.core.handover import wrap_to_transport_key
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
from attestation.models import Attestation, Attester, Blob, HealthCertificate, ImaProgress
from attestation.opening import Opening, anew
from attestation.policy import InForce
from ledger import service as ledger
from ledger.statements import Change, New

log = logging.getLogger(__name__)

# Whoever knows a host's id can send these without its TPM, so they are recorded but say nothing about the host.
ANYONE_CAN_SEND = (ParseError, BadSignature, NotFromTpm, WrongNonce, EventLogNeeded, ImaListNeeded)
# What people and other attestations change of a host; an appraisal counts while these are as they were at its opening.
DECIDED = ("state", "group_id", "latest_id")
TRY_AGAIN = timedelta(hours=1)  # when a host that is ready for another mode shows it once more
SHOWN = ("status", "substatus", "status_at", "latest_id", "next_attestation_at")


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
class Moment:
    """When an appraisal began: by the calendar, and by a counter that nobody sets."""

    now: datetime
    ticks: int

    @classmethod
    def begun(cls, now: datetime) -> "Moment":
        return cls(now, time.perf_counter_ns())

    def elapsed_us(self) -> int:
        return (time.perf_counter_ns() - self.ticks) // 1000


@dataclass(frozen=True, slots=True)
class Judged:
    """One appraisal on its way into the database: what came, the policy that it was held against, and the result."""

    opening: Opening
    evidence: Evidence
    claims: Claims
    result: AttestationResult
    policy: InForce
    log_digest: str
    event_log: bytes | None
    ima_log: bytes | None


@dataclass(frozen=True, slots=True)
class Shown:
    """What a host has shown without a TPM: the key that it vouches for, by what, and what is missing in that.

    The evidence is kept as it came.
    """

    transport_spki: bytes
    evidence: Mapping[str, object]
    findings: tuple[Finding, ...] = ()


def record(judged: Judged, began: Moment) -> Outcome | None:
    """Keep what came, what it proved and what was found, and certify a host that passed.

    None, with nothing recorded, when somebody decided about the host since the opening, or it attested another time.
    """
    opening, host = judged.opening, judged.opening.host
    if opening.challenge.trial:
        return _tried(opening, _attestation(judged, _NO_LOGS, began))
    kept = _kept(judged)
    attestation = _attestation(judged, kept, began)
    _remember_counters(host, attestation)
    rows = [*(New(blob, "keep") for blob in kept.new), New(attestation), *_gone_on(judged)]
    rows += components.remember(host, attestation, opening.latest)
    return _written(
        opening,
        attestation,
        rows,
        ("reset_count", "boot_count"),
        spki=judged.claims.transport.spki,
        until=judged.result.valid_until,
    )


def record_shown(opening: Opening, shown: Shown, began: Moment) -> Outcome | None:
    """Keep what a host has shown without a TPM, and certify the key that it vouched for; None as `record`."""
    findings = (*_standing(opening.host), *shown.findings)
    attestation = Attestation(
        id=opening.number,
        attester_id=opening.host.pk,
        challenge_id=opening.challenge.pk,
        at=began.now,
        mode=opening.host.mode,
        status="UnauthorizedHost" if findings else "Passed",
        substatus=substatus_of(findings),
        findings=[asdict(finding) for finding in findings],
        policy_version=0,
        evidence=dict(shown.evidence),
        grounds={"approved": opening.host.state == Attester.State.APPROVED},
        duration_us=began.elapsed_us(),
    )
    dossiers.sealed(attestation, opening)
    if opening.challenge.trial:
        return _tried(opening, attestation)
    return _written(opening, attestation, [New(attestation)], (), spki=shown.transport_spki, until=None)


def _tried(opening: Opening, found: Attestation) -> Outcome:
    """Keep a verdict that a host asked for as a trial, and write nothing else."""
    trials.keep(opening, found)
    return _outcome(found, None, found.at + settings.RETRY_AFTER, spki=b"")


def conclude_shown(opening: Opening, shown: Shown, began: Moment) -> Outcome:
    """Record what a host has shown; once more, with its row held, when somebody has decided about it meanwhile."""
    outcome = record_shown(opening, shown, began)
    if outcome is not None:
        return outcome
    with transaction.atomic():
        outcome = record_shown(anew(opening, now=began.now), shown, began)
    if outcome is None:
        raise AssertionError("a host changed while its row was held")
    return outcome


def _written(
    opening: Opening,
    attestation: Attestation,
    rows: Sequence[New],
    fields: Sequence[str],
    *,
    spki: bytes,
    until: datetime | None,
) -> Outcome | None:
    """Write everything, with the certificate of a host that passed in the mode in force, and say what came of it."""
    host, now = opening.host, attestation.at
    seen = {name: getattr(host, name) for name in DECIDED}
    issued = _issued(opening, attestation, spki=spki, until=until, now=now)
    next_at = _next_at(opening, attestation, issued)
    _show(host, attestation, next_at)
    changed, written = [*SHOWN, *fields], [*rows]
    if issued is not None:
        host.certified_until = issued.not_after
        changed.append("certified_until")
        written.append(New(issued))
    # A certificate is always news; the same failure again is a row of the history and no decision.
    news = issued is not None or _differs(opening.latest, attestation)
    leaf = _leaf(opening, attestation, issued) if news else None
    if not ledger.record_with(Change(host, changed, seen), written, leaf):
        return None
    log.info("attestation %s of host %s: %s", attestation.id, host.id, attestation.status)
    return _outcome(attestation, issued, next_at, spki)


def _next_at(opening: Opening, attestation: Attestation, issued: HealthCertificate | None) -> datetime:
    if issued is not None:
        return issued.not_after - (issued.not_after - attestation.at) / 8
    tried = attestation.status == "Passed" and opening.host.mode != opening.mode
    return attestation.at + (TRY_AGAIN if tried else settings.RETRY_AFTER)


@dataclass(frozen=True, slots=True)
class _Kept:
    """The logs that an attestation refers to, by digest, and those of them that have to be written."""

    event_log: str | None
    ima_log: str | None
    new: tuple[Blob, ...]


_NO_LOGS = _Kept(None, None, ())


def _kept(judged: Judged) -> _Kept:
    event_log = None if judged.event_log is None else _blob(judged.opening.host, judged.event_log, judged.log_digest)
    ima_log = _kept_ima(judged)
    known = judged.log_digest if judged.event_log is None else None
    return _Kept(
        event_log=known if event_log is None else event_log.sha256,
        ima_log=None if ima_log is None else ima_log.sha256,
        new=tuple(blob for blob in (event_log, ima_log) if blob is not None),
    )


def _kept_ima(judged: Judged) -> Blob | None:
    """Keep the proved part of what came. An IMA list has up to 128 MiB, so it is kept for approved hosts only."""
    ima, sent, host = judged.claims.ima, judged.ima_log, judged.opening.host
    if ima is None or not sent or host.state != Attester.State.APPROVED:
        return None
    proved = sent[: ima.position.offset - judged.opening.challenge.ima_from]
    return _blob(host, proved, hashlib.sha256(proved).hexdigest()) if proved else None


def _blob(host: Attester, content: bytes, digest: str) -> Blob | None:
    """Return a part of a host's Evidence under its digest; None for a waiting host when the shelf is full."""
    if not strangers.may_keep(host, digest):
        return None
    return Blob(sha256=digest, content=content, size=len(content))


def _attestation(judged: Judged, kept: _Kept, began: Moment) -> Attestation:
    opening, claims, result = judged.opening, judged.claims, judged.result
    findings = (*_standing(opening.host), *result.findings)
    count = claims.boot.facts.get("boot_count")
    boot_count = count.value if count is not None and isinstance(count.value, int) else None
    found = Attestation(
        id=opening.number,
        attester_id=opening.host.pk,
        challenge_id=opening.challenge.pk,
        at=began.now,
        mode=opening.host.mode,
        status=_status(opening.host, findings),
        substatus=substatus_of(findings),
        findings=[asdict(finding) for finding in findings],
        excepted=[asdict(finding) for finding in result.excepted],
        policy_version=0 if opening.version is None else opening.version.version,
        baseline_id=result.baseline,
        pcrs={str(pcr): value.hex() for pcr, value in claims.pcrs.items()},
        event_log_id=kept.event_log,
        ima_log_id=kept.ima_log,
        ima_from=opening.challenge.ima_from,
        evidence=_as_hex(judged.evidence),
        grounds=_grounds(judged),
        policy_sha256=judged.policy.sha256,
        reset_count=claims.clock.reset_count,
        restart_count=claims.clock.restart_count,
        boot_count=boot_count,
        firmware_version=f"{claims.firmware_version:016x}",
        duration_us=began.elapsed_us(),
    )
    return dossiers.sealed(found, opening)


def _grounds(judged: Judged) -> dict[str, object]:
    """What the verdict rests on beside Evidence and policy, as it is before this appraisal changes any of it."""
    host, ima = judged.opening.host, judged.claims.ima
    return {
        "approved": host.state == Attester.State.APPROVED,
        "reset": host.reset_count,
        "boot": host.boot_count,
        "ima_end": None if ima is None else ima.position.offset,
    }


def _standing(attester: Attester) -> tuple[Finding, ...]:
    if attester.state == Attester.State.APPROVED:
        return ()
    return (
        Finding(
            code="host_pending",
            substatus="",
            what=f"The host {attester.name} is enrolled, and nobody has approved it.",
            why="It has proved which host it is; a person has to say that it belongs to this fabric.",
            remedy="Put it forward on its page and have it approved.",
        ),
    )


def _status(attester: Attester, findings: tuple[Finding, ...]) -> str:
    if attester.state != Attester.State.APPROVED:
        return "UnauthorizedHost"
    return "InsecureHostConfiguration" if findings else "Passed"


def _issued(
    opening: Opening, attestation: Attestation, *, spki: bytes, until: datetime | None, now: datetime
) -> HealthCertificate | None:
    """Return the certificate of a host that passed, to be written with everything else.

    None for one that passed in a mode that is not in force: it has shown that it is ready, and gets no keys by it.
    """
    if attestation.status != "Passed" or opening.host.mode != opening.mode:
        return None
    signer = certificates.signer_in_use(opening.signer, has_successor=opening.has_successor, now=now)
    return certificates.issue(attestation, opening.host, spki, signer=signer, until=until, now=now)


def _outcome(attestation: Attestation, issued: HealthCertificate | None, next_at: datetime, spki: bytes) -> Outcome:
    return Outcome(
        status=attestation.status,
        substatus=tuple(attestation.substatus),
        findings=tuple(finding_from(finding) for finding in attestation.findings),
        next_attestation_at=next_at,
        certificate=None if issued is None else bytes(issued.der),
        release_secret=(
            None if issued is None else wrap_to_transport_key(certificates.release_secret(issued.serial), spki)
        ),
    )


def _differs(before: Attestation | None, now: Attestation) -> bool:
    """Say whether an attestation found something else than the one before it."""
    if before is None or (before.status, before.policy_version) != (now.status, now.policy_version):
        return True
    return [finding["what"] for finding in before.findings] != [finding["what"] for finding in now.findings]


def _leaf(opening: Opening, attestation: Attestation, issued: HealthCertificate | None) -> ledger.Leaf:
    host = opening.host
    outcome = "passed" if attestation.status == "Passed" else "failed"
    return ledger.new_leaf(
        actor=host.subject,
        act=f"attestation.{outcome}" if host.mode == opening.mode else f"attestation.trial_{outcome}",
        subject=host.subject,
        detail={
            "name": host.name,
            "attestation": attestation.id,
            "status": attestation.status,
            "codes": [finding["code"] for finding in attestation.findings],
            "policy": attestation.policy_version,
            "mode": attestation.mode,
            **dossiers.bound(attestation, issued),
        },
        now=attestation.at,
    )


def _show(attester: Attester, attestation: Attestation, next_at: datetime) -> None:
    """Let the host's row say what was found; `status_at` is since when, not when last."""
    if attester.status != attestation.status:
        attester.status_at = attestation.at
    attester.status, attester.substatus = attestation.status, attestation.substatus
    attester.latest_id, attester.next_attestation_at = attestation.id, next_at


def _remember_counters(attester: Attester, attestation: Attestation) -> None:
    """Take the counters over, unless they went back and nobody answers for it: then the old ones stay."""
    if any(finding["check"] == "counters" for finding in attestation.findings):
        return
    attester.reset_count = attestation.reset_count
    if attestation.boot_count is not None:
        attester.boot_count = attestation.boot_count


def _gone_on(judged: Judged) -> list[New]:
    """Keep up to where the IMA list is proved; only of approved hosts, whose lists are kept."""
    ima, host = judged.claims.ima, judged.opening.host
    if ima is None or host.state != Attester.State.APPROVED:
        return []
    progress = ImaProgress(
        attester_id=host.pk,
        reset_count=judged.claims.clock.reset_count,
        offset=ima.position.offset,
        entries=ima.position.entries,
        pcr_value=judged.claims.pcrs[IMA_PCR].hex(),
        runtime=judged.policy.runtime,
        findings=[asdict(finding) for finding in judged.result.runtime],
    )
    return [New(progress, "replace")]


def record_refusal(opening: Opening, refusal: Refusal, began: Moment) -> None:
    """Keep forged or broken Evidence as a row with its code; it changes the host's status only if its TPM signed it."""
    attester = opening.host
    substatus = ["TcgLogVerification"] if isinstance(refusal, ReplayMismatch) else []
    finding = Finding(
        code=refusal.code,
        substatus=substatus[0] if substatus else "",
        what="The Evidence of this attestation is not authentic.",
        why=str(refusal),
        remedy="If the host itself sent it, look at its TPM and boot log; if not, somebody else used its name.",
    )
    refused = Attestation(
        id=opening.number,
        attester=attester,
        challenge=opening.challenge,
        at=began.now,
        mode=attester.mode,
        status="TpmError",
        substatus=substatus,
        code=refusal.code,
        findings=[asdict(finding)],
        policy_version=0 if opening.version is None else opening.version.version,
        duration_us=began.elapsed_us(),
    )
    anyone = isinstance(refusal, ANYONE_CAN_SEND)
    actor = "stranger" if anyone else attester.subject
    with transaction.atomic():
        if opening.challenge.trial:
            trials.keep_refused(opening, refused, actor=actor)
            return
        refused.save(force_insert=True)
        if isinstance(refusal, VerificationError) and not anyone:
            _show_refused(attester, refused, began.now + settings.RETRY_AFTER)
        ledger.record(
            actor=actor,
            act="attestation.refused",
            subject=attester.subject,
            detail={"name": attester.name, "attestation": refused.id, "code": refusal.code},
            now=began.now,
        )
    log.warning("attestation %s of host %s refused: %s", refused.id, attester.id, refusal.code)


def _show_refused(attester: Attester, attestation: Attestation, next_at: datetime) -> None:
    """Show it, unless somebody has decided about the host meanwhile: then that is what its row says."""
    row = Attester.objects.select_for_update().only("state", *SHOWN).get(pk=attester.pk)
    if row.state == attester.state:
        _show(row, attestation, next_at)
        row.save(update_fields=SHOWN)


def _as_hex(evidence: Evidence) -> dict[str, str]:
    """Return the small parts of Evidence as JSON, so that the decision can be made again from what is stored."""
    parts = ("quote", "signature", "transport_public", "transport_certify", "transport_signature")
    return {part: getattr(evidence, part).hex() for part in parts}
