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
from attestation.core.amendment import Amendments, amended
from attestation.core.claims import BANK, read_boot
from attestation.core.comparison import parse_pcr_values
from attestation.core.document import BaselineEntry
from attestation.core.eventlog import EVENT_LOG_LIMIT
from attestation.core.quote import BOOT_PCRS
from attestation.core.reference import PLATFORMS, capture, rules_to_json
from attestation.errors import CannotApprove, NotFound, ParseError, TooLarge
from attestation.models import Attestation, Baseline, Blob, HostGroup, Proposal
from attestation.policy import base_document
from attestation.sources import require_source, require_sources
from attestation.stored import boot_of

MOST_SOURCES = 20


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
    sources = _sources((attestation_id, *others))
    boots = [boot_of(source) for source in sources]
    if len({boot.platform for boot in boots}) > 1:
        raise ParseError("These hosts run different systems; capture a baseline for each.")
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


def _sources(numbers: Sequence[int]) -> list[Attestation]:
    """Return verified attestations with a kept log, of hosts that count, each once."""
    unique = list(dict.fromkeys(numbers))
    if len(unique) > MOST_SOURCES:
        raise ParseError(f"A baseline is captured from at most {MOST_SOURCES} hosts.")
    found = Attestation.objects.select_related("attester", "event_log").in_bulk(unique)
    sources = [found[pk] for pk in unique if pk in found]
    if len(sources) != len(unique) or any(each.code or each.event_log is None for each in sources):
        raise NotFound("There is no verified Evidence under that number.")
    for source in sources:
        require_source(source.attester)
    return sources


def upload_baseline(
    event_log: bytes,
    pcr_values: bytes,
    *,
    name: str,
    group: str,
    platform: str,
    by: User,
    now: datetime,
    by_events: Iterable[int] = (),
) -> Baseline:
    """Read a boot log (a firmware's own, or HGS's .tcglog) with its PCR values; it is a draft until put forward.

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
    rules = capture([(values, read_boot(event_log, values).events)], pcrs=BOOT_PCRS, by_events=by_events)
    digest = hashlib.sha256(event_log).hexdigest()
    baseline = Baseline(
        name=name,
        group_id=group,
        state=Baseline.State.DRAFTED,
        source=Baseline.Source.UPLOADED,
        platform=platform,
        bank=BANK,
        pcrs=rules_to_json(rules),
        event_log_id=digest,
        explained_pcrs={str(pcr): value.hex() for pcr, value in values.items()},
        captured_by=by.get_username(),
        captured_at=now,
    )
    with transaction.atomic():
        Blob.objects.get_or_create(pk=digest, defaults={"content": event_log, "size": len(event_log)})
        save(baseline, "baseline.uploaded", {"log": digest}, by=by, now=now)
    return baseline


def propose_baseline(baseline_id: UUID, *, by: User, reason: str, now: datetime) -> Proposal:
    """Put a drafted baseline forward for another person's decision."""
    require(by, "attestation.propose")
    with transaction.atomic():
        baseline = _taken(baseline_id, Baseline.State.PROPOSED)
        record(by, "baseline.proposed", baseline.subject, {"name": baseline.name, "reason": reason}, now)
        return _proposal(baseline, by=by, reason=reason, now=now)


def drop_baseline(baseline_id: UUID, *, by: User, now: datetime) -> None:
    """Give a drafted baseline up; it stays readable."""
    require(by, "attestation.propose")
    with transaction.atomic():
        baseline = _taken(baseline_id, Baseline.State.REJECTED)
        record(by, "baseline.dropped", baseline.subject, {"name": baseline.name}, now)


def _taken(baseline_id: UUID, state: Baseline.State) -> Baseline:
    """Move a drafted baseline on to another state, once."""
    if Baseline.objects.filter(pk=baseline_id, state=Baseline.State.DRAFTED).update(state=state) != 1:
        raise NotFound("There is no such baseline that was not put forward yet.")
    return Baseline.objects.get(pk=baseline_id)


def amend_baseline(
    baseline_id: UUID, amendments: Amendments, *, by: User, reason: str, now: datetime, source: int | None = None
) -> Proposal:
    """Put a baseline forward that accepts more than an approved one, and takes its place.

    `source` is the attestation that showed the change, if one did.
    """
    require(by, "attestation.propose")
    baseline = amended_row(baseline_id, amendments, by=by, now=now, source=source)
    detail = {"pcrs": sorted(amendments), "amends": str(baseline.amends_id)}
    return _put_forward(baseline, "baseline.amended", detail, by=by, reason=reason, now=now)


def amended_row(
    baseline_id: UUID, amendments: Amendments, *, by: User, now: datetime, source: int | None = None
) -> Baseline:
    """Return an approved baseline with amendments, not saved yet. Raises ParseError for what cannot be amended."""
    old = Baseline.objects.filter(pk=baseline_id, state=Baseline.State.APPROVED).first()
    if old is None:
        raise NotFound("There is no such baseline in force.")
    rules = amended(old.rules(), amendments, size=hashlib.new(old.bank).digest_size)
    return Baseline(
        name=old.name,
        group_id=old.group_id,
        source=Baseline.Source.AMENDED,
        platform=old.platform,
        bank=old.bank,
        pcrs=rules_to_json(rules),
        event_log_id=old.event_log_id,
        explained_pcrs=old.explained_pcrs,
        captured_from_id=old.captured_from_id,
        sources=[*old.sources, *([] if source is None or source in old.sources else [source])],
        amends=old,
        captured_by=by.get_username(),
        captured_at=now,
    )


def _put_forward(
    baseline: Baseline, act: str, detail: Mapping[str, object], *, by: User, reason: str, now: datetime
) -> Proposal:
    with transaction.atomic():
        save(baseline, act, {**detail, "reason": reason}, by=by, now=now)
        return _proposal(baseline, by=by, reason=reason, now=now)


def save(baseline: Baseline, act: str, detail: Mapping[str, object], *, by: User, now: datetime) -> None:
    """Keep a new baseline with its leaf, in the caller's transaction."""
    if not HostGroup.objects.filter(pk=baseline.group_id).exists():
        raise NotFound("There is no such group of hosts.")
    baseline.save(force_insert=True)
    record(by, act, baseline.subject, {"name": baseline.name, **detail}, now)


def _proposal(baseline: Baseline, *, by: User, reason: str, now: datetime) -> Proposal:
    return open_proposal(
        Proposal(baseline=baseline, group_id=baseline.group_id, proposed_by=by, proposed_at=now, reason=reason)
    )


def settle(baseline: Baseline, by: User, *, approve: bool, reason: str, now: datetime) -> None:
    """Let the decision about a baseline take effect: approved, its group's next policy version has it.

    An amended one takes the place of the one that it amends, with its time, and only if that is still in force: of two
    amendments, the second would take back what the first one had brought.
    """
    if not approve:
        Baseline.objects.filter(pk=baseline.pk).update(state=Baseline.State.REJECTED)
        return
    require_sources(baseline)
    if (
        baseline.amends_id
        and not Baseline.objects.filter(pk=baseline.amends_id, state=Baseline.State.APPROVED).exists()
    ):
        raise CannotApprove("The baseline that this one amends was replaced or retired meanwhile. Amend the newer one.")
    same_name = Baseline.objects.filter(name=baseline.name, group=baseline.group_id, state=Baseline.State.APPROVED)
    retired = {str(pk) for pk in same_name.values_list("pk", flat=True)}
    same_name.update(state=Baseline.State.RETIRED)
    Baseline.objects.filter(pk=baseline.pk).update(state=Baseline.State.APPROVED)
    _change(str(baseline.group_id), retired, baseline, by=by, reason=reason, now=now)


def retire_baseline(baseline_id: UUID, *, by: User, reason: str, now: datetime) -> None:
    """Take an approved baseline out of the policy; hosts that match no other one get no more keys."""
    require(by, "attestation.revoke")
    with transaction.atomic():
        queue()
        approved = Baseline.objects.filter(pk=baseline_id, state=Baseline.State.APPROVED)
        group = approved.values_list("group_id", flat=True).first()
        if group is None or approved.update(state=Baseline.State.RETIRED) != 1:
            raise NotFound("There is no such baseline in force.")
        _change(group, {str(baseline_id)}, None, by=by, reason=reason, now=now)
        record(by, "baseline.retired", f"baseline:{baseline_id}", {"reason": reason}, now)


def _change(group: str, removed: set[str], added: Baseline | None, *, by: User, reason: str, now: datetime) -> None:
    """Write the group's next version, in force at once."""
    _, document = base_document(group)
    entries = [each for each in document.baselines if each.id not in removed]
    if added is not None:
        amends = next((each for each in document.baselines if each.id == str(added.amends_id)), BaselineEntry(""))
        entries.append(replace(amends, id=str(added.pk)))
    changed = replace(document, baselines=tuple(entries))
    policies.new_version(group, changed, by=by.get_username(), reason=reason, effective_at=now, now=now)
