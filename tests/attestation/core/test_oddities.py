"""What is odd about a log is named with a stable code; an honest log of an honest firmware is not."""

import hashlib
import time
from collections.abc import Sequence
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.core.eventlog import EVENT_LOG_LIMIT
from attestation.core.inspection import LogReport, inspect_log
from attestation.core.uefi import IMAGE_SECURITY
from attestation.errors import ParseError
from tests.attestation.core.test_sipa import sipa
from tests.attestation.core.test_uefi import variable
from tests.boot_logs import CAPTURES, SHA1, SHA256, boot, no_action, record, records_of, sha1_record, spec_id

REAL = boot("secureboot-on").log
HEAD, RECORDS = records_of(REAL)
SEPARATORS = b"".join(record(pcr, 4, bytes(4)) for pcr in range(8))
PROGRAM = record(4, 0x80000003, bytes(32), digest=bytes(range(32)))
EXIT = record(5, 0x80000007, b"Exit Boot Services Invocation")
BOOTED = SEPARATORS + PROGRAM + EXIT
ZERO = hashlib.sha256(bytes(4)).digest()


def report(data: bytes) -> LogReport:
    return inspect_log(data, measured=None)


def codes(*records: bytes) -> list[str]:
    return [oddity.code for oddity in report(spec_id() + b"".join(records)).oddities]


@pytest.mark.parametrize("folder", sorted(folder.name for folder in CAPTURES.iterdir()))
def test_nothing_is_odd_about_an_honest_log(folder: str) -> None:
    assert report(boot(folder).log).oddities == ()


def test_a_complete_boot_is_not_odd() -> None:
    assert codes(BOOTED) == []


ODD = {
    "separator_missing": (SEPARATORS[:-54], PROGRAM, EXIT),
    "separator_duplicate": (BOOTED, record(7, 4, bytes(4))),
    "separator_payload": (BOOTED, record(7, 4, b"\7\7\7\7")),
    "separator_error": (BOOTED, record(4, 4, b"\1\0\0\0")),
    "type_spoofed": (SEPARATORS[:108], record(2, 0x80000008, bytes(4)), SEPARATORS[162:], PROGRAM, EXIT),
    "type_unknown": (BOOTED, record(0, 0x40E, b"x")),
    "type_ignored": (BOOTED, record(7, 2, b"x")),
    "data_mismatch": (BOOTED, record(7, 0x80000001, variable("PK", b""), digest=bytes(32))),
    "note_unknown": (no_action(variable("SecureBoot", b"\1")), BOOTED),
    "note_in_pcr": (no_action(b"SP800-155 Event3", pcr=7), BOOTED),
    "variable_late": (BOOTED, record(7, 0x80000001, variable("db", b"", guid=IMAGE_SECURITY.bytes_le))),
    "secure_boot_malformed": (record(7, 0x80000001, variable("SecureBoot", b"")), BOOTED),
    "signature_list_malformed": (record(7, 0x80000001, variable("PK", b"\1" * 40)), BOOTED),
    "windows_malformed": (BOOTED, record(12, 6, b"\1"), record(12, 4, b"WBCL")),
    "windows_late": (BOOTED, record(12, 4, b"WBCL"), record(12, 6, sipa(1, b""))),
    "windows_unfinished": (BOOTED, record(12, 6, sipa(1, b""))),
    "boot_program_missing": (SEPARATORS,),
    "exit_boot_services_missing": (SEPARATORS, PROGRAM),
}


@pytest.mark.parametrize(("code", "records"), ODD.items(), ids=ODD)
def test_an_odd_log_is_named(code: str, records: Sequence[bytes]) -> None:
    found = codes(*records)
    assert code in found
    assert set(found) <= {code, "windows_unfinished"}


def test_a_variable_with_two_values_is_named() -> None:
    two = [record(7, 0x80000001, variable("SecureBoot", value)) for value in (b"\1", b"\0")]
    assert codes(*two, BOOTED) == ["variable_conflict"]


@pytest.mark.parametrize(
    "data", [variable("SecureBoot", b"\1"), b"Exit Boot Services Returned with Success", b"Calling EFI Application"]
)
def test_a_true_event_under_a_false_type_is_named(data: bytes) -> None:
    assert "type_spoofed" in codes(record(7, 0xA, data), BOOTED)


def test_a_separator_behind_forged_data_is_named() -> None:
    found = codes(BOOTED, record(7, 2, b"x", digest=ZERO))
    assert sorted(found) == ["separator_duplicate", "type_ignored", "type_spoofed"]


def test_a_boot_variable_hashed_without_its_name_is_not_odd() -> None:
    value = b"\1\0\0\0"
    data = variable("BootOrder", value)
    assert codes(record(1, 0x80000002, data, digest=hashlib.sha256(value).digest()), BOOTED) == []
    assert codes(record(1, 0x80000002, data, digest=bytes(32)), BOOTED) == ["data_mismatch"]


def test_a_driver_accepted_before_the_hand_over_is_not_a_second_db() -> None:
    db = record(7, 0x80000001, variable("db", b"", guid=IMAGE_SECURITY.bytes_le))
    accepted = record(7, 0x800000E0, variable("db", bytes(48), guid=IMAGE_SECURITY.bytes_le))
    assert codes(db, accepted, BOOTED) == []


def register(number: int, kind: int, data: bytes) -> bytes:
    """A record of a TDX guest's log, whose registers are SHA-384."""
    digest = hashlib.sha384(data).digest()
    return pack("<IIIH48sI", number, kind, 1, 0xC, digest, len(data)) + data


@pytest.mark.parametrize(("number", "most"), [(1, 2), (2, 5)])
def test_a_confidential_guests_registers_have_the_separators_of_their_pcrs(number: int, most: int) -> None:
    """RTMR 0 stands for PCRs 1 and 7, RTMR 1 for PCRs 2 to 6; of more separators all but these were put there."""

    def found(separators: int) -> list[str]:
        log = spec_id([(0xC, 48)]) + register(number, 4, bytes(4)) * separators
        return [oddity.code for oddity in report(log).oddities]

    assert found(most) == []
    assert found(most + 2) == ["separator_duplicate"] * 2


def test_a_confidential_guests_register_of_programs_has_no_separator() -> None:
    log = spec_id([(0xC, 48)]) + register(1, 4, bytes(4)) + register(3, 4, bytes(4))
    assert [oddity.code for oddity in report(log).oddities] == ["separator_duplicate"]


@pytest.mark.parametrize("data", [b"", b"Startup", b"StartupLocality", b"SP800-155", b"Spec ID"])
def test_a_note_shorter_than_what_it_is_compared_with_is_read(data: bytes) -> None:
    assert set(codes(no_action(data), BOOTED)) <= {"note_unknown"}


def test_windows_trust_point_is_a_known_note() -> None:
    assert codes(BOOTED, no_action(sipa(0x80080003, b"k"), pcr=0xFFFFFFFF)) == []
    assert codes(BOOTED, no_action(b"\1\2\3", pcr=0xFFFFFFFF)) == ["note_unknown"]


def test_a_bank_that_a_record_lacks_has_no_value_for_that_pcr() -> None:
    both = pack(
        "<IIIH20sH32sI", 7, 4, 2, 4, hashlib.sha1(bytes(4), usedforsecurity=False).digest(), 0xB, ZERO, 4
    ) + bytes(4)
    found = report(spec_id([SHA1, SHA256]) + both + record(12, 4, b"WBCL"))
    assert ("bank_incomplete", 1) in {(oddity.code, oddity.event) for oddity in found.oddities}
    assert {bank: sorted(values) for bank, values in found.banks.items()} == {"sha1": [7], "sha256": [7, 12]}


def test_a_digest_that_the_header_does_not_declare_is_named() -> None:
    foreign = pack("<IIIH48sI", 2, 0x800000E1, 1, 0xC, bytes(48), 0)
    found = report(spec_id() + BOOTED + foreign)
    assert {"bank_incomplete", "algorithm_undeclared"} <= {oddity.code for oddity in found.oddities}
    assert 2 not in found.banks["sha256"]


def test_a_log_of_no_known_bank_proves_nothing() -> None:
    found = report(spec_id([(0x99, 7)]) + pack("<IIIH7sI", 0, 4, 1, 0x99, b"unknown", 4) + bytes(4))
    assert [oddity.code for oddity in found.oddities] == ["bank_unreadable"]
    assert not any(found.facts.values())


@pytest.mark.parametrize("number", range(len(RECORDS)))
@pytest.mark.parametrize("kind", [0x2, 0xD, 0x80000007], ids=hex)
def test_facts_survive_any_spoofed_type(number: int, kind: int) -> None:
    spoofed = RECORDS[number][:4] + pack("<I", kind) + RECORDS[number][8:]
    honest = {name: fact and fact.value for name, fact in report(REAL).facts.items()}
    log = HEAD + b"".join([*RECORDS[:number], spoofed, *RECORDS[number + 1 :]])
    found = {name: fact and fact.value for name, fact in report(log).facts.items()}
    assert all(found[name] in (honest[name], None) for name in honest)


@pytest.mark.parametrize("number", range(len(RECORDS)))
def test_a_forged_text_makes_a_fact_unproven_and_never_false(number: int) -> None:
    size = int.from_bytes(RECORDS[number][46:50], "little")
    log = HEAD + b"".join([*RECORDS[:number], RECORDS[number][:50] + b"\x2f" * size, *RECORDS[number + 1 :]])
    honest = {name: fact and fact.value for name, fact in report(REAL).facts.items()}
    found = {name: fact and fact.value for name, fact in report(log).facts.items()}
    assert all(found[name] in (honest[name], None) for name in honest if name != "boot_authorities")


def test_a_log_cut_between_records_is_odd() -> None:
    cut = [number for number in range(1, len(RECORDS)) if not report(HEAD + b"".join(RECORDS[:number])).oddities]
    assert cut == [len(RECORDS) - 1]  # the last record only says that leaving the firmware succeeded


def test_an_old_log_is_read_as_well() -> None:
    found = report(sha1_record(0, 3, b"Spec ID Event00\0", digest=bytes(20)) + sha1_record(7, 4, bytes(4)))
    assert (found.log.format, found.records, found.bank) == ("sha1", 2, "sha1")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(no_action(b""), id="notes"),
        pytest.param(record(7, 4, bytes(4)), id="separators"),
        pytest.param(record(7, 0x80000001, variable("db", b"", guid=IMAGE_SECURITY.bytes_le)), id="variables"),
        pytest.param(record(12, 6, sipa(1, b"") * 30), id="Windows"),
        pytest.param(record(8, 0xD, b"/" * 200), id="lines"),
    ],
)
def test_the_time_for_a_log_grows_as_the_log(body: bytes) -> None:
    def seconds(size: int) -> float:
        data = spec_id() + body * (size // len(body))
        before = time.process_time()
        report(data)
        return time.process_time() - before

    quarter, whole = (
        min(seconds(size) for _ in range(3)) for size in (EVENT_LOG_LIMIT // 4 - 100, EVENT_LOG_LIMIT - 100)
    )
    assert whole < 4 * 4 * quarter + 0.2


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(REAL) - 1), st.binary(min_size=1, max_size=8), st.integers(0, 20))
def test_a_mutated_log_is_read_or_refused(at: int, change: bytes, drop: int) -> None:
    try:
        report(REAL[:at] + change + REAL[at + drop :])
    except ParseError:
        return
