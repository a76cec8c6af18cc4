"""Holds verified PCR values against the approved baselines and says, cause by cause, what differs.

The verdict rests on PCR values, and on the digests of the events that they vouch for; what those events say only
explains it: that turns "PCR 8 differs" into the words that were added to the kernel command line.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final, NamedTuple

from attestation.core.difference import Difference, Same, change_in_words, changed_arguments, difference
from attestation.core.finding import Deviation, Finding
from attestation.core.reference import ByEvents, ByValue, ReferenceValues, Rule, meets
from attestation.core.replay import VerifiedEvent
from attestation.core.words import COMMAND_LINE, FILE_READ, GRUB_COMMAND, LOAD_OPTIONS, secure_boot

_CHECK: Final = "baseline"
_SHOWN_ROWS: Final = 3
KEPT_DEVIATIONS: Final = 40
_SHOWN_TEXT: Final = 160
_CAPTURE: Final = "capture a baseline from this attestation and have it approved"


class Area(NamedTuple):
    """What a PCR stands for (PFP, "PCR Usage"), the HGS word for trouble there, and how to end it."""

    name: str
    substatus: str
    remedy: str


_FIRMWARE: Final = f"Restore the approved firmware and its settings; if the change was planned, {_CAPTURE}."
_PROGRAMS: Final = f"Start the approved boot programs; if they were updated on purpose, {_CAPTURE}."
_LOADER: Final = f"Restore the boot loader's configuration and start again; if the change was planned, {_CAPTURE}."
_KEYS: Final = f"Restore the Secure Boot keys in the firmware set-up; if the change was planned, {_CAPTURE}."
_PLAIN: Final = f"Find out who changed it; if the change was planned, {_CAPTURE}."

AREAS: Final[Mapping[int, Area]] = {
    0: Area("the firmware", "SecureBootSettings", _FIRMWARE),
    1: Area("the firmware's settings", "SecureBootSettings", _FIRMWARE),
    2: Area("the option ROMs", "SecureBootSettings", _FIRMWARE),
    3: Area("the option ROMs' settings", "SecureBootSettings", _FIRMWARE),
    4: Area("the boot programs", "CodeIntegrityPolicy", _PROGRAMS),
    5: Area("the partition table or the boot sequence", "NoInformation", _PLAIN),
    6: Area("the platform maker's measurements", "NoInformation", _PLAIN),
    7: Area("the Secure Boot keys and settings", "SecureBootSettings", _KEYS),
    8: Area("the boot loader's commands", "CodeIntegrityPolicy", _LOADER),
    9: Area("the files that the boot loader read", "CodeIntegrityPolicy", _LOADER),
    14: Area("the machine owner keys", "SecureBootSettings", _KEYS),
}
_OTHER_AREA: Final = Area("a PCR without a fixed meaning", "NoInformation", _PLAIN)


@dataclass(frozen=True, slots=True)
class Held:
    """The findings, and the baseline they are about: the one that matches, else the nearest, else None."""

    findings: tuple[Finding, ...]
    baseline: ReferenceValues | None


def hold(
    pcrs: Mapping[int, bytes], events: Sequence[VerifiedEvent], baselines: Iterable[ReferenceValues], *, now: datetime
) -> Held:
    """Find the baseline that every pinned PCR meets; else report what differs from the nearest one, all of it.

    A host that booted what is accepted at another time is told so, and from or until when. Baselines are never mixed:
    firmware of one and boot loader of another is a state that nobody approved. A PCR that is pinned and not quoted
    never passes, and a baseline that pins nothing approves nothing.
    """
    given = tuple(baselines)
    pinned = [baseline for baseline in given if baseline.pcrs and baseline.counts_at(now)]
    by_pcr: dict[int, list[VerifiedEvent]] = {}
    for event in events:
        by_pcr.setdefault(event.pcr, []).append(event)
    compared = [(baseline, _differing(pcrs, by_pcr, baseline)) for baseline in pinned]
    nearest, differing = min(compared, key=lambda choice: len(choice[1]), default=(None, []))
    if nearest is not None and not differing:
        return Held((), nearest)
    untimely = _untimely(pcrs, by_pcr, given, now)
    if untimely is not None:
        return Held((_not_in_time(untimely, now),), untimely)
    if nearest is None:
        return Held((_none_to_hold_against(given),), None)
    return Held(tuple(_findings(pcrs, events, nearest, differing)), nearest)


def _untimely(
    pcrs: Mapping[int, bytes],
    by_pcr: Mapping[int, Sequence[VerifiedEvent]],
    given: Sequence[ReferenceValues],
    now: datetime,
) -> ReferenceValues | None:
    """The baseline that would match, did it count now; of several the one whose time is nearest."""
    outside = [baseline for baseline in given if baseline.pcrs and not baseline.counts_at(now)]
    matching = [baseline for baseline in outside if not _differing(pcrs, by_pcr, baseline)]
    return min(matching, key=lambda baseline: _away(baseline, now), default=None)


def _away(baseline: ReferenceValues, now: datetime) -> timedelta:
    moments = (baseline.accepted_from, baseline.accepted_until)
    return min(abs(moment - now) for moment in moments if moment is not None)


def _none_to_hold_against(given: Sequence[ReferenceValues]) -> Finding:
    if not given:
        return _EMPTY_POLICY
    return _EMPTY_BASELINE if any(not baseline.pcrs for baseline in given) else _NONE_IN_TIME


def _differing(
    pcrs: Mapping[int, bytes], by_pcr: Mapping[int, Sequence[VerifiedEvent]], baseline: ReferenceValues
) -> list[int]:
    return [pcr for pcr, rule in sorted(baseline.pcrs.items()) if not meets(rule, pcrs.get(pcr), by_pcr.get(pcr, ()))]


def _telling(
    rows: Iterable[Difference | Same], events: Sequence[VerifiedEvent], baseline: ReferenceValues
) -> list[Difference]:
    """The rows that speak against the baseline: in PCRs pinned by events, what it accepts anyway does not."""
    measured = {(event.pcr, event.digest) for event in events}
    return [row for row in rows if isinstance(row, Difference) and _tells(row, baseline.pcrs[row.pcr], measured)]


def _tells(row: Difference, rule: Rule, measured: Collection[tuple[int, bytes]]) -> bool:
    if isinstance(rule, ByValue):
        return True
    if row.measured is not None:
        return row.measured.digest not in rule.accepted
    places = [place for place in rule.required if row.expected is not None and row.expected.digest in place]
    return any(all((row.pcr, digest) not in measured for digest in place) for place in places)


def _findings(
    pcrs: Mapping[int, bytes], events: Sequence[VerifiedEvent], baseline: ReferenceValues, differing: list[int]
) -> list[Finding]:
    """One finding per cause. A cause takes its rows; the PCRs whose rows are left over are reported one by one."""
    absent = [pcr for pcr in differing if pcr not in pcrs]
    changed = [pcr for pcr in differing if pcr in pcrs]
    rows = _telling(difference(baseline.events, events, changed), events, baseline)
    explained = {row.pcr for row in rows}
    findings = [_absent(absent, baseline)] if absent else []
    if 7 in changed and secure_boot(events) is False and secure_boot(baseline.events) is not False:
        findings.append(_secure_boot_off(baseline, [row for row in rows if row.pcr == 7]))
        explained.add(7)
        rows = [row for row in rows if row.pcr != 7]
    command_line = _command_line_rows(rows)
    if command_line:
        findings.append(_command_line(command_line, baseline))
        taken = {id(row) for row in command_line}
        rows = [row for row in rows if id(row) not in taken]
    for pcr in changed:
        left = [row for row in rows if row.pcr == pcr]
        if left or pcr not in explained:
            findings.append(_mismatch(pcr, left, baseline, pcrs[pcr]))
    return findings


def _absent(absent: Sequence[int], baseline: ReferenceValues) -> Finding:
    return Finding(
        code="pcr_missing",
        substatus="TcgLogVerification",
        what=f"{_pcrs(absent)} {'is' if len(absent) == 1 else 'are'} not in the quote.",
        why=f"The baseline {baseline.name} asks for a value there, and what was not quoted is not proved.",
        remedy="Attest again with an agent that quotes every PCR the challenge names.",
        pcrs=tuple(absent),
        check=_CHECK,
    )


def _secure_boot_off(baseline: ReferenceValues, rows: Sequence[Difference]) -> Finding:
    others = len(rows) - 1
    why = f"The baseline {baseline.name} was approved with Secure Boot on; without it the firmware starts any program."
    if others > 0:
        why += f" {_count(others, 'further event comes', 'further events come')} with it (PCR 7)."
    return Finding(
        code="secure_boot_off",
        substatus="SecureBoot",
        what="Secure Boot is off.",
        why=why,
        remedy="Switch Secure Boot on in the firmware set-up with the approved keys, then start the host again.",
        pcrs=(7,),
        check=_CHECK,
        deviations=_deviations(rows),
    )


def _command_line_rows(rows: Sequence[Difference]) -> list[Difference]:
    """The rows that one changed command line makes, the telling one first.

    GRUB measures the same line as a command and as the kernel's, and the file it is written in; the kernel's EFI stub
    measures it again as load options. A GRUB command belongs here only when it changed by exactly the same words.
    """
    lines = [row for row in rows if row.words.name == COMMAND_LINE]
    loaded = [row for row in rows if row.words.name == LOAD_OPTIONS]
    if not lines:
        return loaded
    changes = {_arguments(row) for row in lines if row.kind == "changed"}
    follow = [
        row
        for row in rows
        if row.kind == "changed"
        and (
            (row.words.name == GRUB_COMMAND and _arguments(row) in changes)
            or (row.words.name == FILE_READ and row.words.text.endswith(".cfg"))
        )
    ]
    return lines + follow + loaded


def _arguments(row: Difference) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if row.expected is None or row.measured is None:
        return (), ()
    return changed_arguments(row.expected.words.text, row.measured.words.text)


def _command_line(rows: Sequence[Difference], baseline: ReferenceValues) -> Finding:
    first, *others = rows
    pcrs = tuple(sorted({row.pcr for row in rows}))
    sides = [side for side in (first.expected, first.measured) if side is not None]
    shown = first.words.name == COMMAND_LINE and all(side.words.proved for side in sides)
    if shown and first.expected and first.measured:
        change = change_in_words(first.expected.words.text, first.measured.words.text)
        what = f"The kernel command line differs: {change}."
        why = f"The baseline {baseline.name} has “{_short(first.expected.words.text)}” (PCR {first.pcr})."
    elif shown:
        what = f"The kernel command line “{_short(first.words.text)}” {_VERBS[first.kind]}."
        why = f"The baseline {baseline.name} differs there (PCR {first.pcr})."
    else:
        what = "The kernel command line differs."
        why = f"The baseline {baseline.name} has another digest in PCR {first.pcr}; the log does not prove the text."
    if others:
        why += f" {_follow_on(others)}"
    remedy = f"Restore the approved command line and start the host again; if it was meant, {_CAPTURE}."
    return Finding(
        "kernel_command_line",
        "CodeIntegrityPolicy",
        what,
        why,
        remedy,
        pcrs,
        check=_CHECK,
        deviations=_deviations(rows),
    )


def _deviations(rows: Iterable[Difference]) -> tuple[Deviation, ...]:
    """What differs, for those who compare hosts with one another; of endless rows the first."""
    return tuple(
        Deviation(
            pcr=row.pcr,
            name=row.words.name,
            text=_short(row.words.text),
            proved=row.words.proved,
            expected=row.expected.digest.hex() if row.expected else "",
            seen=row.measured.digest.hex() if row.measured else "",
        )
        for row in islice(rows, KEPT_DEVIATIONS)
    )


def _follow_on(rows: Sequence[Difference]) -> str:
    names = list(dict.fromkeys(_subject(row) for row in rows))[:_SHOWN_ROWS]
    count = _count(len(rows), "further event comes", "further events come")
    return f"{count} with it: {'; '.join(names)} ({_pcrs(sorted({row.pcr for row in rows}))})."


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _mismatch(pcr: int, rows: Sequence[Difference], baseline: ReferenceValues, value: bytes) -> Finding:
    area = AREAS.get(pcr, _OTHER_AREA)
    times = Counter(_told(row) for row in rows)
    told = [text if count == 1 else f"{text} ({count} times)" for text, count in times.items()]
    if len(told) > _SHOWN_ROWS:
        told[_SHOWN_ROWS:] = [_count(len(told) - _SHOWN_ROWS, "more differs", "more differ")]
    if not told:
        told = [_untold(baseline.pcrs[pcr], value)]
    holds = "other events" if isinstance(baseline.pcrs[pcr], ByEvents) else "another value"
    why = f"The baseline {baseline.name} has {holds} in PCR {pcr}."
    if not all(side.words.proved for row in rows for side in (row.expected, row.measured) if side):
        why += " The digests are proved; what the log calls them is not."
    what = f"PCR {pcr}, {area.name}, is not as approved: {'; '.join(told)}."
    return Finding(
        "pcr_mismatch", area.substatus, what, why, area.remedy, (pcr,), check=_CHECK, deviations=_deviations(rows)
    )


def _untold(rule: Rule, value: bytes) -> str:
    """What can be said of a PCR whose events explain nothing."""
    if isinstance(rule, ByEvents):
        return "what was measured is accepted, but not in this order, or something is there twice or not at all"
    wanted = sorted(rule.values)[0]
    return f"the value begins {value[:4].hex()} instead of {wanted[:4].hex()}"


_VERBS: Final = {"changed": "was changed", "added": "was added", "missing": "is missing"}


def _told(row: Difference) -> str:
    if row.expected and row.measured and row.expected.words.text != row.measured.words.text:
        was, now = _short(row.expected.words.text), _short(row.measured.words.text)
        return f"{row.words.name} is “{now}” instead of “{was}”"
    return f"{_subject(row)} {_VERBS[row.kind]}"


def _subject(row: Difference) -> str:
    return f"{row.words.name} “{_short(row.words.text)}”"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 1] + "…"


def _pcrs(pcrs: Iterable[int]) -> str:
    numbers = [str(pcr) for pcr in pcrs]
    if len(numbers) == 1:
        return f"PCR {numbers[0]}"
    return f"PCRs {', '.join(numbers[:-1])} and {numbers[-1]}"


def _not_in_time(baseline: ReferenceValues, now: datetime) -> Finding:
    begins, ends = baseline.accepted_from, baseline.accepted_until
    if begins is not None and now < begins:
        what = f"This host booted the baseline {baseline.name} before its time."
        why = f"It is accepted from {begins.astimezone(UTC):%Y-%m-%d %H:%M} UTC on."
        remedy = "Wait for that moment, or boot what is accepted until then."
    else:
        what = f"This host booted the baseline {baseline.name}, whose time is over."
        until = "a moment that is past" if ends is None else f"{ends.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        why = f"It was accepted until {until}."
        remedy = "Boot what is accepted now; if this is to stay, have a policy approved that accepts it longer."
    pcrs = tuple(sorted(baseline.pcrs))
    return Finding("baseline_not_in_time", "NoInformation", what, why, remedy, pcrs, check=_CHECK)


_EMPTY_POLICY: Final = Finding(
    code="policy_empty",
    substatus="NoInformation",
    what="No baseline is approved, so nothing is trusted.",
    why="A host passes only when it booted what somebody approved.",
    remedy="Capture a baseline from a host that you trust and have it approved.",
    check=_CHECK,
)
_NONE_IN_TIME: Final = Finding(
    code="baseline_not_in_time",
    substatus="NoInformation",
    what="No baseline counts at this time, so nothing is trusted.",
    why="Every baseline of the policy is accepted from a later moment, or was accepted until an earlier one.",
    remedy="Have a policy approved whose baselines count now.",
    check=_CHECK,
)
_EMPTY_BASELINE: Final = Finding(
    code="baseline_empty",
    substatus="NoInformation",
    what="The approved baselines name no PCR, so nothing is trusted.",
    why="A baseline without values would match every host.",
    remedy="Capture a baseline from a host that you trust and have it approved.",
    check=_CHECK,
)
