"""What people decide: which hosts and baselines count, and which count no more."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from attestation import standing
from attestation.core.claims import BANK
from attestation.core.quote import BOOT_PCRS
from attestation.enrolment import refresh_endorsement
from attestation.errors import AlreadyDecided, CannotApprove, FourEyes, NotAllowed, NotFound
from attestation.models import (
    Attestation,
    Attester,
    Baseline,
    DenyBefore,
    HealthCertificate,
    ModeSwitch,
    PolicyVersion,
    Proposal,
)
from ledger import service as ledger


def propose_host(attester_id: UUID, *, by: User, reason: str, now: datetime) -> Proposal:
    """Put an enrolled host forward for approval."""
    _require(by, "attestation.propose")
    with transaction.atomic():
        _queue()
        attester = Attester.objects.filter(pk=attester_id).first()
        if attester is None:
            raise NotFound("There is no such host.")
        if attester.state != Attester.State.PENDING:
            raise CannotApprove(
                f"{attester.name} is {attester.get_state_display().lower()}; only a waiting host can be put forward."
            )
        proposal = _open(Proposal(attester=attester, proposed_by=by, proposed_at=now, reason=reason))
        _record(by, "host.proposed", attester.subject, {"name": attester.name, "reason": reason}, now)
    return proposal


def capture_baseline(attestation_id: int, *, name: str, by: User, reason: str, now: datetime) -> Proposal:
    """Put the boot measurements of one host's verified Evidence forward as a baseline."""
    _require(by, "attestation.propose")
    attestation = Attestation.objects.select_related("attester").filter(pk=attestation_id, code="").first()
    if attestation is None or attestation.event_log is None:
        raise NotFound("There is no verified Evidence under that number.")
    _require_source(attestation.attester)
    pcrs = {str(pcr): attestation.pcrs[str(pcr)] for pcr in BOOT_PCRS}
    with transaction.atomic():
        baseline = Baseline.objects.create(
            name=name,
            bank=BANK,
            pcrs=pcrs,
            event_log=attestation.event_log,
            captured_from=attestation,
            captured_by=by.get_username(),
            captured_at=now,
        )
        proposal = _open(Proposal(baseline=baseline, proposed_by=by, proposed_at=now, reason=reason))
        detail = {"name": name, "host": attestation.attester.name, "attestation": attestation.id, "reason": reason}
        _record(by, "baseline.captured", baseline.subject, detail, now)
    return proposal


def decide(
    proposal_id: int,
    *,
    by: User,
    approve: bool,
    reason: str,
    now: datetime,
    accept_without_certificate: bool = False,
) -> Proposal:
    """Approve or reject a proposal, once, and let it take effect in the same transaction.

    With four eyes on, whoever proposed cannot decide. A host whose EK certificate is missing is approved only by
    saying so; one whose certificate has no trusted issuer is not approved at all.
    """
    _require(by, "attestation.decide")
    proposal = Proposal.objects.select_related("attester", "baseline", "proposed_by").filter(pk=proposal_id).first()
    if proposal is None:
        raise NotFound("There is no such proposal.")
    if settings.FOUR_EYES and proposal.proposed_by_id == by.pk:
        raise FourEyes("You put this forward, so somebody else has to decide it.")
    state = Proposal.State.APPROVED if approve else Proposal.State.REJECTED
    with transaction.atomic():
        _queue()
        still_open = Proposal.objects.filter(pk=proposal_id, state=Proposal.State.OPEN)
        if still_open.update(state=state, decided_by=by, decided_at=now, decision_reason=reason) != 1:
            raise AlreadyDecided("Somebody has decided this already.")
        if proposal.attester is not None:
            _settle_host(
                proposal.attester, by, approve=approve, without_certificate=accept_without_certificate, now=now
            )
        elif proposal.baseline is not None:
            _settle_baseline(proposal.baseline, by, approve=approve, reason=reason, now=now)
        about = proposal.about
        act = f"{proposal.kind}.{state.value}"
        _record(by, act, about.subject, {"name": about.name, "proposal": proposal.id, "reason": reason}, now)
    proposal.refresh_from_db()
    return proposal


def _settle_host(attester: Attester, by: User, *, approve: bool, without_certificate: bool, now: datetime) -> None:
    waiting = Attester.objects.filter(pk=attester.pk, state=Attester.State.PENDING)
    if approve:
        if not waiting.exists():
            raise CannotApprove(f"{attester.name} does not wait for approval any more.")
        refresh_endorsement(attester, now=now)
        if attester.ek_verdict == Attester.Endorsement.UNTRUSTED:
            raise CannotApprove(f"The maker of this TPM is not trusted here: {attester.ek_detail}")
        if attester.ek_verdict == Attester.Endorsement.ABSENT and not without_certificate:
            raise CannotApprove("This TPM brought no EK certificate. Approve it as a host without one, or not at all.")
        others = Attester.objects.filter(name=attester.name, state=Attester.State.APPROVED)
        for other in others:
            _end(other, by, reason=f"Replaced by another TPM under the name {other.name}.", now=now)
    state = Attester.State.APPROVED if approve else Attester.State.REJECTED
    waiting.update(state=state, decided_at=now, decided_by=by.get_username())


def _require_source(attester: Attester) -> None:
    """Refuse what a host measured that people have turned away: its word is no model for others."""
    if attester.state in (Attester.State.REJECTED, Attester.State.REVOKED):
        raise CannotApprove(f"{attester.name}, whose measurements these are, is {attester.state} by now.")


def _settle_baseline(baseline: Baseline, by: User, *, approve: bool, reason: str, now: datetime) -> None:
    if not approve:
        Baseline.objects.filter(pk=baseline.pk).update(state=Baseline.State.REJECTED)
        return
    _require_source(baseline.captured_from.attester)
    same_name = Baseline.objects.filter(name=baseline.name, state=Baseline.State.APPROVED)
    retired = {str(pk) for pk in same_name.values_list("pk", flat=True)}
    same_name.update(state=Baseline.State.RETIRED)
    Baseline.objects.filter(pk=baseline.pk).update(state=Baseline.State.APPROVED)
    _new_policy([str(baseline.id)], retired, by=by, reason=reason, now=now)


def retire_baseline(baseline_id: UUID, *, by: User, reason: str, now: datetime) -> None:
    """Take an approved baseline out of the policy; hosts that match no other one get no more keys."""
    _require(by, "attestation.revoke")
    with transaction.atomic():
        _queue()
        approved = Baseline.objects.filter(pk=baseline_id, state=Baseline.State.APPROVED)
        if approved.update(state=Baseline.State.RETIRED) != 1:
            raise NotFound("There is no such baseline in force.")
        _new_policy([], {str(baseline_id)}, by=by, reason=reason, now=now)
        _record(by, "baseline.retired", f"baseline:{baseline_id}", {"reason": reason}, now)


def _new_policy(added: list[str], removed: set[str], *, by: User, reason: str, now: datetime) -> None:
    newest = PolicyVersion.objects.first()
    kept = [] if newest is None else [pk for pk in newest.baselines if pk not in removed]
    PolicyVersion.objects.create(
        version=1 if newest is None else newest.version + 1,
        baselines=[*kept, *added],
        created_at=now,
        created_by=by.get_username(),
        reason=reason,
    )


def revoke_host(attester_id: UUID, *, by: User, reason: str, now: datetime) -> None:
    """End a host's approval and every certificate it holds, at once."""
    _require(by, "attestation.revoke")
    with transaction.atomic():
        _queue()
        attester = Attester.objects.filter(pk=attester_id, state=Attester.State.APPROVED).first()
        if attester is None:
            raise NotFound("There is no such host among the approved ones.")
        _end(attester, by, reason=reason, now=now)


def _end(attester: Attester, by: User, *, reason: str, now: datetime) -> None:
    Attester.objects.filter(pk=attester.pk).update(
        state=Attester.State.REVOKED,
        status="UnauthorizedHost",
        status_at=now,
        certified_until=None,
        decided_at=now,
        decided_by=by.get_username(),
    )
    HealthCertificate.objects.filter(attester=attester, revoked_at=None).update(
        revoked_at=now, revoked_by=by.get_username(), revoked_reason=reason
    )
    _record(by, "host.revoked", attester.subject, {"name": attester.name, "reason": reason}, now)


def revoke_certificate(serial: str, *, by: User, reason: str, now: datetime) -> None:
    """Void one health certificate at once; the host may attest again for another."""
    _require(by, "attestation.revoke")
    with transaction.atomic():
        _queue()
        live = HealthCertificate.objects.filter(serial=serial, revoked_at=None)
        if live.update(revoked_at=now, revoked_by=by.get_username(), revoked_reason=reason) != 1:
            raise NotFound("There is no such certificate, or it is revoked already.")
        row = HealthCertificate.objects.select_related("attester").get(serial=serial)
        detail = {"name": row.attester.name, "certificate": serial, "reason": reason}
        _record(by, "certificate.revoked", row.attester.subject, detail, now)


def deny_issued_before(moment: datetime, *, by: User, reason: str, now: datetime) -> None:
    """Void every certificate of the fabric that was issued before a moment, which may not lie in the future."""
    _require(by, "attestation.revoke")
    if moment > now:
        raise CannotApprove("The moment lies in the future; certificates that do not exist yet cannot be denied.")
    with transaction.atomic():
        _queue()
        DenyBefore.objects.create(moment=moment, at=now, by=by.get_username(), reason=reason)
        _record(by, "certificates.denied", "fabric", {"before": moment.isoformat(), "reason": reason}, now)


def _queue() -> None:
    """Let decisions wait for one another and for releases under way, on every node, until the transaction ends."""
    standing.change()
    ModeSwitch.objects.select_for_update().order_by("pk").first()


def _open(proposal: Proposal) -> Proposal:
    try:
        with transaction.atomic():
            proposal.save(force_insert=True)
    except IntegrityError:
        raise AlreadyDecided("This has been put forward already and waits for a decision.") from None
    return proposal


def _require(by: User, permission: str) -> None:
    if not by.has_perm(permission):
        raise NotAllowed(f"Your role does not include this act ({permission}).")


def _record(by: User, act: str, subject: str, detail: Mapping[str, object], now: datetime) -> None:
    ledger.record(actor=f"user:{by.get_username()}", act=act, subject=subject, detail=detail, now=now)
