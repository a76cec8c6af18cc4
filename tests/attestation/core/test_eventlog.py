"""Event logs are read strictly: forged, cut and oversized ones are refused with the byte where it shows."""

import json
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.core.eventlog import EVENT_LOG_LIMIT, EventLog, parse_event_log
from attestation.core.replay import replay_values
from attestation.errors import ParseError, TooLarge
from tests.boot_logs import CAPTURES, COLLECTION, SHA1, SHA256, boot, locality, no_action, record, sha1_record, spec_id

SEPARATOR = record(0, 4, bytes(4))
REAL = boot("secureboot-on").log

# What the collection's own notes call out: made by hand, or not what a TPM read.
ANOMALIES = {
    "google_go-attestation/ebs_event_missing_eventlog": "the firmware forgot two measurements in PCR 5",
}


def collected() -> list[dict[str, Any]]:
    index = COLLECTION / "index.json"
    entries = json.loads(index.read_text()) if index.exists() else []
    return [entry for entry in entries if entry["kind"] == "eventlog" and entry.get("expected_pcrs")]


@pytest.mark.parametrize("folder", sorted(CAPTURES.iterdir()), ids=lambda folder: folder.name)
def test_every_capture_is_read(folder: Path) -> None:
    log = parse_event_log((folder / "eventlog.bin").read_bytes())
    assert (log.format, log.banks, log.startup_locality) == ("crypto-agile", ("sha256",), 0)
    assert len(log.events) > 25


@pytest.mark.skipif(not collected(), reason="the collection of other people's logs is not on this machine")
def test_the_collection_replays_but_for_named_anomalies() -> None:
    wrong = set()
    for entry in collected():
        log = parse_event_log((COLLECTION / entry["file"]).read_bytes())
        for bank, expected in entry["expected_pcrs"].items():
            if entry["file"] in ANOMALIES:
                continue
            values = replay_values(log, bank)
            # PCRs that the log does not extend were extended by the running system, or not at all.
            wrong |= {
                (entry["file"], bank, pcr)
                for pcr, value in expected.items()
                if int(pcr) in values and values[int(pcr)].hex() != value.lower()
            }
    assert not wrong
    assert len(collected()) > 30


@pytest.mark.skipif(not collected(), reason="the collection of other people's logs is not on this machine")
@pytest.mark.parametrize("name", ["binary_bios_measurements-bogus", "binary_bios_measurements-empty"])
def test_the_collections_broken_logs_are_refused(name: str) -> None:
    with pytest.raises(ParseError):
        parse_event_log((COLLECTION / "keylime_keylime" / name).read_bytes())


def test_a_sha1_log_is_read() -> None:
    log = parse_event_log(sha1_record(0, 8, b"v1") + sha1_record(0, 4, bytes(4)))
    assert (log.format, log.banks, len(log.events)) == ("sha1", ("sha1",), 2)


def test_a_log_that_begins_with_another_note_is_a_sha1_log() -> None:
    log = parse_event_log(sha1_record(0, 3, b"StartupLocality\0\3", digest=bytes(20)))
    assert (log.format, log.startup_locality) == ("sha1", 3)


def test_an_unknown_algorithm_is_sized_by_the_header() -> None:
    both = pack("<IIIH32sH7sI", 0, 4, 2, 0xB, bytes(32), 0x99, b"unknown", 4) + bytes(4)
    log = parse_event_log(spec_id([SHA256, (0x99, 7)], vendor=b"maker") + both)
    assert log.banks == ("sha256", "alg_0099")
    assert log.events[0].digests["alg_0099"] == b"unknown"


def test_a_record_may_have_fewer_digests_than_the_header_declares() -> None:
    log = parse_event_log(spec_id([SHA1, SHA256]) + SEPARATOR)
    assert list(log.events[0].digests) == ["sha256"]


@pytest.mark.parametrize("value", [0, 3, 4])
def test_the_startup_locality_is_believed_before_pcr_0_is_extended(value: int) -> None:
    assert parse_event_log(spec_id() + locality(value) + SEPARATOR).startup_locality == value


def test_an_h_crtm_event_means_locality_4() -> None:
    log = parse_event_log(spec_id() + record(0, 0x80000010, b"HCRTM") + SEPARATOR)
    assert log.startup_locality == 4


def test_a_late_h_crtm_event_means_nothing() -> None:
    assert parse_event_log(spec_id() + SEPARATOR + record(0, 0x80000010, b"HCRTM")).startup_locality == 0


@pytest.mark.parametrize("padding", [bytes(1), bytes(11), bytes(5000), b"\xff" * 3, b"\xff" * 5000])
@pytest.mark.parametrize("body", [spec_id() + SEPARATOR, sha1_record(0, 4, bytes(4))], ids=["agile", "sha1"])
def test_a_padded_log_ends_where_the_padding_begins(body: bytes, padding: bytes) -> None:
    assert parse_event_log(body + padding).events == parse_event_log(body).events


def test_windows_notes_without_a_pcr_are_kept() -> None:
    log = parse_event_log(spec_id() + record(0xFFFFFFFF, 3, b"trust point"))
    assert log.events[0].pcr == 0xFFFFFFFF


FORGED = {
    "nothing at all": b"",
    "shorter than a record": bytes(31),
    "no algorithms": spec_id([]),
    "more algorithms than fit": spec_id(count=0xFFFFFFFF),
    "an algorithm twice": spec_id([SHA256, SHA256]),
    "a wrong size for SHA-256": spec_id([(0xB, 20)]),
    "an unknown algorithm without size": spec_id([(0x99, 0)]),
    "an unknown algorithm of absurd size": spec_id([(0x99, 0xFFFF)]),
    "vendor information beyond the header": spec_id()[:-1] + b"\x10" + SEPARATOR,
    "a header with a digest": sha1_record(0, 3, spec_id()[32:]),
    "a second header": spec_id() + no_action(b"Spec ID Event03\0"),
    "a PCR that no TPM has": spec_id() + record(24, 4, bytes(4)),
    "a PCR that would overflow a shift": spec_id() + record(1 << 31, 4, bytes(4)),
    "a measurement without a PCR": spec_id() + record(0xFFFFFFFF, 6, b"x"),
    "a measurement disguised as a note": spec_id() + no_action(b"x", digest=b"\1" * 32),
    "a huge digest count": spec_id() + pack("<III", 0, 4, 0xFFFFFFFF) + SEPARATOR,
    "no digest": spec_id() + pack("<III", 0, 4, 0) + SEPARATOR,
    "an undeclared algorithm": spec_id() + pack("<IIIH32sI", 0, 4, 1, 0xC, bytes(32), 0),
    "the same bank twice": spec_id([SHA1, SHA256]) + pack("<IIIH32sH32sI", 0, 4, 2, 0xB, bytes(32), 0xB, bytes(32), 0),
    "an event of four gibibytes": spec_id() + pack("<IIIH32sI", 0, 4, 1, 0xB, bytes(32), 0xFFFFFFFF) + bytes(9),
    "a SHA-1 event of four gibibytes": pack("<II20sI", 0, 4, bytes(20), 0xFFFFFFFF) + bytes(9),
    "something behind the padding": spec_id() + SEPARATOR + bytes(64) + SEPARATOR,
    "a few bytes behind the last record": spec_id() + SEPARATOR + b"abc",
    "a few bytes behind the last SHA-1 record": sha1_record(0, 4, bytes(4)) + b"abc",
    "something behind the SHA-1 padding": sha1_record(0, 4, bytes(4)) + bytes(64) + b"x",
    "a locality that does not exist": spec_id() + locality(5),
    "a locality outside PCR 0": spec_id() + locality(3, pcr=1),
    "a locality of two bytes": spec_id() + no_action(b"StartupLocality\0\3\0"),
    "a locality of no byte": spec_id() + no_action(b"StartupLocality\0"),
    "a locality after a measurement": spec_id() + SEPARATOR + locality(3),
    "two localities": spec_id() + locality(3) + locality(3),
}


@pytest.mark.parametrize("log", FORGED.values(), ids=FORGED)
def test_a_forged_log_is_refused_at_a_byte(log: bytes) -> None:
    with pytest.raises(ParseError, match=r"at byte \d+"):
        parse_event_log(log)


@pytest.mark.parametrize("cut", [1, 3, 40, 49])
def test_a_log_cut_inside_a_record_is_refused(cut: int) -> None:
    with pytest.raises(ParseError):
        parse_event_log(REAL[:-cut])


def test_a_log_above_the_limit_is_not_looked_at() -> None:
    with pytest.raises(TooLarge):
        parse_event_log(bytes(EVENT_LOG_LIMIT + 1))


def test_a_log_of_exactly_the_limit_is_read() -> None:
    body = spec_id() + SEPARATOR
    assert len(parse_event_log(body.ljust(EVENT_LOG_LIMIT, b"\xff")).events) == 1


def parsed(data: bytes) -> EventLog | None:
    try:
        return parse_event_log(data)
    except ParseError:
        return None


@given(st.binary(max_size=600))
def test_any_bytes_give_a_log_or_a_parse_error(data: bytes) -> None:
    parsed(data)
    parsed(spec_id([SHA1, SHA256]) + data)


@settings(max_examples=150)
@given(st.integers(0, len(REAL) - 1), st.binary(min_size=1, max_size=8), st.integers(0, 20))
def test_a_mutated_real_log_gives_a_log_or_a_parse_error(at: int, change: bytes, drop: int) -> None:
    parsed(REAL[:at] + change + REAL[at + drop :])
