"""The Appraisal Policy for Evidence that is in force, as the core understands it."""

from functools import lru_cache

from attestation.core.appraise import AppraisalPolicy, ReferenceValues
from attestation.core.eventlog import parse_event_log
from attestation.core.replay import replay
from attestation.models import Baseline, PolicyVersion


def policy_in_force() -> AppraisalPolicy:
    """Return the newest policy version; a fabric without one trusts nothing (version 0, no baselines)."""
    newest = PolicyVersion.objects.first()
    if newest is None:
        return AppraisalPolicy(version=0, baselines=())
    return _compiled(newest.version, tuple(newest.baselines))


@lru_cache(maxsize=8)
def _compiled(version: int, baseline_ids: tuple[str, ...]) -> AppraisalPolicy:
    """Versions and approved baselines never change, so what is compiled once stays right on every node."""
    rows = Baseline.objects.select_related("event_log").filter(pk__in=baseline_ids)
    return AppraisalPolicy(version=version, baselines=tuple(reference_values(row) for row in rows))


def reference_values(baseline: Baseline) -> ReferenceValues:
    """Return a baseline with its events, replayed anew from the log that it was captured with."""
    pcrs = {int(pcr): bytes.fromhex(value) for pcr, value in baseline.pcrs.items()}
    log = parse_event_log(bytes(baseline.event_log.content))
    return ReferenceValues(
        id=str(baseline.id),
        name=baseline.name,
        bank=baseline.bank,
        pcrs=pcrs,
        events=replay(log, quoted=pcrs, bank=baseline.bank),
    )
