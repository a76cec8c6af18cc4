"""Appraises Claims by a policy: baseline, runtime policy and every required check, all findings at once.

RFC 9334 section 8.5 (Appraisal Policy for Evidence). Nothing here raises for what a host did: authenticity was settled
before, and a policy that is not met is data.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from attestation.core.baselines import hold
from attestation.core.check import Answer, Check, Counters, Proved, RuntimeOutcome, Verdict
from attestation.core.checks import CHECKS, RUNTIME
from attestation.core.claims import Claims
from attestation.core.finding import FAIL, UNPROVEN, Finding
from attestation.core.policy import AppraisalPolicy
from attestation.core.reference import ReferenceValues
from attestation.core.runtime import KnownLines, appraise_runtime


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of a host from its attestations before: its counters, and what its IMA list had shown of this boot.

    `runtime` are the findings about the part of the list that did not travel again; None when there is no such part.
    """

    counters: Counters = field(default_factory=Counters)
    runtime: tuple[Finding, ...] | None = None
    entries: int = 0


NOTHING_BEFORE: Final = Before()


@dataclass(frozen=True, slots=True)
class Checked:
    """One check with its answer; `required` says whether the policy asks for it."""

    check: Check
    answer: Answer
    required: bool


@dataclass(frozen=True, slots=True)
class AttestationResult:
    """The findings that count, those that somebody answers for, and the baseline that matches or is nearest.

    `runtime` are all findings about the IMA list of this boot, to be carried on. `valid_until` is when the first
    exception or baseline that this result leans on ends: no certificate may outlive it.
    """

    findings: tuple[Finding, ...]
    baseline: str | None
    excepted: tuple[Finding, ...] = ()
    runtime: tuple[Finding, ...] = ()
    valid_until: datetime | None = None

    @property
    def affirming(self) -> bool:
        return not self.findings


def appraise(
    claims: Claims,
    policy: AppraisalPolicy,
    *,
    host: str,
    now: datetime,
    before: Before = NOTHING_BEFORE,
    known: KnownLines | None = None,
) -> AttestationResult:
    """Affirm when a whole baseline matches and every required check passes; else report everything that does not."""
    held = hold(claims.pcrs, claims.boot.events, policy.baselines, now=now)
    runtime = _runtime(claims, policy, before, known)
    proved = _proved(claims, policy, held.baseline, before, runtime)
    platform = held.baseline.platform if held.baseline is not None else "linux"
    checks = tuple(_check_findings(proved, policy, platform))
    counting, excepted, until = policy.excepted((*held.findings, *(runtime or ()), *checks), host=host, now=now)
    baseline_until = held.baseline.accepted_until if held.baseline is not None else None
    ends = [moment for moment in (until, baseline_until) if moment is not None]
    return AttestationResult(
        findings=_said_once(counting),
        baseline=held.baseline.id if held.baseline is not None else None,
        excepted=excepted,
        runtime=runtime or (),
        valid_until=min(ends, default=None),
    )


def _said_once(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Leave out that Secure Boot is off where the baseline says it already, with the events that came of it."""
    if not any(finding.code == "secure_boot_off" for finding in findings):
        return findings
    return tuple(finding for finding in findings if finding.code != "secure_boot")


def checked(
    claims: Claims, policy: AppraisalPolicy, *, now: datetime, before: Before = NOTHING_BEFORE
) -> tuple[Checked, ...]:
    """Return every check that makes sense for this host, with its answer, whether the policy asks for it or not."""
    held = hold(claims.pcrs, claims.boot.events, policy.baselines, now=now)
    runtime = _runtime(claims, policy, before, None)
    proved = _proved(claims, policy, held.baseline, before, runtime)
    platform = held.baseline.platform if held.baseline is not None else claims.boot.platform
    answers = []
    for check in CHECKS.values():
        rule = check.rule_for(platform)
        if rule is not None:
            answers.append(Checked(check, rule(proved), _is_required(check.code, policy)))
    return tuple(answers)


def _is_required(code: str, policy: AppraisalPolicy) -> bool:
    """Naming a runtime policy, or code integrity policies, is asking for them."""
    return code in policy.required or (code == RUNTIME and policy.runtime is not None)


def _runtime(
    claims: Claims, policy: AppraisalPolicy, before: Before, known: KnownLines | None
) -> tuple[Finding, ...] | None:
    """What the runtime policy says of the whole list of this boot; None when there is no policy or no list."""
    if policy.runtime is None or claims.ima is None:
        return None
    fresh = appraise_runtime(claims.ima, policy.runtime, pcrs=claims.pcrs, known=known)
    carried = before.runtime or () if not claims.ima.from_start else ()
    return tuple(replace(finding, check=RUNTIME) for finding in (*carried, *fresh))


def _proved(
    claims: Claims,
    policy: AppraisalPolicy,
    baseline: ReferenceValues | None,
    before: Before,
    runtime: tuple[Finding, ...] | None,
) -> Proved:
    entries = claims.ima.position.entries if claims.ima is not None else 0
    return Proved(
        facts=claims.boot.facts,
        pinned=frozenset(baseline.pcrs if baseline is not None else ()),
        clock=claims.clock,
        oddities=claims.boot.oddities,
        before=before.counters,
        parameters=policy.parameters,
        code_policies=policy.code_policies,
        runtime=None if runtime is None else RuntimeOutcome(entries, len(runtime)),
    )


def _check_findings(proved: Proved, policy: AppraisalPolicy, platform: str) -> Iterator[Finding]:
    """A finding for each required check that does not pass; the runtime policy reports its files one by one instead."""
    for code, check in CHECKS.items():
        rule = check.rule_for(platform) if _is_required(code, policy) else None
        if rule is None:
            continue
        answer = rule(proved)
        if answer.verdict is Verdict.PASS or (code == RUNTIME and proved.runtime is not None):
            continue
        yield finding_of(check, answer)


def finding_of(check: Check, answer: Answer) -> Finding:
    """Return what an answer that is no pass says to people."""
    failed = answer.verdict is Verdict.FAIL
    return Finding(
        code=check.code if failed else f"{check.code}_unproven",
        substatus=check.substatus,
        what=answer.said if failed else f"Not proved: {check.title[:1].lower()}{check.title[1:]}. {answer.said}",
        why=check.why,
        remedy=check.remedy,
        pcrs=tuple(sorted({pcr for pcr, _ in answer.leans if pcr >= 0})),
        check=check.code,
        verdict=FAIL if failed else UNPROVEN,
    )
