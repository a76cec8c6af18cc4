"""An Appraisal Policy for Evidence (RFC 9334 section 8.5): what the Verifier's owner accepts of one group of hosts."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from attestation.core.check import CodePolicy, Parameters
from attestation.core.finding import FAIL, Finding
from attestation.core.reference import ReferenceValues
from attestation.core.runtime import RuntimePolicy


@dataclass(frozen=True, slots=True)
class PolicyException:
    """Trouble that somebody answers for until a moment: of one check, for some hosts or the whole group.

    `pcrs` narrows an exception from the baseline to these PCRs; there it must name some. With `accepts_fail` off, only
    what is unproven is accepted, never what speaks against the host.
    """

    check: str
    until: datetime
    owner: str
    reason: str
    hosts: frozenset[str] = frozenset()
    pcrs: frozenset[int] = frozenset()
    accepts_fail: bool = False

    def covers(self, finding: Finding, *, host: str, now: datetime) -> bool:
        if finding.check != self.check or now >= self.until or (self.hosts and host not in self.hosts):
            return False
        if finding.verdict == FAIL and not self.accepts_fail:
            return False
        return not (self.pcrs or self.check == "baseline") or (
            bool(finding.pcrs) and self.pcrs.issuperset(finding.pcrs)
        )


@dataclass(frozen=True, slots=True)
class AppraisalPolicy:
    """Any one of the baselines, whole, and every required check; what names nothing trusts nothing."""

    version: int
    baselines: tuple[ReferenceValues, ...]
    required: frozenset[str] = frozenset()
    parameters: Parameters = field(default_factory=Parameters)
    exceptions: tuple[PolicyException, ...] = ()
    runtime: RuntimePolicy | None = None
    code_policies: tuple[CodePolicy, ...] = ()

    def excepted(
        self, findings: Iterable[Finding], *, host: str, now: datetime
    ) -> tuple[tuple[Finding, ...], tuple[Finding, ...], datetime | None]:
        """Split findings into those that count and those that an exception covers, and say until when it does."""
        counting, covered, until = [], [], None
        for finding in findings:
            moments = [each.until for each in self.exceptions if each.covers(finding, host=host, now=now)]
            if not moments:
                counting.append(finding)
                continue
            covered.append(finding)
            until = min(max(moments), until or max(moments))
        return tuple(counting), tuple(covered), until
