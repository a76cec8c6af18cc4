"""A leaf is the same bytes wherever it was read back from."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from ledger.core.leaf import Act, canonical, leaf_hash

ACT = Act(
    at=datetime(2026, 11, 23, 12, 0, 0, 5, tzinfo=UTC),
    actor="user:ada",
    act="host.approved",
    subject="host:1",
    detail={"name": "nürnberg", "n": 1},
    salt="5a" * 16,
)


def test_the_bytes_of_a_leaf_are_fixed() -> None:
    assert (
        canonical(ACT)
        == (
            '{"act":"host.approved","actor":"user:ada","at":"2026-11-23T12:00:00.000005+00:00",'
            '"detail":{"n":1,"name":"nürnberg"},"salt":"5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a","subject":"host:1"}'
        ).encode()
    )


def test_the_time_zone_a_database_answers_in_does_not_matter() -> None:
    elsewhere = replace(ACT, at=ACT.at.astimezone(timezone(timedelta(hours=5))))
    assert leaf_hash(elsewhere) == leaf_hash(ACT)


def test_the_order_of_details_does_not_matter() -> None:
    assert leaf_hash(replace(ACT, detail={"n": 1, "name": "nürnberg"})) == leaf_hash(ACT)


@pytest.mark.parametrize(
    "other",
    [
        replace(ACT, actor="user:eve"),
        replace(ACT, act="host.rejected"),
        replace(ACT, subject="host:2"),
        replace(ACT, detail={"name": "nürnberg", "n": 2}),
        replace(ACT, at=ACT.at + timedelta(microseconds=1)),
        replace(ACT, salt="5b" * 16),
    ],
    ids=["actor", "act", "subject", "detail", "time", "salt"],
)
def test_any_change_gives_another_hash(other: Act) -> None:
    assert leaf_hash(other) != leaf_hash(ACT)


def test_a_number_that_is_none_cannot_be_recorded() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical(replace(ACT, detail={"n": float("nan")}))


def test_a_leaf_from_before_there_were_salts_hashes_as_it_did() -> None:
    assert b"salt" not in canonical(replace(ACT, salt=""))


@pytest.mark.parametrize(
    "detail", [{}, {"owner": 7}, {"owner": None}, {"owner": "Ada"}], ids=["none", "number", "null", "a name"]
)
def test_an_act_that_names_no_owner_concerns_none(detail: dict[str, object]) -> None:
    assert replace(ACT, detail=detail).owner == ""
    assert replace(ACT, detail={"owner": "ab" * 32}).owner == "ab" * 32
