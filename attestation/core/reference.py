"""Reference values: what PCRs may hold, each by value or by the events that may have led to it.

By value, a PCR has to hold one of the values that reference hosts had. By events, every event measured into it has to
be an accepted one, and what every reference host measured has to be there, in the same order: so a new kernel adds
digests to a baseline instead of needing a new one. RFC 9334 section 8.3 (Reference Values).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any, Final

from attestation.core.replay import VerifiedEvent
from attestation.errors import ParseError

MOST_VALUES: Final = 64
MOST_EVENTS: Final = 4096
PLATFORMS: Final = ("linux", "windows")
BY_EVENTS: Final = (4, 5, 8, 9, 11, 12)
"""The PCRs that may be pinned by events: boot programs, boot attempts and what boot loaders read. Firmware, its
settings and the Secure Boot keys (0 to 3, 6, 7, 14) change rarely, and what is missing there counts: by value only."""


@dataclass(frozen=True, slots=True)
class ByValue:
    """One of these values, whole."""

    values: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class ByEvents:
    """Nothing but accepted events, and the required ones among them in their order."""

    accepted: frozenset[bytes]
    required: tuple[bytes, ...]


Rule = ByValue | ByEvents


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """One baseline: a rule for each PCR that it pins, and the events that explain them.

    `platform` says by which rules the rest of a host's Evidence is read; whoever captured the baseline knew, and its
    pinned boot programs vouch for it. `accepted_from` and `accepted_until` bound the time in which it counts.
    """

    id: str
    name: str
    bank: str
    pcrs: Mapping[int, Rule]
    events: tuple[VerifiedEvent, ...]
    platform: str = "linux"
    accepted_from: datetime | None = None
    accepted_until: datetime | None = None

    def counts_at(self, now: datetime) -> bool:
        begun = self.accepted_from is None or self.accepted_from <= now
        return begun and (self.accepted_until is None or now < self.accepted_until)


def by_value(pcrs: Mapping[int, bytes]) -> dict[int, Rule]:
    """Pin each PCR to one value."""
    return {pcr: ByValue(frozenset((value,))) for pcr, value in pcrs.items()}


def meets(rule: Rule, value: bytes | None, events: Sequence[VerifiedEvent]) -> bool:
    """Say whether a quoted PCR is as a rule asks. `events` are those that the value vouches for, of that PCR."""
    if value is None:
        return False
    if isinstance(rule, ByValue):
        return value in rule.values
    digests = [event.digest for event in events]
    return bool(digests) and rule.accepted.issuperset(digests) and _in_order(rule.required, digests)


def _in_order(wanted: Iterable[bytes], digests: Iterable[bytes]) -> bool:
    """Whether `wanted` is a subsequence of `digests`."""
    left = iter(digests)
    return all(any(digest == each for digest in left) for each in wanted)


def capture(
    boots: Sequence[tuple[Mapping[int, bytes], Sequence[VerifiedEvent]]],
    *,
    pcrs: Iterable[int],
    by_events: Iterable[int],
) -> dict[int, Rule]:
    """Make rules of one or several reference hosts' proved PCR values and events.

    By events, what all of them measured is required, and what any of them measured is accepted. Raises ParseError when
    a PCR cannot be pinned in the way that is asked for.
    """
    eventful = set(by_events)
    if not boots or eventful - set(BY_EVENTS):
        raise ParseError(
            f"Only PCRs {', '.join(map(str, BY_EVENTS))} can be pinned by events, and by at least one boot."
        )
    rules: dict[int, Rule] = {}
    for pcr in sorted(set(pcrs)):
        if any(pcr not in values for values, _ in boots):
            raise ParseError(f"PCR {pcr} was not quoted by every host that the baseline is made of.")
        if pcr in eventful:
            rules[pcr] = _by_events(pcr, [[each.digest for each in events if each.pcr == pcr] for _, events in boots])
        else:
            rules[pcr] = ByValue(frozenset(values[pcr] for values, _ in boots))
    return rules


def _by_events(pcr: int, runs: Sequence[Sequence[bytes]]) -> ByEvents:
    if not all(runs):
        raise ParseError(f"PCR {pcr} has no proved event, so it cannot be pinned by events.")
    required = list(runs[0])
    for run in runs[1:]:
        left = iter(run)
        required = [digest for digest in required if digest in run and any(digest == each for each in left)]
    return ByEvents(_bounded(pcr, chain.from_iterable(runs)), tuple(required))


def accept_more(rule: Rule, pcr: int, digests: Iterable[bytes]) -> Rule:
    """Return a rule that accepts these digests too, of events or of the whole PCR, and requires what it did.

    What differs between the boots that are accepted cannot be required any more: a required event that an added one
    takes the place of is given up by `allow_absence`.
    """
    if isinstance(rule, ByValue):
        return ByValue(_few(pcr, chain(rule.values, digests)))
    return replace(rule, accepted=_bounded(pcr, chain(rule.accepted, digests)))


def allow_absence(rule: Rule, digests: Iterable[bytes]) -> Rule:
    """Return a rule that does not require these events any more; they stay accepted."""
    if isinstance(rule, ByValue):
        return rule
    gone = set(digests)
    return replace(rule, required=tuple(digest for digest in rule.required if digest not in gone))


def _few(pcr: int, values: Iterable[bytes]) -> frozenset[bytes]:
    few = frozenset(values)
    if len(few) > MOST_VALUES:
        raise ParseError(f"PCR {pcr} would have more than {MOST_VALUES} values; pin it by events.")
    return few


def _bounded(pcr: int, digests: Iterable[bytes]) -> frozenset[bytes]:
    accepted = frozenset(digests)
    if len(accepted) > MOST_EVENTS:
        raise ParseError(f"PCR {pcr} would have more than {MOST_EVENTS} accepted events.")
    return accepted


# --- as they are stored ------------------------------------------------------------------------------------------


def rules_to_json(rules: Mapping[int, Rule]) -> dict[str, Any]:
    """Return rules as JSON: {"7": {"values": ["<hex>"]}, "4": {"accepted": ["<hex>"], "required": ["<hex>"]}}."""
    return {str(pcr): _to_json(rule) for pcr, rule in sorted(rules.items())}


def _to_json(rule: Rule) -> dict[str, list[str]]:
    if isinstance(rule, ByValue):
        return {"values": sorted(value.hex() for value in rule.values)}
    return {
        "accepted": sorted(digest.hex() for digest in rule.accepted),
        "required": [digest.hex() for digest in rule.required],
    }


def rules_from_json(stored: Mapping[str, Any]) -> dict[int, Rule]:
    """Read what `rules_to_json` wrote."""
    return {int(pcr): _from_json(rule) for pcr, rule in stored.items()}


def _from_json(rule: Mapping[str, Sequence[str]]) -> Rule:
    if "values" in rule:
        return ByValue(frozenset(map(bytes.fromhex, rule["values"])))
    return ByEvents(frozenset(map(bytes.fromhex, rule["accepted"])), tuple(map(bytes.fromhex, rule["required"])))
