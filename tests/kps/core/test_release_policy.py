"""Release policies: what the owner asks for is asked of every release, and nothing that is not understood is signed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kps import errors
from kps.core.release_policy import (
    NO_POLICY,
    Circumstances,
    Offline,
    ReleasePolicy,
    in_words,
    parse_policy,
    refusals,
)

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
SECOND = int(NOON.timestamp())
HERE = Circumstances(group="payroll", mode="tpm", at=NOON, others=0, approved=False)
FULL: dict[str, Any] = {
    "host_groups": ["payroll", "reserve"],
    "minimum_mode": "hostkey",
    "not_before": SECOND,
    "not_after": SECOND + 3600,
    "hours": "22:00-14:00",
    "simultaneous_hosts": 2,
    "approval": "key",
    "offline": {"starts": 3, "hours": 48},
    "successors": True,
}


def test_a_policy_survives_its_own_document() -> None:
    policy = parse_policy(FULL)
    assert policy.document == FULL
    assert policy.offline == Offline(3, 48)
    assert parse_policy({}) == NO_POLICY
    assert NO_POLICY.document == {}


def codes(policy: ReleasePolicy, here: Circumstances) -> list[str]:
    return [refusal.code for refusal in refusals(policy, here)]


def test_without_a_policy_nothing_speaks_against_a_release() -> None:
    assert codes(NO_POLICY, HERE) == []
    assert codes(parse_policy(FULL), replace(HERE, approved=True)) == []


REFUSED = [
    ({"host_groups": ["reserve"]}, {}, "host_group_not_allowed"),
    ({"host_groups": ["pay"]}, {}, "host_group_not_allowed"),
    ({"minimum_mode": "tpm"}, {"mode": "hostkey"}, "mode_too_weak"),
    ({"minimum_mode": "tpm"}, {"mode": "kerberos"}, "mode_too_weak"),
    ({"minimum_mode": "hostkey"}, {"mode": "kerberos"}, "mode_too_weak"),
    ({"minimum_mode": "kerberos"}, {"mode": "a word of tomorrow"}, "mode_too_weak"),
    ({"not_before": SECOND + 1}, {}, "release_too_early"),
    ({"not_after": SECOND - 1}, {}, "release_too_late"),
    ({"hours": "12:01-12:00"}, {}, "outside_hours"),
    ({"hours": "08:00-12:00"}, {}, "outside_hours"),
    ({"hours": "22:00-04:00"}, {}, "outside_hours"),
    ({"simultaneous_hosts": 1}, {"others": 1}, "too_many_hosts"),
    ({"simultaneous_hosts": 2}, {"others": 3}, "too_many_hosts"),
    ({"approval": "portal"}, {}, "approval_required"),
    ({"approval": "key"}, {}, "approval_required"),
]


@pytest.mark.parametrize(("policy", "here", "code"), REFUSED)
def test_each_member_refuses_what_it_is_about(policy: dict[str, Any], here: dict[str, Any], code: str) -> None:
    found = refusals(parse_policy(policy), replace(HERE, **here))
    assert [each.code for each in found] == [code]
    assert len(str(found[0])) > 40


ALLOWED = [
    ({"host_groups": ["reserve", "payroll"]}, {}),
    ({"minimum_mode": "tpm"}, {}),
    ({"minimum_mode": "kerberos"}, {"mode": "hostkey"}),
    ({"not_before": SECOND, "not_after": SECOND + 1}, {}),
    ({"not_after": SECOND}, {}),
    ({"hours": "12:00-12:01"}, {}),
    ({"hours": "22:00-12:01"}, {}),
    ({"hours": "22:00-04:00"}, {"at": NOON + timedelta(hours=12)}),
    ({"simultaneous_hosts": 1}, {}),
    ({"simultaneous_hosts": 3}, {"others": 2}),
    ({"approval": "key"}, {"approved": True}),
    ({"offline": {"starts": 1, "hours": 1}}, {}),
    ({"successors": True}, {}),
]


@pytest.mark.parametrize(("policy", "here"), ALLOWED)
def test_each_member_allows_what_it_is_about(policy: dict[str, Any], here: dict[str, Any]) -> None:
    assert codes(parse_policy(policy), replace(HERE, **here)) == []


def test_hours_are_read_in_utc_wherever_the_clock_is() -> None:
    from zoneinfo import ZoneInfo

    policy = parse_policy({"hours": "12:00-12:01"})
    assert codes(policy, replace(HERE, at=NOON.astimezone(ZoneInfo("Asia/Tokyo")))) == []


def test_everything_that_is_wrong_is_said_at_once_and_no_approval_is_asked_for_in_vain() -> None:
    here = replace(HERE, group="else", mode="kerberos", others=2, at=NOON + timedelta(hours=3))
    assert codes(parse_policy(FULL), here) == [
        "host_group_not_allowed",
        "mode_too_weak",
        "release_too_late",
        "outside_hours",
        "too_many_hosts",
    ]


@pytest.mark.parametrize("approval", ["portal", "key"])
def test_an_approval_does_not_lift_the_rest_of_the_policy(approval: str) -> None:
    policy = parse_policy({"approval": approval, "host_groups": ["reserve"]})
    assert codes(policy, replace(HERE, approved=True)) == ["host_group_not_allowed"]


MALFORMED: list[object] = [
    None,
    [],
    "tpm",
    {"moon": "full"},
    {"host_groups": []},
    {"host_groups": "payroll"},
    {"host_groups": [1]},
    {"host_groups": ["a", "a"]},
    {"host_groups": ["a b"]},
    {"host_groups": ["x" * 41]},
    {"host_groups": [str(number) for number in range(33)]},
    {"host_groups": None},
    {"minimum_mode": "TPM"},
    {"minimum_mode": ["tpm"]},
    {"minimum_mode": None},
    {"not_before": 0},
    {"not_before": -1},
    {"not_before": True},
    {"not_after": 2**60},
    {"not_after": "2026-11-26"},
    {"not_before": SECOND, "not_after": SECOND},
    {"not_before": SECOND + 1, "not_after": SECOND},
    {"hours": "24:00-01:00"},
    {"hours": "8:00-9:00"},
    {"hours": "08:00-08:00"},
    {"hours": "08:00-09:00\n"},
    {"hours": "٠٨:00-09:00"},
    {"hours": 8},
    {"simultaneous_hosts": 0},
    {"simultaneous_hosts": 1001},
    {"simultaneous_hosts": True},
    {"approval": "me"},
    {"approval": False},
    {"offline": {}},
    {"offline": {"starts": 0, "hours": 1}},
    {"offline": {"starts": 1, "hours": 0}},
    {"offline": {"starts": 101, "hours": 1}},
    {"offline": {"starts": 1, "hours": 745}},
    {"offline": {"starts": 1, "hours": 1, "x": 1}},
    {"offline": 3},
    {"successors": False},
    {"successors": 1},
]


@pytest.mark.parametrize("value", MALFORMED, ids=str)
def test_a_policy_that_is_not_understood_whole_is_not_read(value: object) -> None:
    with pytest.raises(errors.MalformedDocument):
        parse_policy(value)


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=12) | st.sampled_from(["tpm", "key", "08:00-09:00"])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["starts", "hours"]), inner)
)


@given(st.dictionaries(st.sampled_from(sorted(FULL)), VALUES, max_size=4))
def test_whatever_is_read_gives_a_policy_that_can_be_said_and_applied(value: dict[str, object]) -> None:
    try:
        policy = parse_policy(value)
    except errors.MalformedDocument:
        return
    assert policy.document == value
    assert in_words(policy)
    refusals(policy, HERE)


def test_a_policy_is_said_in_words() -> None:
    assert in_words(NO_POLICY) == ("Any healthy host of these fabrics may start it, at any time.",)
    assert len(in_words(parse_policy(FULL))) == len(FULL)
