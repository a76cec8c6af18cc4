"""What a host measured beside what a baseline expects: per PCR, and event by event."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.utils import timezone

from attestation.core.baselines import hold
from attestation.core.difference import Difference, Same, difference
from attestation.core.reference import ByEvents, Rule, meets
from attestation.core.replay import VerifiedEvent
from attestation.core.words import EventWords, describe
from attestation.models import Attestation, Baseline
from attestation.policy import baseline_log, policy_in_force
from attestation.stored import boot_of

MEANING = {
    0: "firmware code",
    1: "firmware settings",
    2: "option ROM code",
    3: "option ROM settings",
    4: "boot loader and kernel",
    5: "partition table and boot attempts",
    6: "platform maker",
    7: "Secure Boot settings",
    8: "what the boot loader was told",
    9: "files that the boot loader read",
    10: "programs that ran (IMA)",
    11: "unified kernel image, BitLocker",
    12: "boot loader settings, kernel command line",
    13: "Windows modules, system extensions",
    14: "machine owner keys",
}


@dataclass(frozen=True, slots=True)
class PcrRow:
    """One PCR beside its rule; `expected` is the value where there is only one, else what kind of rule it is."""

    pcr: int
    meaning: str
    measured: str
    expected: str
    by_events: bool
    verdict: str


@dataclass(frozen=True, slots=True)
class PcrDifferences:
    """What differs in one PCR, in the order of the log, runs of the same events folded."""

    row: PcrRow
    rows: tuple[Difference | Same, ...]

    @property
    def changed(self) -> int:
        return sum(isinstance(row, Difference) for row in self.rows)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One attestation beside one baseline; without a baseline, the measured values alone."""

    attestation: Attestation
    baseline: Baseline | None
    pcrs: tuple[PcrRow, ...]
    differing: tuple[PcrDifferences, ...]
    events: int
    same: int


@dataclass(frozen=True, slots=True)
class DescribedEvent:
    pcr: int
    index: int
    words: EventWords
    digest: str


def compare(attestation: Attestation) -> Comparison:
    """Compare with the baseline that it was appraised by, or else with the nearest one of the policy in force."""
    baseline = attestation.baseline or nearest(attestation)
    rules = {} if baseline is None else baseline.rules()
    measured = _verified(attestation)
    rows = tuple(_row(pcr, value, rules.get(pcr), measured) for pcr, value in sorted(attestation.pcr_bytes().items()))
    reference = () if baseline is None or not measured else baseline_log(baseline)
    differing = [row for row in rows if row.verdict == "differs"] if reference else []
    groups = tuple(PcrDifferences(row, difference(reference, measured, [row.pcr])) for row in differing)
    changed = sum(group.changed for group in groups)
    return Comparison(attestation, baseline, rows, groups, len(measured), len(measured) - changed)


def _row(pcr: int, value: bytes, rule: Rule | None, measured: Iterable[VerifiedEvent]) -> PcrRow:
    meaning = MEANING.get(pcr, "")
    if rule is None:
        return PcrRow(pcr, meaning, value.hex(), "", False, "not compared")
    verdict = "match" if meets(rule, value, [event for event in measured if event.pcr == pcr]) else "differs"
    if isinstance(rule, ByEvents):
        return PcrRow(pcr, meaning, value.hex(), f"{len(rule.accepted)} accepted events", True, verdict)
    values = sorted(each.hex() for each in rule.values)
    return PcrRow(pcr, meaning, value.hex(), values[0] if len(values) == 1 else f"{len(values)} values", False, verdict)


def nearest(attestation: Attestation) -> Baseline | None:
    """Return the baseline in force from which this attestation differs least."""
    now = timezone.now()
    policy = policy_in_force(str(attestation.attester.group_id), now=now)
    if not policy.baselines or not attestation.pcrs:
        return None
    held = hold(attestation.pcr_bytes(), _verified(attestation), policy.baselines, now=now)
    return None if held.baseline is None else Baseline.objects.get(pk=held.baseline.id)


def events(attestation: Attestation) -> tuple[DescribedEvent, ...]:
    """Return the boot events that this attestation's quote vouches for, in words."""
    return _described(_verified(attestation))


def baseline_events(baseline: Baseline) -> tuple[DescribedEvent, ...]:
    return _described(baseline_log(baseline))


def _verified(attestation: Attestation) -> tuple[VerifiedEvent, ...]:
    """The kept log, replayed against the quoted values: what is shown is what was proved."""
    if attestation.event_log_id is None or not attestation.pcrs:
        return ()
    return boot_of(attestation).events


def _described(verified: Iterable[VerifiedEvent]) -> tuple[DescribedEvent, ...]:
    return tuple(DescribedEvent(event.pcr, event.index, describe(event), event.digest.hex()) for event in verified)
