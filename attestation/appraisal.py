"""The way of Evidence from the wire to a verdict."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction

from attestation import memory, stored
from attestation.challenges import spend
from attestation.core.appraise import Before, appraise
from attestation.core.check import Counters
from attestation.core.claims import Claims, Evidence, verify_evidence
from attestation.core.finding import finding_from
from attestation.core.ima import START
from attestation.core.runtime import KnownLines
from attestation.errors import EventLogNeeded, ImaListNeeded, Refusal, WrongMode
from attestation.models import Blob, ImaProgress, Mode
from attestation.opening import Opening, anew
from attestation.policy import NOTHING_IN_FORCE, InForce, in_force
from attestation.recording import Judged, Moment, Outcome, record, record_refusal
from attestation.stored import position_of


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
class _Verified:
    """Evidence that is authentic, with what it proves and the digest of the log that it was proved with."""

    received: ReceivedEvidence
    evidence: Evidence
    claims: Claims
    log_digest: str


def appraise_evidence(challenge_id: UUID, received: ReceivedEvidence, *, now: datetime) -> Outcome:
    """Spend the challenge, verify, appraise, record, and certify the host if it passed.

    Raises `ChallengeSpent`, or the `VerificationError` or `ParseError` that says why the Evidence is not authentic;
    that is recorded too. The nonce is spent by a statement of its own: a failed appraisal must not bring it back.
    """
    began = Moment.begun(now)
    opening = spend(challenge_id, now=now)
    try:
        verified = _verified(opening, received)
        outcome = _concluded(opening, verified, began) or _concluded_anew(opening, verified, began)
    except Refusal as refusal:
        record_refusal(opening, refusal, began)
        raise
    return outcome


def _concluded_anew(opening: Opening, verified: _Verified, began: Moment) -> Outcome:
    """Decide once more: somebody has decided about the host meanwhile, or it has attested another time.

    Lines of the list that another runtime policy accepts were passed over; by a new one they are read again.
    """
    with transaction.atomic():
        now = anew(opening, now=began.now)
        if _policy(now).runtime != _policy(opening).runtime:
            verified = _verified(now, verified.received)
        outcome = _concluded(now, verified, began)
    if outcome is None:
        raise AssertionError("a host changed while its row was held")
    return outcome


def _concluded(opening: Opening, verified: _Verified, began: Moment) -> Outcome | None:
    """Appraise and record; None, with nothing recorded, when the host is not any more what it was at the opening."""
    policy, claims = _policy(opening), verified.claims
    result = appraise(
        claims,
        policy.policy,
        host=str(opening.host.pk),
        now=began.now,
        before=_before(opening, policy),
        known=_known_lines(policy),
    )
    sent = verified.received
    judged = Judged(
        opening,
        verified.evidence,
        claims,
        result,
        policy,
        verified.log_digest,
        sent.event_log,
        sent.ima_log,
    )
    return record(judged, began)


def _policy(opening: Opening) -> InForce:
    return NOTHING_IN_FORCE if opening.version is None else in_force(opening.version)


def _verified(opening: Opening, received: ReceivedEvidence) -> _Verified:
    """Return the Claims of Evidence that is authentic, or raise the Refusal that says why it is not."""
    if opening.host.mode != Mode.TPM:
        raise WrongMode(f"{opening.host.name} is known here by its {opening.host.get_mode_display()}, not by its TPM.")
    logs = _logs(opening, received)
    evidence = Evidence(
        quote=received.quote,
        signature=received.signature,
        pcr_values=received.pcr_values,
        transport_public=received.transport_public,
        transport_certify=received.transport_certify,
        transport_signature=received.transport_signature,
    )
    claims = verify_evidence(evidence, ak=opening.host.ak(), nonce=bytes(opening.challenge.nonce), logs=logs)
    return _Verified(received, evidence, claims, logs.digest)


def _progress(opening: Opening) -> ImaProgress | None:
    """Return where the IMA list goes on, when the challenge had asked for its rest only."""
    if not opening.challenge.ima_from:
        return None
    if opening.progress is None or opening.progress.offset != opening.challenge.ima_from:
        raise ImaListNeeded("Another attestation of this host went on meanwhile. Ask for a new challenge.")
    return opening.progress


def _known_lines(policy: InForce) -> KnownLines | None:
    return None if policy.policy.runtime is None else memory.known_lines(policy.runtime, policy.policy.runtime)


def _logs(opening: Opening, received: ReceivedEvidence) -> memory.RememberedLogs:
    """The logs to read; a stored event log takes the place of one that was announced as unchanged."""
    challenge, sent = opening.challenge, received.event_log
    progress, known = _progress(opening), _known_lines(_policy(opening))
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


def _before(opening: Opening, policy: InForce) -> Before:
    """What the host's earlier attestations had shown; what was held against another runtime policy is held anew."""
    counters = Counters(reset_count=opening.host.reset_count, boot_count=opening.host.boot_count)
    progress = _progress(opening)
    if progress is None or opening.version is None:
        return Before(counters)
    if progress.runtime == policy.runtime:
        carried = tuple(finding_from(finding) for finding in progress.findings)
    else:
        again = stored.runtime_findings(opening.host.pk, progress, policy.runtime)
        if again is None:
            progress.delete()  # what is kept does not make a whole: the next challenge asks for the list from its start
            raise ImaListNeeded("The known part of the IMA list is not kept any more. Ask for a new challenge.")
        carried = again
    return Before(counters, carried, progress.entries)
