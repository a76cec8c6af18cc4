"""What a host measured beside what a baseline expects: per PCR, and event by event."""

from collections.abc import Iterable
from dataclasses import dataclass

from attestation.core.claims import BANK
from attestation.core.difference import Difference, Same, difference
from attestation.core.eventlog import parse_event_log
from attestation.core.replay import VerifiedEvent, replay
from attestation.core.words import EventWords, describe
from attestation.models import Attestation, Baseline, PolicyVersion
from attestation.policy import reference_values

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
    14: "machine owner keys",
}


@dataclass(frozen=True, slots=True)
class PcrRow:
    pcr: int
    meaning: str
    measured: str
    expected: str

    @property
    def verdict(self) -> str:
        if not self.expected:
            return "not compared"
        return "match" if self.measured == self.expected else "differs"


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
    expected = {} if baseline is None else baseline.pcrs
    rows = tuple(
        PcrRow(int(pcr), MEANING.get(int(pcr), ""), value, expected.get(pcr, ""))
        for pcr, value in sorted(attestation.pcrs.items(), key=lambda item: int(item[0]))
    )
    measured = _verified(attestation)
    reference = () if baseline is None or not measured else reference_values(baseline).events
    differing = [row for row in rows if row.verdict == "differs"] if reference else []
    groups = tuple(PcrDifferences(row, difference(reference, measured, [row.pcr])) for row in differing)
    changed = sum(group.changed for group in groups)
    return Comparison(attestation, baseline, rows, groups, len(measured), len(measured) - changed)


def nearest(attestation: Attestation) -> Baseline | None:
    """Return the baseline in force from which this attestation's PCR values differ least."""
    newest = PolicyVersion.objects.first()
    in_force = [] if newest is None else list(Baseline.objects.filter(pk__in=newest.baselines))
    if not in_force or not attestation.pcrs:
        return None
    return min(in_force, key=lambda row: sum(attestation.pcrs.get(pcr) != value for pcr, value in row.pcrs.items()))


def events(attestation: Attestation) -> tuple[DescribedEvent, ...]:
    """Return the boot events that this attestation's quote vouches for, in words."""
    return _described(_verified(attestation))


def baseline_events(baseline: Baseline) -> tuple[DescribedEvent, ...]:
    return _described(reference_values(baseline).events)


def _verified(attestation: Attestation) -> tuple[VerifiedEvent, ...]:
    """Replay the kept log again against the quoted values: what is shown is what was proved."""
    if attestation.event_log is None or not attestation.pcrs:
        return ()
    log = parse_event_log(bytes(attestation.event_log.content))
    return replay(log, quoted=attestation.pcr_bytes(), bank=BANK)


def _described(verified: Iterable[VerifiedEvent]) -> tuple[DescribedEvent, ...]:
    return tuple(DescribedEvent(event.pcr, event.index, describe(event), event.digest.hex()) for event in verified)
