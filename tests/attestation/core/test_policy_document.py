"""Policy documents: written one way, read whole or refused."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from attestation.core.document import BaselineEntry, PolicyDocument, changes_in_words, parse_document, to_json
from attestation.core.policy import PolicyException
from attestation.errors import ParseError

NOON_IN_BERLIN = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
DOCUMENT = PolicyDocument(
    baselines=(BaselineEntry("a", NOON_IN_BERLIN, NOON_IN_BERLIN + timedelta(days=3)), BaselineEntry("b")),
    exceptions=(
        PolicyException("secure_boot", NOON_IN_BERLIN, "ada", "The board is replaced.", frozenset({"h2", "h1"})),
        PolicyException("baseline", NOON_IN_BERLIN, "ada", "New firmware.", pcrs=frozenset({0, 2}), accepts_fail=True),
    ),
    runtime="r",
    code_policies=("c",),
)


def test_a_document_is_read_back_as_it_was_written() -> None:
    assert parse_document(to_json(DOCUMENT)) == DOCUMENT


def test_moments_are_written_in_utc_whatever_zone_they_were_said_in() -> None:
    written = to_json(DOCUMENT)
    assert written["exceptions"][0]["until"] == "2026-07-01T10:00:00+00:00"
    assert written["baselines"][0]["from"] == "2026-07-01T10:00:00+00:00"
    assert written == to_json(parse_document(written))
    assert parse_document(written).exceptions[0].until == datetime(2026, 7, 1, 10, tzinfo=UTC)


def test_sentences_say_moments_in_utc_whatever_zone_they_were_said_in() -> None:
    """12:00 in Berlin is 10:00 UTC, and whoever reads `12:00 UTC` would trust a host two hours too long."""
    added = changes_in_words(PolicyDocument(), DOCUMENT, str.upper)
    assert "Baseline A is accepted from 2026-07-01 10:00 UTC until 2026-07-04 10:00 UTC." in added
    assert sum("until 2026-07-01 10:00 UTC; ada answers for it." in each for each in added) == 2
    moved = PolicyDocument(baselines=(BaselineEntry("a"),))
    assert "until 2026-07-04 10:00 UTC" in " ".join(changes_in_words(moved, DOCUMENT, str.upper))
    assert not any("12:00" in each for each in added)


@pytest.mark.parametrize(
    "change",
    [
        {"unknown": 1},
        {"required": ["no_such_check"]},
        {"required": "secure_boot"},
        {"baselines": [{"id": ""}]},
        {"baselines": [{"id": "a", "until": "2026-07-01T10:00:00"}]},
        {"baselines": [{"id": "a", "from": "2026-07-02T00:00:00Z", "until": "2026-07-01T00:00:00Z"}]},
        {"baselines": [{"id": "a", "from": 3}]},
        {"baselines": [{"id": "a", "from": "0001-01-01T00:00:00+14:00"}]},
        {"exceptions": [{"check": "secure_boot", "owner": "ada", "reason": "why"}]},
        {"exceptions": [{"check": "baseline", "until": "2026-07-01T00:00:00Z", "owner": "ada", "reason": "why"}]},
        {"exceptions": [{"check": "secure_boot", "until": "2026-07-01T00:00:00Z", "owner": "", "reason": "why"}]},
        {"parameters": {"least_dbx_entries": True}},
        {"parameters": {"dump_keys": ["ABC"]}},
        {"runtime": 7},
    ],
)
def test_a_document_that_cannot_be_read_is_refused_whole(change: dict[str, Any]) -> None:
    with pytest.raises(ParseError):
        parse_document(to_json(DOCUMENT) | change)
