"""Patch day: hosts that fail for one and the same change, shown once, and accepted once.

A change is known by its signature: the group, the baseline, and exactly what differs. Whoever accepts it accepts what
was shown; hosts that differ in anything else are another change.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User

from attestation import components
from attestation.acts import require
from attestation.announcements import announce_change
from attestation.baseline_reads import Added, brought
from attestation.baselines import amend_baseline
from attestation.components import deviations
from attestation.core.amendment import Amendment, amended, needed
from attestation.core.baselines import KEPT_DEVIATIONS
from attestation.core.checks import BASELINE
from attestation.core.finding import Finding
from attestation.core.policy import AppraisalPolicy
from attestation.core.reference import ByValue, ReferenceValues
from attestation.core.words import describe
from attestation.errors import CannotApprove, ChangeGone, NotFound, ParseError
from attestation.models import Attestation, Attester, Baseline, HostGroup, Proposal
from attestation.policy import policy_in_force, reference_values
from attestation.stored import appraise_again, boot_of

MOST_TRIED = 50
BY_MEASUREMENT = frozenset(("pcr_mismatch", "kernel_command_line", "secure_boot_off"))
"""The findings about a baseline that say that something else was measured than it accepts."""


@dataclass(slots=True)
class Change:
    """One change, and the hosts that show it; the first of them stands for all."""

    signature: str
    group: HostGroup
    baseline: Baseline
    findings: tuple[Mapping[str, Any], ...]
    hosts: list[Attester] = field(default_factory=list)
    since: datetime | None = None
    known: Mapping[str, components.Known] = field(default_factory=dict)

    @property
    def differences(self) -> list[Mapping[str, Any]]:
        """What differs, each event once; of endless events the first."""
        unique = {(each["pcr"], each["expected"], each["seen"]): each for each in deviations(self.findings)}
        return list(unique.values())[:KEPT_DEVIATIONS]

    @property
    def acceptable(self) -> bool:
        """Whether the baseline that the hosts differ from is the one in force."""
        return self.baseline.state == Baseline.State.APPROVED

    @property
    def sample(self) -> Attestation:
        latest = self.hosts[0].latest
        if latest is None:
            raise NotFound("There is no Evidence of this change.")
        return latest


@dataclass(frozen=True, slots=True)
class Outlook:
    """What accepting a change would do to the hosts that show it, as far as they were tried: `beyond` were not.

    `hindrance` says why no amendment helps, where none does.
    """

    brings: tuple[Added, ...] = ()
    green: tuple[Attester, ...] = ()
    still: tuple[tuple[Attester, tuple[Finding, ...]], ...] = ()
    beyond: int = 0
    hindrance: str = ""


def changes() -> list[Change]:
    """Return the changes that approved hosts fail for, the widest first."""
    found = _clustered(components.failing_hosts())
    told = components.known(each["seen"] for change in found for each in change.differences)
    for change in found:
        change.known = told
        moments = [told[each["seen"]].component.first_seen_at for each in change.differences if each["seen"] in told]
        # A change is as old as the youngest of its events: only then was it this one.
        change.since = max(moments, default=min(host.status_at or change.sample.at for host in change.hosts))
    return sorted(found, key=lambda change: (-len(change.hosts), change.group.name, change.signature))


def acceptable_changes() -> int:
    """Return how many changes wait for somebody to accept them, or to look after the hosts that show them."""
    return sum(each.acceptable for each in _clustered(components.failing_hosts()))


def failing_otherwise() -> int:
    """Return how many approved hosts fail, and for no change of what they measured."""
    return sum(not _measured(host) for host in components.failing_hosts())


def change(signature: str) -> Change:
    """Return a change that hosts show now; raises ChangeGone for one that none shows."""
    return _of_signature(changes(), signature)


def _of_signature(found: Iterable[Change], signature: str) -> Change:
    for each in found:
        if each.signature == signature:
            return each
    raise ChangeGone("No host shows this change any more as you saw it. Look at the changes again.")


def _clustered(hosts: Iterable[Attester]) -> list[Change]:
    failing = [(host, host.latest, _measured(host)) for host in hosts]
    baselines = Baseline.objects.in_bulk({latest.baseline_id for _, latest, _ in failing if latest is not None})
    by_value = {pk: _by_value(baseline) for pk, baseline in baselines.items()}
    clusters: dict[str, Change] = {}
    for host, latest, findings in failing:
        baseline = baselines.get(latest.baseline_id) if latest is not None and latest.baseline_id else None
        if latest is None or baseline is None or not findings:
            continue
        signature = _signature(host, latest, findings, by_value[baseline.pk])
        known = clusters.setdefault(signature, Change(signature, host.group, baseline, findings))
        known.hosts.append(host)
    return list(clusters.values())


def _measured(host: Attester) -> tuple[Mapping[str, Any], ...]:
    findings = host.latest.findings if host.latest is not None else ()
    return tuple(each for each in findings if each.get("check") == BASELINE and each["code"] in BY_MEASUREMENT)


def _by_value(baseline: Baseline) -> frozenset[int]:
    return frozenset(pcr for pcr, rule in baseline.rules().items() if isinstance(rule, ByValue))


def _signature(
    host: Attester, latest: Attestation, findings: Iterable[Mapping[str, Any]], by_value: frozenset[int]
) -> str:
    """Hash exactly what differs: the events; and the value of each PCR that is pinned by it, or has too many events."""
    parts = []
    for finding in findings:
        events = [[each["pcr"], each["expected"], each["seen"]] for each in finding["deviations"]]
        whole = [pcr for pcr in finding["pcrs"] if pcr in by_value or not events or len(events) >= KEPT_DEVIATIONS]
        parts.append([finding["code"], finding["pcrs"], events, [latest.pcrs.get(str(pcr)) for pcr in whole]])
    text = json.dumps([host.group_id, str(latest.baseline_id), sorted(parts, key=str)])
    return hashlib.sha256(text.encode()).hexdigest()


# --- accepted ----------------------------------------------------------------------------------------------------


def outlook(change: Change, *, now: datetime) -> Outlook:
    """Say what would have to be accepted, and what the hosts would be then."""
    try:
        amendments = _amendments(change)
    except ParseError as error:
        return Outlook(hindrance=str(error))
    policy = _policy_with(change, amendments, now=now)
    tried = change.hosts[:MOST_TRIED]
    newest = Attestation.objects.in_bulk([host.latest_id for host in tried])
    green, still = [], []
    for host in tried:
        result = appraise_again(newest[host.latest_id], policy, now=now) if host.latest_id else None
        if result is not None and result.affirming:
            green.append(host)
        else:
            still.append((host, () if result is None else result.findings))
    before = change.baseline.rules()
    after = amended(before, amendments, size=hashlib.new(change.baseline.bank).digest_size)
    words = {(event.pcr, event.digest): describe(event) for event in boot_of(change.sample).events}
    return Outlook(
        brings=brought(before, after, words),
        green=tuple(green),
        still=tuple(still),
        beyond=len(change.hosts[MOST_TRIED:]),
    )


def accept_change(
    signature: str,
    *,
    by: User,
    reason: str,
    now: datetime,
    time: tuple[datetime | None, datetime] | None = None,
) -> Proposal | Baseline:
    """Put a change forward as it was shown: for good as an amended baseline, or drafted for a time.

    Raises ChangeGone when hosts do not show just this any more.
    """
    require(by, "attestation.propose")
    found = _of_signature(_clustered(components.failing_hosts()), signature)
    if not found.acceptable:
        raise CannotApprove("The baseline that these hosts differ from is not in force any more; they attest again.")
    amendments, source = _amendments(found), found.sample.pk
    if time is None:
        return amend_baseline(found.baseline.pk, amendments, by=by, reason=reason, now=now, source=source)
    begins, ends = time
    return announce_change(
        found.baseline.pk, amendments, begins=begins, ends=ends, by=by, reason=reason, now=now, source=source
    )


def _amendments(change: Change) -> dict[int, Amendment]:
    sample = change.sample
    return needed(reference_values(change.baseline), sample.pcr_bytes(), boot_of(sample).events)


def _policy_with(change: Change, amendments: Mapping[int, Amendment], *, now: datetime) -> AppraisalPolicy:
    """The group's policy as it would be with the amended baseline in the place of the old one."""
    policy = policy_in_force(str(change.group.pk), now=now)
    return replace(policy, baselines=tuple(_with(each, change, amendments) for each in policy.baselines))


def _with(values: ReferenceValues, change: Change, amendments: Mapping[int, Amendment]) -> ReferenceValues:
    if values.id != str(change.baseline.pk):
        return values
    size = hashlib.new(values.bank).digest_size
    return replace(values, pcrs=amended(values.pcrs, amendments, size=size))
