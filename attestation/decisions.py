"""What people decide: what others put forward, which hosts count, and which count no more."""

from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from attestation import baselines, kerberos_groups, modes, policies, stops
from attestation.acts import open_proposal, queue, record, require
from attestation.endorsements import Trust, refresh_endorsement
from attestation.errors import CannotApprove, NotFound
from attestation.models import DEFAULT_GROUP, Attester, DenyBefore, HealthCertificate, HostGroup, Mode, Proposal


def propose_host(attester_id: UUID, *, by: User, reason: str, now: datetime, group: str = DEFAULT_GROUP) -> Proposal:
    """Put an enrolled host forward for approval, into a group; or an approved one for another group."""
    require(by, "attestation.propose")
    with transaction.atomic():
        queue()
        attester = Attester.objects.filter(pk=attester_id).first()
        if attester is None:
            raise NotFound("There is no such host.")
        wanted = HostGroup.objects.filter(pk=group).first()
        if wanted is None:
            raise NotFound("There is no such group of hosts.")
        moves = attester.state == Attester.State.APPROVED and attester.group_id != group
        if attester.state != Attester.State.PENDING and not moves:
            raise CannotApprove(
                f"{attester.name} is {attester.get_state_display().lower()}; only a waiting host can be put forward."
            )
        proposal = open_proposal(
            Proposal(attester=attester, group=wanted, proposed_by=by, proposed_at=now, reason=reason)
        )
        detail = {"name": attester.name, "group": wanted.name, "reason": reason}
        record(by, "host.move_proposed" if moves else "host.proposed", attester.subject, detail, now)
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
    require(by, "attestation.decide")
    related = ("attester", "baseline", "draft", "plan", "kerberos_group", "group", "proposed_by", "stop__attester")
    proposal = Proposal.objects.select_related(*related, "stop__group").filter(pk=proposal_id).first()
    if proposal is None:
        raise NotFound("There is no such proposal.")
    with transaction.atomic():
        queue()
        state = proposal.close(by=by, approve=approve, reason=reason, now=now)
        if proposal.attester is not None and proposal.attester.state == Attester.State.APPROVED:
            _settle_move(proposal, approve=approve)
        elif proposal.attester is not None:
            _settle_host(proposal, by, approve=approve, without_certificate=accept_without_certificate, now=now)
        elif proposal.baseline is not None:
            baselines.settle(proposal.baseline, by, approve=approve, reason=reason, now=now)
        elif proposal.draft is not None:
            policies.settle(proposal.draft, by, approve=approve, reason=reason, now=now)
        elif proposal.plan is not None:
            modes.settle(proposal.plan, by, approve=approve, reason=reason, now=now)
        elif proposal.kerberos_group is not None:
            kerberos_groups.settle(proposal.kerberos_group, approve=approve)
        elif proposal.stop is not None:
            stops.settle(proposal.stop, by, approve=approve, now=now)
        about = proposal.about
        act = f"{proposal.kind}.{state.value}"
        record(by, act, about.subject, {"name": about.name, "proposal": proposal.id, "reason": reason}, now)
    proposal.refresh_from_db()
    return proposal


def _settle_move(proposal: Proposal, *, approve: bool) -> None:
    """Put an approved host under another group's policy; its certificates are judged by that from now on."""
    if approve and proposal.attester is not None:
        Attester.objects.filter(pk=proposal.attester.pk, state=Attester.State.APPROVED).update(group=proposal.group)


def _settle_host(proposal: Proposal, by: User, *, approve: bool, without_certificate: bool, now: datetime) -> None:
    attester = proposal.attester
    if attester is None:
        return
    waiting = Attester.objects.filter(pk=attester.pk, state=Attester.State.PENDING)
    if approve:
        if not waiting.exists():
            raise CannotApprove(f"{attester.name} does not wait for approval any more.")
        if attester.mode == Mode.TPM:
            refresh_endorsement(attester, trust=Trust(), by=f"user:{by.get_username()}", now=now)
            _require_endorsement(attester, without_certificate=without_certificate)
        others = Attester.objects.filter(name=attester.name, mode=attester.mode, state=Attester.State.APPROVED)
        for other in others:
            _end(other, by, reason=f"Replaced by another one under the name {other.name}.", now=now)
    state = Attester.State.APPROVED if approve else Attester.State.REJECTED
    group = proposal.group_id or DEFAULT_GROUP
    waiting.update(state=state, group=group, decided_at=now, decided_by=by.get_username())


def _require_endorsement(attester: Attester, *, without_certificate: bool) -> None:
    if attester.ek_verdict == Attester.Endorsement.UNTRUSTED:
        raise CannotApprove(f"The maker of this TPM is not trusted here: {attester.ek_detail}")
    if attester.ek_verdict == Attester.Endorsement.REFUSED:
        raise CannotApprove(f"The EK certificate does not hold: {attester.ek_detail}")
    if attester.ek_verdict == Attester.Endorsement.ABSENT and not without_certificate:
        raise CannotApprove("This TPM brought no EK certificate. Approve it as a host without one, or not at all.")


def revoke_host(attester_id: UUID, *, by: User, reason: str, now: datetime) -> None:
    """End a host's approval and every certificate it holds, at once."""
    require(by, "attestation.revoke")
    with transaction.atomic():
        queue()
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
    record(by, "host.revoked", attester.subject, {"name": attester.name, "reason": reason}, now)


def revoke_certificate(serial: str, *, by: User, reason: str, now: datetime) -> None:
    """Void one health certificate at once; the host may attest again for another."""
    require(by, "attestation.revoke")
    with transaction.atomic():
        queue()
        live = HealthCertificate.objects.filter(serial=serial, revoked_at=None)
        if live.update(revoked_at=now, revoked_by=by.get_username(), revoked_reason=reason) != 1:
            raise NotFound("There is no such certificate, or it is revoked already.")
        row = HealthCertificate.objects.select_related("attester").get(serial=serial)
        # What pages count by; a newer certificate has another end, and stays.
        Attester.objects.filter(pk=row.attester_id, certified_until=row.not_after).update(certified_until=None)
        detail = {"name": row.attester.name, "certificate": serial, "reason": reason}
        record(by, "certificate.revoked", row.attester.subject, detail, now)


def deny_issued_before(moment: datetime, *, by: User, reason: str, now: datetime) -> None:
    """Void every certificate of the fabric that was issued before a moment, which may not lie in the future."""
    require(by, "attestation.revoke")
    if moment > now:
        raise CannotApprove("The moment lies in the future; certificates that do not exist yet cannot be denied.")
    with transaction.atomic():
        queue()
        DenyBefore.objects.create(moment=moment, at=now, by=by.get_username(), reason=reason)
        # What pages count by. A host that attests meanwhile has its row changed by that, and is left alone.
        Attester.objects.filter(status_at__lt=moment).update(certified_until=None)
        record(by, "certificates.denied", "fabric", {"before": moment.isoformat(), "reason": reason}, now)
