"""What PCRs may hold: by value or by events, captured from boots, amended without taking anything away."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.reference import (
    BY_EVENTS,
    MOST_EVENTS,
    MOST_VALUES,
    ByEvents,
    ByValue,
    ReferenceValues,
    Rule,
    accept_instead,
    accept_more,
    allow_absence,
    by_value,
    capture,
    fits,
    meets,
    rules_from_json,
    rules_to_json,
)
from attestation.core.replay import VerifiedEvent
from attestation.errors import ParseError
from tests.boot_logs import boot

PCR = 4
VALUE = b"\5" * 32
NOW = datetime(2026, 11, 25, tzinfo=UTC)
BOOTED, REBOOTED, DRIFTED = boot("secureboot-on"), boot("secureboot-on-reboot"), boot("cmdline-drift")


def digest(letter: str) -> bytes:
    return letter.encode().ljust(32, b"\0")


def measured(letters: str, *, pcr: int = PCR) -> list[VerifiedEvent]:
    """One event for each letter."""
    return [VerifiedEvent(index, pcr, 0xD, digest(letter), None) for index, letter in enumerate(letters)]


def captured(*runs: str) -> ByEvents:
    rule = capture([({PCR: VALUE}, measured(run)) for run in runs], pcrs=[PCR], by_events=[PCR])[PCR]
    assert isinstance(rule, ByEvents)
    return rule


def met(rule: Rule, letters: str) -> bool:
    return meets(rule, VALUE, measured(letters))


# --- by value ----------------------------------------------------------------------------------------------------


def test_by_value_one_of_several_values_is_met() -> None:
    rule = ByValue(frozenset((VALUE, bytes(32))))
    assert meets(rule, VALUE, ())
    assert meets(rule, bytes(32), ())


@pytest.mark.parametrize("value", [b"\6" * 32, VALUE[:31], VALUE + b"\0", b"", None])
def test_by_value_any_other_value_is_refused(value: bytes | None) -> None:
    assert not meets(ByValue(frozenset((VALUE,))), value, measured("a"))


def test_by_value_no_value_is_met_by_nothing() -> None:
    assert not meets(ByValue(frozenset()), VALUE, ())
    assert by_value({PCR: VALUE}) == {PCR: ByValue(frozenset((VALUE,)))}


# --- by events ---------------------------------------------------------------------------------------------------


def test_by_events_the_boot_that_was_captured_is_met() -> None:
    assert met(captured("abc"), "abc")


@pytest.mark.parametrize(
    "letters",
    [
        pytest.param("", id="nothing measured"),
        pytest.param("acb", id="reordered"),
        pytest.param("ab", id="the last one dropped"),
        pytest.param("bc", id="the first one dropped"),
        pytest.param("abxc", id="a foreign event"),
        pytest.param("abcx", id="a foreign event at the end"),
        pytest.param("abcc", id="one repeated"),
        pytest.param("abcabc", id="all repeated"),
        pytest.param("x", id="another boot"),
    ],
)
def test_by_events_any_other_boot_is_refused(letters: str) -> None:
    assert not met(captured("abc"), letters)


def test_by_events_a_pcr_that_was_not_quoted_is_refused() -> None:
    assert not meets(captured("abc"), None, measured("abc"))


def test_by_events_without_any_event_nothing_is_met() -> None:
    assert not met(ByEvents(frozenset(), ()), "")
    assert not met(ByEvents(frozenset(), ()), "a")


# --- captured from several ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "accepted", "refused"),
    [
        pytest.param(("abc", "abc"), ("abc",), ("abcc", "ab"), id="the same boot twice"),
        pytest.param(("akc", "auc"), ("akc", "auc"), ("ac", "akuc", "aukc", "kc", "ckua"), id="two kernels, one place"),
        pytest.param(("akic", "aujc"), ("akic", "aujc", "akjc"), ("aikc", "akuc", "akc"), id="two places side by side"),
        pytest.param(("ac", "aoc"), ("ac", "aoc", "oac", "aooc"), ("a", "o", "axc"), id="one event more"),
        pytest.param(("ak", "an", "am"), ("ak", "am"), ("a", "akn"), id="three boots"),
        pytest.param(("k", "n"), ("k", "n"), ("kn", ""), id="nothing in common"),
        pytest.param(("aab", "ab"), ("aab", "ab", "b"), ("", "a"), id="another number of times"),
    ],
)
def test_a_rule_of_several_boots_accepts_each_and_little_else(
    runs: tuple[str, ...], accepted: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    rule = captured(*runs)
    assert all(met(rule, each) for each in (*runs, *accepted))
    assert [each for each in refused if met(rule, each)] == []


@pytest.mark.parametrize("runs", [("abc", "acb"), ("axb", "bxa"), ("axby", "ayb")], ids=str)
def test_boots_in_too_different_an_order_make_no_rule(runs: tuple[str, str]) -> None:
    with pytest.raises(ParseError, match="too different an order"):
        captured(*runs)


@given(st.lists(st.text("abcd", min_size=1, max_size=8), min_size=1, max_size=4))
def test_a_rule_accepts_every_boot_that_it_is_made_of(runs: list[str]) -> None:
    try:
        rule = captured(*runs)
    except ParseError:
        return
    assert all(met(rule, run) for run in runs)
    assert not met(rule, runs[0] + "x")


def test_a_captured_boot_is_pinned_as_asked() -> None:
    rules = capture([(BOOTED.pinned, BOOTED.events)], pcrs=BOOTED.pinned, by_events=(8, 9))
    assert {pcr for pcr, rule in rules.items() if isinstance(rule, ByEvents)} == {8, 9}
    for each in (BOOTED, REBOOTED):
        assert all(meets(rule, each.pinned[pcr], of(each.events, pcr)) for pcr, rule in rules.items())
    failing = {pcr for pcr, rule in rules.items() if not meets(rule, DRIFTED.pinned[pcr], of(DRIFTED.events, pcr))}
    assert failing == {8, 9}


def of(events: Sequence[VerifiedEvent], pcr: int) -> list[VerifiedEvent]:
    return [event for event in events if event.pcr == pcr]


def test_two_command_lines_share_their_places() -> None:
    boots = [(each.pinned, each.events) for each in (BOOTED, DRIFTED)]
    rules = capture(boots, pcrs=BOOTED.pinned, by_events=(8, 9))
    for each in (BOOTED, DRIFTED):
        assert all(meets(rule, each.pinned[pcr], of(each.events, pcr)) for pcr, rule in rules.items())
    both = [*of(DRIFTED.events, 8), *of(BOOTED.events, 8)]
    assert not meets(rules[8], DRIFTED.pinned[8], both)


@pytest.mark.parametrize(
    ("boots", "by_events", "said"),
    [
        pytest.param([], [PCR], "at least one boot", id="no boot"),
        pytest.param([({PCR: VALUE}, measured("a"))], [7], "Only PCRs 4, 5, 8, 9, 11, 12", id="a PCR of keys"),
        pytest.param([({PCR: VALUE}, [])], [PCR], "no proved event", id="no event"),
        pytest.param([({PCR: VALUE}, measured("a")), ({PCR: VALUE}, [])], [PCR], "no proved event", id="one has none"),
        pytest.param([({PCR: VALUE}, measured("a")), ({}, measured("a"))], [], "not quoted by every host", id="absent"),
        pytest.param([({PCR: VALUE}, measured("a"))], [8], "PCR 8 was not quoted", id="by events, not quoted"),
    ],
)
def test_what_cannot_be_pinned_is_refused(
    boots: list[tuple[dict[int, bytes], list[VerifiedEvent]]], by_events: list[int], said: str
) -> None:
    with pytest.raises(ParseError, match=said):
        capture(boots, pcrs=[PCR], by_events=by_events)


@pytest.mark.parametrize("pcr", sorted(set(range(15)) - set(BY_EVENTS)))
def test_firmware_and_keys_are_never_pinned_by_events(pcr: int) -> None:
    with pytest.raises(ParseError):
        capture([({pcr: VALUE}, measured("a", pcr=pcr))], pcrs=[pcr], by_events=[pcr])


def test_rules_are_bounded() -> None:
    many = [number.to_bytes(32, "big") for number in range(MOST_EVENTS + 1)]
    events = [VerifiedEvent(number, PCR, 0xD, each, None) for number, each in enumerate(many)]
    with pytest.raises(ParseError, match=f"more than {MOST_EVENTS} accepted events"):
        capture([({PCR: VALUE}, events)], pcrs=[PCR], by_events=[PCR])
    with pytest.raises(ParseError, match=f"more than {MOST_EVENTS} accepted events"):
        accept_more(captured("abc"), PCR, many)
    with pytest.raises(ParseError, match=f"more than {MOST_VALUES} values"):
        accept_more(ByValue(frozenset((VALUE,))), PCR, many[:MOST_VALUES])
    with pytest.raises(ParseError, match=f"more than {MOST_VALUES} values"):
        capture([({PCR: each}, ()) for each in many[: MOST_VALUES + 1]], pcrs=[PCR], by_events=[])
    repeated = [({PCR: VALUE}, [VerifiedEvent(0, PCR, 0xD, VALUE, None)] * (MOST_EVENTS + 1))]
    with pytest.raises(ParseError):
        capture(repeated, pcrs=[PCR], by_events=[PCR])


# --- amended -----------------------------------------------------------------------------------------------------


def test_a_new_kernel_takes_the_old_ones_place() -> None:
    rule = accept_instead(captured("akc"), PCR, digest("k"), digest("u"))
    assert met(rule, "akc")
    assert met(rule, "auc")
    for forged in ("ac", "akuc", "uac", "akcu", "akucu"):
        assert not met(rule, forged)


def test_an_event_more_may_be_there_or_not() -> None:
    rule = accept_more(captured("abc"), PCR, [digest("o")])
    assert all(met(rule, each) for each in ("abc", "aobc", "abco"))
    assert not any(met(rule, each) for each in ("o", "abo", "abcx"))


def test_an_absence_is_allowed_and_its_event_stays_accepted() -> None:
    rule = allow_absence(captured("abc"), [digest("b")])
    assert all(met(rule, each) for each in ("abc", "ac"))
    assert not any(met(rule, each) for each in ("a", "b", "ca"))


def test_another_value_is_accepted_beside_the_first() -> None:
    rule = accept_more(ByValue(frozenset((VALUE,))), PCR, [bytes(32)])
    assert meets(rule, VALUE, ())
    assert meets(rule, bytes(32), ())
    assert allow_absence(rule, [VALUE]) == rule


@pytest.mark.parametrize(
    ("rule", "said"),
    [(ByValue(frozenset((VALUE,))), "pinned by value"), (captured("abc"), "nothing can take its place")],
    ids=["by value", "an event that is not accepted"],
)
def test_nothing_takes_the_place_of_what_has_none(rule: Rule, said: str) -> None:
    with pytest.raises(ParseError, match=said):
        accept_instead(rule, PCR, digest("z"), digest("u"))


LETTERS = st.sampled_from("abcde")
ACTS: list[Callable[[Rule, str, str], Rule]] = [
    lambda rule, one, other: accept_more(rule, PCR, [digest(one)]),
    lambda rule, one, other: allow_absence(rule, [digest(one)]),
    lambda rule, one, other: accept_instead(rule, PCR, digest(one), digest(other)),
]


@given(
    st.text("abc", min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from(ACTS), LETTERS, LETTERS), max_size=5),
    st.lists(st.text("abcde", max_size=7), max_size=20),
)
def test_an_amended_rule_refuses_nothing_that_was_accepted(
    run: str, acts: list[tuple[Callable[[Rule, str, str], Rule], str, str]], others: list[str]
) -> None:
    rule: Rule = captured(run)
    for act, one, other in acts:
        before = [each for each in (run, *others) if met(rule, each)]
        try:
            rule = act(rule, one, other)
        except ParseError:
            continue
        assert all(met(rule, each) for each in before)
        assert not met(rule, run + "x")


# --- as they are stored, and their time --------------------------------------------------------------------------


def test_stored_rules_are_read_back_as_they_were() -> None:
    amended = accept_more(accept_instead(captured("akca"), PCR, digest("k"), digest("u")), PCR, [digest("o")])
    rules: dict[int, Rule] = {7: ByValue(frozenset((VALUE, bytes(32)))), PCR: amended, 14: ByValue(frozenset())}
    stored = rules_to_json(rules)
    assert rules_from_json(stored) == rules
    assert list(stored) == ["4", "7", "14"]
    assert stored["4"]["required"][1] == sorted([digest("k").hex(), digest("u").hex()])


@given(st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=3))
def test_stored_rules_decide_as_the_first_did(runs: list[str]) -> None:
    try:
        rule = captured(*runs)
    except ParseError:
        return
    again = rules_from_json(rules_to_json({PCR: rule}))[PCR]
    assert isinstance(again, ByEvents)
    assert all(fits(again, [digest(letter) for letter in run]) for run in runs)


@pytest.mark.parametrize(
    ("begins", "ends", "counts"),
    [
        (None, None, True),
        (timedelta(0), None, True),
        (timedelta(seconds=1), None, False),
        (None, timedelta(seconds=1), True),
        (None, timedelta(0), False),
        (timedelta(hours=-1), timedelta(hours=1), True),
    ],
)
def test_reference_values_count_from_their_first_moment_up_to_their_last(
    begins: timedelta | None, ends: timedelta | None, counts: bool
) -> None:
    values = ReferenceValues(
        "1",
        "trixie",
        "sha256",
        {},
        (),
        accepted_from=None if begins is None else NOW + begins,
        accepted_until=None if ends is None else NOW + ends,
    )
    assert values.counts_at(NOW) is counts
