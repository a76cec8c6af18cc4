"""Reference values: what PCRs may hold, each by value or by the events that may have led to it.

By value, a PCR has to hold one of the values that reference hosts had. By events, every event measured into it has to
be an accepted one, and what every reference host measured has to be there, once and in its place: so a new kernel adds
digests to a baseline instead of needing a new one. RFC 9334 section 8.3 (Reference Values).
"""

from collections import Counter
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
    """Nothing but accepted events; those of required places once for each place, in order.

    A place accepts one of several events: the kernel, or its update. An accepted event that no place has may be there
    or not, anywhere: nothing hangs on it. An event of a place is nowhere else: whoever owns a running host can extend
    its PCRs further, with events that are accepted in themselves.
    """

    accepted: frozenset[bytes]
    required: tuple[frozenset[bytes], ...]

    @property
    def placed(self) -> frozenset[bytes]:
        return frozenset[bytes]().union(*self.required)


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
    return fits(rule, [event.digest for event in events])


def fits(rule: ByEvents, digests: Sequence[bytes]) -> bool:
    """Say whether these events, in this order, are what a rule asks for."""
    placed = rule.placed
    found = [digest for digest in digests if digest in placed]
    return (
        bool(digests)
        and rule.accepted.issuperset(digests)
        and len(found) == len(rule.required)
        and all(digest in place for digest, place in zip(found, rule.required, strict=True))
    )


def capture(
    boots: Sequence[tuple[Mapping[int, bytes], Sequence[VerifiedEvent]]],
    *,
    pcrs: Iterable[int],
    by_events: Iterable[int],
) -> dict[int, Rule]:
    """Make rules of one or several reference hosts' proved PCR values and events.

    By events, what all of them measured is required, and what any of them measured is accepted; where they differ in
    one event each, that place is required and accepts either. Every boot meets the rules that are made of it. Raises
    ParseError when a PCR cannot be pinned in the way that is asked for.
    """
    eventful = set(by_events)
    if not boots or eventful - set(BY_EVENTS):
        raise ParseError(
            f"Only PCRs {', '.join(map(str, BY_EVENTS))} can be pinned by events, and by at least one boot."
        )
    rules: dict[int, Rule] = {}
    for pcr in sorted({*pcrs, *eventful}):
        if any(pcr not in values for values, _ in boots):
            raise ParseError(f"PCR {pcr} was not quoted by every host that the baseline is made of.")
        if pcr in eventful:
            rules[pcr] = _by_events(pcr, [[each.digest for each in events if each.pcr == pcr] for _, events in boots])
        else:
            rules[pcr] = _few(pcr, (values[pcr] for values, _ in boots))
    return rules


def _by_events(pcr: int, runs: Sequence[Sequence[bytes]]) -> ByEvents:
    if not all(runs):
        raise ParseError(f"PCR {pcr} has no proved event, so it cannot be pinned by events.")
    counts = [Counter(run) for run in runs]
    common = {digest for digest, count in counts[0].items() if all(each[digest] == count for each in counts)}
    anchors = [digest for digest in runs[0] if digest in common]
    required: list[frozenset[bytes]] = []
    for place, gaps in enumerate(zip(*(_gaps(run, common) for run in runs), strict=True)):
        if len(set(map(len, gaps))) == 1:
            required += map(frozenset, zip(*gaps, strict=True))
        required += [frozenset((anchors[place],))] if place < len(anchors) else []
    rule = ByEvents(_bounded(pcr, chain.from_iterable(runs)), tuple(required))
    if len(required) > MOST_EVENTS or not all(fits(rule, run) for run in runs):
        raise ParseError(f"PCR {pcr}: these boots have their events in too different an order; capture one for each.")
    return rule


def _gaps(run: Sequence[bytes], common: set[bytes]) -> list[list[bytes]]:
    """What a boot measured before, between and after the events that all boots have in common."""
    gaps: list[list[bytes]] = [[]]
    for digest in run:
        if digest in common:
            gaps.append([])
        else:
            gaps[-1].append(digest)
    return gaps


# --- amended: whatever a rule accepts, the amended one accepts too -----------------------------------------------


def accept_more(rule: Rule, pcr: int, digests: Iterable[bytes]) -> Rule:
    """Return a rule that accepts these digests too: values of the whole PCR, or events that may be there or not."""
    if isinstance(rule, ByValue):
        return _few(pcr, chain(rule.values, digests))
    return replace(rule, accepted=_bounded(pcr, chain(rule.accepted, digests)))


def accept_instead(rule: Rule, pcr: int, old: bytes, new: bytes) -> Rule:
    """Return a rule that accepts an event in the place of another one, which stays accepted there: a kernel's update.

    A new event that may be anywhere already cannot be bound to a place any more; then the old one may be absent.
    """
    if isinstance(rule, ByValue):
        raise ParseError(f"PCR {pcr} is pinned by value: no event takes another one’s place there.")
    if old not in rule.accepted:
        raise ParseError(f"PCR {pcr}: {old.hex()[:16]}… is not accepted, so nothing can take its place.")
    if new in rule.accepted - rule.placed:
        return allow_absence(rule, (old,))
    places = tuple(place | {new} if old in place else place for place in rule.required)
    return ByEvents(_bounded(pcr, chain(rule.accepted, (new,))), places)


def allow_absence(rule: Rule, digests: Iterable[bytes]) -> Rule:
    """Return a rule in which the places of these events need not be taken; their events stay accepted, anywhere."""
    if isinstance(rule, ByValue):
        return rule
    gone, left = set(digests), rule.required
    while dropped := [place for place in left if not gone.isdisjoint(place)]:
        gone.update(*dropped)  # an event that has two places has none from now on
        left = tuple(place for place in left if gone.isdisjoint(place))
    return replace(rule, required=left)


def _few(pcr: int, values: Iterable[bytes]) -> ByValue:
    few = frozenset(values)
    if len(few) > MOST_VALUES:
        raise ParseError(f"PCR {pcr} would have more than {MOST_VALUES} values; pin it by events.")
    return ByValue(few)


def _bounded(pcr: int, digests: Iterable[bytes]) -> frozenset[bytes]:
    accepted = frozenset(digests)
    if len(accepted) > MOST_EVENTS:
        raise ParseError(f"PCR {pcr} would have more than {MOST_EVENTS} accepted events.")
    return accepted


# --- as they are stored ------------------------------------------------------------------------------------------


def rules_to_json(rules: Mapping[int, Rule]) -> dict[str, Any]:
    """Return rules as JSON: {"7": {"values": ["<hex>"]}, "4": {"accepted": ["<hex>"], "required": [["<hex>"]]}}."""
    return {str(pcr): _to_json(rule) for pcr, rule in sorted(rules.items())}


def _to_json(rule: Rule) -> dict[str, Any]:
    if isinstance(rule, ByValue):
        return {"values": sorted(value.hex() for value in rule.values)}
    return {
        "accepted": sorted(digest.hex() for digest in rule.accepted),
        "required": [sorted(digest.hex() for digest in place) for place in rule.required],
    }


def rules_from_json(stored: Mapping[str, Any]) -> dict[int, Rule]:
    """Read what `rules_to_json` wrote."""
    return {int(pcr): _from_json(rule) for pcr, rule in stored.items()}


def _from_json(rule: Mapping[str, Any]) -> Rule:
    if "values" in rule:
        return ByValue(frozenset(map(bytes.fromhex, rule["values"])))
    places = (frozenset(map(bytes.fromhex, place)) for place in rule["required"])
    return ByEvents(frozenset(map(bytes.fromhex, rule["accepted"])), tuple(places))
