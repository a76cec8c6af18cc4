"""Amendments: what a baseline is to accept more, as a person writes it down or as a boot that differs needs it.

A baseline that is amended accepts whatever it accepted before. What else it accepts is said digest by digest, so that
the person who decides can read it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from attestation.core.difference import Difference, difference
from attestation.core.reference import (
    ByEvents,
    ByValue,
    ReferenceValues,
    Rule,
    accept_instead,
    accept_more,
    allow_absence,
    meets,
)
from attestation.core.replay import VerifiedEvent
from attestation.errors import ParseError


@dataclass(frozen=True, slots=True)
class Amendment:
    """What one PCR's rule is to accept more.

    `accept` are values of a PCR pinned by value, or events that may be there or not; `instead` are events in the place
    of others, the old one first; `absent` are events that need not be there any more.
    """

    accept: tuple[bytes, ...] = ()
    instead: tuple[tuple[bytes, bytes], ...] = ()
    absent: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.accept or self.instead or self.absent)

    def digests(self) -> Iterable[bytes]:
        yield from self.accept
        yield from self.absent
        for pair in self.instead:
            yield from pair


Amendments = Mapping[int, Amendment]


def amended(rules: Mapping[int, Rule], amendments: Amendments, *, size: int) -> dict[int, Rule]:
    """Return rules that accept what these do, and the amendments. `size` is that of a digest of the bank.

    Raises ParseError for what the rules do not pin, for digests of another size, and for what would change nothing.
    """
    changed = dict(rules)
    for pcr, amendment in sorted(amendments.items()):
        if pcr not in rules:
            raise ParseError(f"The baseline does not pin PCR {pcr}.")
        if any(len(digest) != size for digest in amendment.digests()):
            raise ParseError(f"PCR {pcr}: a digest of this bank has {2 * size} hexadecimal digits.")
        changed[pcr] = _amended(rules[pcr], pcr, amendment)
    if changed == rules:
        raise ParseError("The baseline accepts all of this already.")
    return changed


def _amended(rule: Rule, pcr: int, amendment: Amendment) -> Rule:
    for old, new in amendment.instead:
        rule = accept_instead(rule, pcr, old, new)
    if isinstance(rule, ByEvents) and not rule.accepted.issuperset(amendment.absent):
        raise ParseError(f"PCR {pcr}: what may be absent is no event that the baseline accepts.")
    if isinstance(rule, ByValue) and amendment.absent:
        raise ParseError(f"PCR {pcr} is pinned by value: no event of it can be left out.")
    return allow_absence(accept_more(rule, pcr, amendment.accept), amendment.absent)


def needed(
    baseline: ReferenceValues, pcrs: Mapping[int, bytes], events: Sequence[VerifiedEvent]
) -> dict[int, Amendment]:
    """Return the amendments that let a baseline accept this boot, PCR by PCR; none for a boot that it accepts.

    Raises ParseError for a boot that no amendment can take in: a PCR that was not quoted, events in another order.
    """
    found = {}
    for pcr, rule in sorted(baseline.pcrs.items()):
        here = [event for event in events if event.pcr == pcr]
        if meets(rule, pcrs.get(pcr), here):
            continue
        if pcr not in pcrs:
            raise ParseError(f"PCR {pcr} was not quoted, so nothing can be accepted for it.")
        amendment = Amendment(accept=(pcrs[pcr],)) if isinstance(rule, ByValue) else _of_events(baseline, rule, here)
        if not meets(_amended(rule, pcr, amendment), pcrs[pcr], here):
            raise ParseError(
                f"PCR {pcr}: this boot has the events in another order than the baseline; capture a baseline from it."
            )
        found[pcr] = amendment
    return found


def _of_events(baseline: ReferenceValues, rule: ByEvents, measured: Sequence[VerifiedEvent]) -> Amendment:
    """What was changed takes the old event's place, what was added may be there, what is missing may be absent."""
    seen = {event.digest for event in measured}
    instead, accept, absent = [], [], []
    pcrs = {event.pcr for event in measured}
    for row in difference(baseline.events, measured, pcrs):
        if not isinstance(row, Difference):
            continue
        old = row.expected.digest if row.expected else None
        new = row.measured.digest if row.measured else None
        fresh = new is not None and new not in rule.accepted
        lacking = old is not None and any(old in place and place.isdisjoint(seen) for place in rule.required)
        if old is not None and new is not None and fresh and lacking:
            instead.append((old, new))
            continue
        if new is not None and fresh:
            accept.append(new)
        if old is not None and lacking:
            absent.append(old)
    unique = tuple(dict.fromkeys(accept))
    return Amendment(unique, tuple(dict.fromkeys(instead)), tuple(dict.fromkeys(absent)))
