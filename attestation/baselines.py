"""Baselines: captured from hosts' verified Evidence, uploaded, amended, and taken out of the policy again."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction

from attestation import policies
from attestation.acts import open_proposal, queue, record, require
from attestation.core.claims import BANK, read_boot
from attestation.core.comparison import parse_pcr_values
from attestation.core.document import BaselineEntry
from attestation.core.eventlog import EVENT_LOG_LIMIT
from attestation.core.quote import BOOT_PCRS
from attestation.core.reference import PLATFORMS, accept_more, allow_absence, capture, rules_to_json
from attestation.errors import CannotApprove, NotFound, ParseError, TooLarge
from attestation.models import Attestation, Attester, Baseline, Blob, HostGroup, Proposal
from attestation.policy import base_document
from attestation.stored import boot_of


def capture_baseline(
    attestation_id: int,
    *,
    name: str,
    by: User,
    reason: str,
    now: datetime,
    others: Sequence[int] = (),
    by_events: Iterable[int] = (),
    group: str | None = None,
) -> Proposal:
    """Put the boot measurements of one host's verified Evidence forward as a baseline, or those of several hosts.

    PCRs of `by_events` are pinned by what was measured into them, the others by value. Without `group`, the baseline
    is for the first host's.
    """
    require(by, "attestation.propose")
    found = Attestation.objects.select_related("attester", "event_log").in_bulk([attestation_id, *others])
    sources = [found[pk] for pk in dict.fromkeys((attestation_id, *others)) if pk in found]
    if len(sources) != len({attestation_id, *others}) or any(each.code or each.event_log is None for each in sources):
        raise NotFound("There is no verified Evidence under that number.")
    for source in sources:
        require_source(source.attester)
    boots = [boot_of(source) for source in sources]
    rules = capture(
        [(source.pcr_bytes(), boot.events) for source, boot in zip(sources, boots, strict=True)],
        pcrs=BOOT_PCRS,
        by_events=by_events,
    )
    first = sources[0]
    baseline = Baseline(
        name=name,
        group_id=group or first.attester.group_id,
        platform=boots[0].platform,
        bank=BANK,
        pcrs=rules_to_json(rules),
        event_log=first.event_log,
        explained_pcrs=first.pcrs,
        captured_from=first,
        sources=[source.pk for source in sources],
        captured_by=by.get_username(),
        captured_at=now,
    )
    hosts = ", ".join(source.attester.name for source in sources)
    detail = {"host": hosts, "attestation": first.id}
    return _put_forward(baseline, "baseline.captured", detail, by=by, reason=reason, now=now)


def upload_baseline(
    event_log: bytes,
    pcr_values: bytes,
    *,
    name: str,
    group: str,
    platform: str,
    by: User,
    reason: str,
    now: datetime,
    by_events: Iterable[int] = (),
) -> Proposal:
    """Put an uploaded boot log (a firmware's own, or HGS's .tcglog) with its PCR values forward as a baseline.

    The values are those of the host's TPM, as `tpm2_pcrread sha256` prints them; the log has to lead to them.
    """
    require(by, "attestation.propose")
    if len(event_log) > EVENT_LOG_LIMIT:
        raise TooLarge(f"The event log has {len(event_log)} bytes; {EVENT_LOG_LIMIT} is the limit.")
    values = parse_pcr_values(pcr_values).get(BANK, {})
    missing = [str(pcr) for pcr in BOOT_PCRS if pcr not in values]
    if missing:
        raise ParseError(f"The PCR values lack the {BANK} PCRs {', '.join(missing)}.")
    if platform not in PLATFORMS:
        raise ParseError(f"The platform is none of {', '.join(PLATFORMS)}.")
    boot = read_boot(event_log, values)
    rules = capture([(values, boot.events)], pcrs=BOOT_PCRS, by_events=by_events)
    baseline = Baseline(
        name=name,
        group_id=group,
        source=Baseline.Source.UPLOADED,
        platform=platform,
        bank=BANK,
        pcrs=rules_to_json(rules),
        explained_pcrs={str(pcr): value.hex() for pcr, value in values.items()},
        captured_by=by.get_username(),
        captured_at=now,
    )
    digest = hashlib.sha256(event_log).hexdigest()
    with transaction.atomic():
        defaults = {"content": event_log, "size": len(event_log)}
        baseline.event_log = Blob.objects.get_or_create(pk=digest, defaults=defaults)[0]
        return _put_forward(baseline, "baseline.uploaded", {"log": digest}, by=by, reason=reason, now=now)


def amend_baseline(
    baseline_id: UUID,
    *,
    accept: Mapping[int, Iterable[bytes]],
    absent: Mapping[int, Iterable[bytes]],
    by: User,
    reason: str,
    now: datetime,
) -> Proposal:
    """Put a baseline forward that accepts more than an approved one, and takes its place: digests of events, or values.

    `absent` are required events of PCRs pinned by events that need not be there any more.
    """
    require(by, "attestation.propose")
    old = Baseline.objects.filter(pk=baseline_id, state=Baseline.State.APPROVED).first()
    if old is None:
        raise NotFound("There is no such baseline in force.")
    rules = old.rules()
    for pcr in {*accept, *absent}:
        if pcr not in rules:
            raise ParseError(f"The baseline {old.name} does not pin PCR {pcr}.")
        rules[pcr] = allow_absence(accept_more(rules[pcr], pcr, accept.get(pcr, ())), absent.get(pcr, ()))
    baseline = Baseline(
        name=old.name,
        group_id=old.group_id,
        source=Baseline.Source.AMENDED,
        platform=old.platform,
        bank=old.bank,
        pcrs=rules_to_json(rules),
        event_log_id=old.event_log_id,
        explained_pcrs=old.explained_pcrs,
        captured_from_id=old.captured_from_id,
        sources=old.sources,
        amends=old,
        captured_by=by.get_username(),
        captured_at=now,
    )
    detail = {"pcrs": sorted({*accept, *absent}), "amends": str(old.id)}
    return _put_forward(baseline, "baseline.amended", detail, by=by, reason=reason, now=now)


def _put_forward(
    baseline: Baseline, act: str, detail: Mapping[str, object], *, by: User, reason: str, now: datetime
) -> Proposal:
    with transaction.atomic():
        if not HostGroup.objects.filter(pk=baseline.group_id).exists():
            raise NotFound("There is no such group of hosts.")
        baseline.save(force_insert=True)
        proposal = open_proposal(
            Proposal(baseline=baseline, group_id=baseline.group_id, proposed_by=by, proposed_at=now, reason=reason)
        )
        record(by, act, baseline.subject, {"name": baseline.name, **detail, "reason": reason}, now)
    return proposal


def require_source(attester: Attester) -> None:
    """Refuse what a host measured that people have turned away: its word is no model for others."""
    if attester.state in (Attester.State.REJECTED, Attester.State.REVOKED):
        raise CannotApprove(f"{attester.name}, whose measurements these are, is {attester.state} by now.")


def settle(baseline: Baseline, by: User, *, approve: bool, reason: str, now: datetime) -> None:
    """Let the decision about a baseline take effect: approved, its group's next policy version has it."""
    if not approve:
        Baseline.objects.filter(pk=baseline.pk).update(state=Baseline.State.REJECTED)
        return
    if baseline.captured_from is not None:
        require_source(baseline.captured_from.attester)
    same_name = Baseline.objects.filter(name=baseline.name, group=baseline.group_id, state=Baseline.State.APPROVED)
    retired = {str(pk) for pk in same_name.values_list("pk", flat=True)}
    same_name.update(state=Baseline.State.RETIRED)
    Baseline.objects.filter(pk=baseline.pk).update(state=Baseline.State.APPROVED)
    _change(str(baseline.group_id), retired, [BaselineEntry(str(baseline.id))], by=by, reason=reason, now=now)


def retire_baseline(baseline_id: UUID, *, by: User, reason: str, now: datetime) -> None:
    """Take an approved baseline out of the policy; hosts that match no other one get no more keys."""
    require(by, "attestation.revoke")
    with transaction.atomic():
        queue()
        approved = Baseline.objects.filter(pk=baseline_id, state=Baseline.State.APPROVED)
        group = approved.values_list("group_id", flat=True).first()
        if group is None or approved.update(state=Baseline.State.RETIRED) != 1:
            raise NotFound("There is no such baseline in force.")
        _change(group, {str(baseline_id)}, [], by=by, reason=reason, now=now)
        record(by, "baseline.retired", f"baseline:{baseline_id}", {"reason": reason}, now)


def _change(group: str, removed: set[str], added: list[BaselineEntry], *, by: User, reason: str, now: datetime) -> None:
    """Write the group's next version, in force at once."""
    _, document = base_document(group)
    kept = [each for each in document.baselines if each.id not in removed]
    changed = replace(document, baselines=(*kept, *added))
    policies.new_version(group, changed, by=by.get_username(), reason=reason, effective_at=now, now=now)
