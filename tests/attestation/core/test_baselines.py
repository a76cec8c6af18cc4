"""Only a whole approved baseline matches; anything else says in words what differs and what to do."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from attestation.core.baselines import Held, hold
from attestation.core.finding import Finding
from attestation.core.reference import ByEvents, ReferenceValues, accept_instead, allow_absence, by_value, capture
from attestation.core.replay import VerifiedEvent
from tests.boot_logs import Boot, boot

SUBSTATUS = {
    "BitLocker",
    "CodeIntegrityPolicy",
    "DebugMode",
    "DumpsEnabled",
    "DumpEncryption",
    "DumpEncryptionKey",
    "FullBoot",
    "HibernationEnabled",
    "HypervisorEnforcedCodeIntegrityPolicy",
    "Iommu",
    "NoInformation",
    "PagefileEncryption",
    "SecureBoot",
    "SecureBootSettings",
    "TcgLogVerification",
    "VirtualSecureMode",
}
APPROVED = boot("secureboot-on")
NOW = datetime(2026, 11, 25, tzinfo=UTC)


def baseline(captured: Boot, *, number: str = "1") -> ReferenceValues:
    return ReferenceValues(number, "trixie v7", "sha256", by_value(captured.pinned), captured.events)


def appraised(measured: Boot, *approved: Boot) -> Held:
    baselines = [baseline(each, number=str(number)) for number, each in enumerate(approved)]
    return hold(measured.pinned, measured.events, baselines, now=NOW)


def only(result: Held) -> Finding:
    assert len(result.findings) == 1
    return result.findings[0]


def test_a_boot_that_matches_a_whole_baseline_is_found() -> None:
    result = appraised(boot("secureboot-on-reboot"), boot("uki"), APPROVED)
    assert (result.findings, result.baseline and result.baseline.id) == ((), "1")


def test_an_empty_policy_trusts_nothing() -> None:
    result = appraised(APPROVED)
    assert (only(result).code, result.baseline) == ("policy_empty", None)
    assert only(result).what == "No baseline is approved, so nothing is trusted."


def test_a_baseline_that_pins_nothing_approves_nothing() -> None:
    hollow = replace(baseline(APPROVED), pcrs={})
    result = hold(APPROVED.pinned, APPROVED.events, [hollow], now=NOW)
    assert only(result).code == "baseline_empty"


def test_a_drifted_command_line_is_one_finding_that_names_it() -> None:
    result = appraised(boot("cmdline-drift"), APPROVED)
    finding = only(result)
    assert (finding.code, finding.substatus, finding.pcrs) == ("kernel_command_line", "CodeIntegrityPolicy", (8, 9))
    assert finding.what == "The kernel command line differs: init_on_alloc=0 and drift=1 were added."
    assert "PCR 8" in finding.why
    assert "2 further events come with it" in finding.why
    assert "grub.cfg" in finding.why
    assert finding.remedy


def test_a_command_line_whose_text_is_not_proved_is_not_quoted() -> None:
    findings = {finding.code: finding for finding in appraised(boot("uki-cmdline-drift"), boot("uki")).findings}
    assert set(findings) == {"kernel_command_line", "pcr_mismatch"}
    assert "does not prove the text" in findings["kernel_command_line"].why
    assert "BOOTX64.EFI" in findings["pcr_mismatch"].what


def test_a_forged_command_line_is_not_repeated_as_fact() -> None:
    drift = boot("cmdline-drift")
    forged = tuple(
        replace(event, data=None, untrusted_data=b"kernel_cmdline: all is well\0")
        if event.untrusted_data.startswith(b"kernel_cmdline")
        else event
        for event in drift.events
    )
    result = hold(drift.pinned, forged, [baseline(APPROVED)], now=NOW)
    assert result.findings
    assert not any("all is well" in finding.what for finding in result.findings)


def test_secure_boot_off_is_said_first_and_plainly() -> None:
    first, *others = appraised(boot("secureboot-off"), APPROVED).findings
    assert (first.code, first.substatus, first.pcrs, first.what) == (
        "secure_boot_off",
        "SecureBoot",
        (7,),
        "Secure Boot is off.",
    )
    assert [finding.pcrs for finding in others] == [(0,), (4,)]


def test_the_nearest_baseline_is_the_one_compared_with() -> None:
    result = appraised(boot("cmdline-drift"), boot("uki"), boot("secureboot-off"), APPROVED)
    assert result.baseline is not None
    assert result.baseline.id == "2"


@pytest.mark.parametrize("pcr", sorted(APPROVED.pinned))
def test_a_pinned_pcr_that_was_not_quoted_never_passes(pcr: int) -> None:
    quoted = {number: value for number, value in APPROVED.pinned.items() if number != pcr}
    finding = only(hold(quoted, APPROVED.events, [baseline(APPROVED)], now=NOW))
    assert (finding.code, finding.pcrs) == ("pcr_missing", (pcr,))


def test_nothing_quoted_never_passes() -> None:
    finding = only(hold({}, (), [baseline(APPROVED)], now=NOW))
    assert finding.pcrs == tuple(APPROVED.pinned)


@pytest.mark.parametrize("pcr", sorted(APPROVED.pinned))
def test_a_changed_value_is_found_even_when_the_events_say_nothing(pcr: int) -> None:
    quoted = {**APPROVED.pinned, pcr: b"\7" * 32}
    for events in (APPROVED.events, ()):
        result = hold(quoted, events, [baseline(APPROVED)], now=NOW)
        assert any(pcr in finding.pcrs for finding in result.findings)


def test_parts_of_two_baselines_do_not_make_one() -> None:
    other = boot("cmdline-drift")
    mixed = {**APPROVED.pinned, 8: other.pinned[8]}
    assert hold(mixed, APPROVED.events, [baseline(APPROVED), baseline(other)], now=NOW).findings


@pytest.mark.parametrize("name", ["cmdline-drift", "secureboot-off", "uki", "uki-cmdline-drift"])
def test_every_differing_pcr_is_in_a_finding_of_three_sentences(name: str) -> None:
    measured = boot(name)
    findings = appraised(measured, APPROVED).findings
    differing = {pcr for pcr, value in APPROVED.pinned.items() if measured.pinned[pcr] != value}
    assert {pcr for finding in findings for pcr in finding.pcrs} == differing
    for finding in findings:
        assert all(part.endswith(".") for part in (finding.what, finding.why, finding.remedy))
        assert finding.substatus in SUBSTATUS


def test_unproved_names_are_called_unproved() -> None:
    findings = appraised(boot("uki"), APPROVED).findings
    programs = next(finding for finding in findings if finding.pcrs == (4,))
    assert "what the log calls them is not" in programs.why


@pytest.mark.parametrize(("begins", "ends"), [(timedelta(hours=1), None), (None, timedelta(0)), (None, -timedelta(1))])
def test_a_baseline_outside_its_time_accepts_nobody(begins: timedelta | None, ends: timedelta | None) -> None:
    announced = replace(
        baseline(APPROVED),
        accepted_from=None if begins is None else NOW + begins,
        accepted_until=None if ends is None else NOW + ends,
    )
    assert only(hold(APPROVED.pinned, APPROVED.events, [announced], now=NOW)).code == "baseline_not_in_time"


def test_a_host_that_is_too_early_is_told_when_its_boot_counts() -> None:
    announced = replace(baseline(boot("cmdline-drift")), name="trixie v8", accepted_from=NOW + timedelta(hours=1))
    result = hold(boot("cmdline-drift").pinned, (), [baseline(APPROVED), announced], now=NOW)
    finding = only(result)
    assert (finding.code, result.baseline) == ("baseline_not_in_time", announced)
    assert finding.what == "This host booted the baseline trixie v8 before its time."
    assert finding.why == "It is accepted from 2026-11-25 01:00 UTC on."


def test_a_host_that_is_too_late_is_told_since_when() -> None:
    ended = replace(baseline(APPROVED), accepted_until=NOW - timedelta(days=1))
    later = replace(ended, id="2", accepted_until=NOW - timedelta(hours=1))
    result = hold(APPROVED.pinned, (), [baseline(boot("uki")), ended, later], now=NOW)
    assert only(result).why == "It was accepted until 2026-11-24 23:00 UTC."
    assert result.baseline == later


def test_a_baseline_within_its_time_accepts() -> None:
    announced = replace(baseline(APPROVED), accepted_from=NOW, accepted_until=NOW + timedelta(hours=1))
    assert hold(APPROVED.pinned, APPROVED.events, [announced], now=NOW).findings == ()


# --- PCRs that are pinned by events ------------------------------------------------------------------------------


def by_events(captured: Boot, *pcrs: int) -> ReferenceValues:
    rules = capture([(captured.pinned, captured.events)], pcrs=captured.pinned, by_events=pcrs)
    return replace(baseline(captured), pcrs=rules)


def test_by_events_another_boot_of_the_same_system_matches() -> None:
    again = boot("secureboot-on-reboot")
    assert hold(again.pinned, again.events, [by_events(APPROVED, 4, 5, 8, 9)], now=NOW).findings == ()


def test_by_events_a_drifted_command_line_is_named_with_both_digests() -> None:
    drift = boot("cmdline-drift")
    finding = only(hold(drift.pinned, drift.events, [by_events(APPROVED, 4, 8, 9)], now=NOW))
    assert (finding.code, finding.pcrs) == ("kernel_command_line", (8, 9))
    assert finding.what == "The kernel command line differs: init_on_alloc=0 and drift=1 were added."
    for each in finding.deviations:
        measured = {event.digest.hex() for event in drift.events if event.pcr == each.pcr}
        approved = {event.digest.hex() for event in APPROVED.events if event.pcr == each.pcr}
        assert each.seen in measured - approved
        assert each.expected in approved - measured


def test_by_events_what_was_accepted_since_is_no_deviation() -> None:
    """The kernel was updated and accepted; the command line was changed and not accepted: only that is told."""
    drift = boot("cmdline-drift")
    values = by_events(APPROVED, 8, 9)
    told = only(hold(drift.pinned, drift.events, [values], now=NOW)).deviations
    rules = dict(values.pcrs)
    for each in told:
        if each.pcr == 9:
            rules[9] = accept_instead(rules[9], 9, bytes.fromhex(each.expected), bytes.fromhex(each.seen))
    finding = only(hold(drift.pinned, drift.events, [replace(values, pcrs=rules)], now=NOW))
    assert (finding.code, finding.pcrs) == ("kernel_command_line", (8,))
    assert {each.pcr for each in finding.deviations} == {8}


def test_by_events_all_of_a_change_accepted_in_its_places_matches() -> None:
    drift = boot("cmdline-drift")
    values = by_events(APPROVED, 8, 9)
    rules = dict(values.pcrs)
    for each in only(hold(drift.pinned, drift.events, [values], now=NOW)).deviations:
        expected, seen = bytes.fromhex(each.expected), bytes.fromhex(each.seen)
        rules[each.pcr] = accept_instead(rules[each.pcr], each.pcr, expected, seen)
    amended = replace(values, pcrs=rules)
    assert hold(drift.pinned, drift.events, [amended], now=NOW).findings == ()
    assert hold(APPROVED.pinned, APPROVED.events, [amended], now=NOW).findings == ()


def without(events: tuple[VerifiedEvent, ...], gone: VerifiedEvent) -> tuple[VerifiedEvent, ...]:
    return tuple(event for event in events if event.index != gone.index)


@pytest.mark.parametrize("place", range(3))
def test_by_events_a_missing_event_is_named(place: int) -> None:
    gone = [event for event in APPROVED.events if event.pcr == 9][place]
    finding = only(hold(APPROVED.pinned, without(APPROVED.events, gone), [by_events(APPROVED, 9)], now=NOW))
    assert (finding.code, finding.pcrs, finding.substatus) == ("pcr_mismatch", (9,), "CodeIntegrityPolicy")
    assert "is missing" in finding.what
    assert "has other events in PCR 9" in finding.why
    assert [(each.expected, each.seen) for each in finding.deviations] == [(gone.digest.hex(), "")]
    permitted = by_events(APPROVED, 9)
    rules = {**permitted.pcrs, 9: allow_absence(permitted.pcrs[9], [gone.digest])}
    held = hold(APPROVED.pinned, without(APPROVED.events, gone), [replace(permitted, pcrs=rules)], now=NOW)
    assert held.findings == ()


@pytest.mark.parametrize("twice", [True, False], ids=["twice", "in another order"])
def test_by_events_accepted_events_in_a_wrong_way_are_refused(twice: bool) -> None:
    files = [event for event in APPROVED.events if event.pcr == 9]
    others = tuple(event for event in APPROVED.events if event.pcr != 9)
    events = (*others, *files, files[0]) if twice else (*others, *reversed(files))
    finding = only(hold(APPROVED.pinned, events, [by_events(APPROVED, 9)], now=NOW))
    assert (finding.code, finding.pcrs) == ("pcr_mismatch", (9,))


def test_by_events_a_pcr_without_events_is_refused() -> None:
    events = tuple(event for event in APPROVED.events if event.pcr != 9)
    finding = only(hold(APPROVED.pinned, events, [by_events(APPROVED, 9)], now=NOW))
    assert finding.pcrs == (9,)
    rule = by_events(APPROVED, 9).pcrs[9]
    assert isinstance(rule, ByEvents)
    assert len(finding.deviations) == len(rule.required)


def test_by_events_a_pcr_that_was_not_quoted_is_missing() -> None:
    quoted = {pcr: value for pcr, value in APPROVED.pinned.items() if pcr != 9}
    finding = only(hold(quoted, APPROVED.events, [by_events(APPROVED, 9)], now=NOW))
    assert (finding.code, finding.pcrs) == ("pcr_missing", (9,))
