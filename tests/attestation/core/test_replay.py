"""Replay walks the quote: what the TPM did not sign proves nothing, and what it signed must be accounted for."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.core.eventlog import EventLog, parse_event_log
from attestation.core.replay import LOG_PCRS, replay, replay_values
from attestation.errors import ParseError, ReplayMismatch
from tests.boot_logs import (
    CAPTURES,
    SHA1,
    SHA256,
    boot,
    locality,
    record,
    record_of_banks,
    records_of,
    sha1_record,
    spec_id,
)

BOOT = boot("secureboot-on")
HEAD, RECORDS = records_of(BOOT.log)


def extended(*digests: bytes, start: bytes = bytes(32)) -> bytes:
    for digest in digests:
        start = hashlib.sha256(start + digest).digest()
    return start


def test_the_log_accounts_for_what_firmware_and_loader_extend() -> None:
    assert sorted(LOG_PCRS) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14]


@pytest.mark.parametrize("folder", sorted(CAPTURES.iterdir()), ids=lambda folder: folder.name)
def test_every_capture_replays_to_its_tpm(folder: Path) -> None:
    captured = boot(folder.name)
    log = parse_event_log(captured.log)
    values = replay_values(log, "sha256")
    assert {pcr: values.get(pcr, bytes(32)) for pcr in LOG_PCRS} == {pcr: captured.pcrs[pcr] for pcr in LOG_PCRS}
    events = replay(log, quoted=captured.pcrs, bank="sha256")
    assert len(events) == len(log.events)


FORGERIES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "everything left out": lambda records: [],
    "the first measurement dropped": lambda records: records[1:],
    "the last measurement dropped": lambda records: records[:-1],
    "a measurement repeated": lambda records: [*records, records[-1]],
    "two measurements swapped": lambda records: [records[4], *records[1:4], records[0], *records[5:]],
    "every PCR 7 measurement dropped": lambda records: [each for each in records if each[:4] != b"\7\0\0\0"],
    "a measurement moved to another PCR": lambda records: [b"\6" + records[0][1:], *records[1:]],
    "a digest flipped": lambda records: [records[0][:20] + bytes(1) + records[0][21:], *records[1:]],
    "a measurement added to PCR 14": lambda records: [*records, record(14, 0xD, b"MokList\0")],
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_log_does_not_replay(forge: Callable[[list[bytes]], list[bytes]]) -> None:
    log = parse_event_log(HEAD + b"".join(forge(RECORDS)))
    with pytest.raises(ReplayMismatch, match=r"PCR \d+"):
        replay(log, quoted=BOOT.pcrs, bank="sha256")


@pytest.mark.parametrize("number", range(len(RECORDS)))
def test_no_measurement_can_be_turned_into_a_note(number: int) -> None:
    spoofed = RECORDS[number][:4] + b"\3\0\0\0" + RECORDS[number][8:]
    with pytest.raises(ParseError):
        parse_event_log(HEAD + b"".join([*RECORDS[:number], spoofed, *RECORDS[number + 1 :]]))


def test_a_note_without_digest_cannot_replace_a_measurement() -> None:
    note = RECORDS[3][:4] + b"\3\0\0\0" + RECORDS[3][8:14] + bytes(32) + RECORDS[3][46:]
    log = parse_event_log(HEAD + b"".join([*RECORDS[:3], note, *RECORDS[4:]]))
    with pytest.raises(ReplayMismatch, match="PCR 7"):
        replay(log, quoted=BOOT.pcrs, bank="sha256")


def test_a_spoofed_type_changes_no_digest_and_no_proved_byte() -> None:
    spoofed = RECORDS[3][:4] + b"\2\0\0\0" + RECORDS[3][8:]
    log = parse_event_log(HEAD + b"".join([*RECORDS[:3], spoofed, *RECORDS[4:]]))
    honest = replay(parse_event_log(BOOT.log), quoted=BOOT.pcrs, bank="sha256")
    forged = replay(log, quoted=BOOT.pcrs, bank="sha256")
    assert [(event.pcr, event.digest, event.data) for event in forged] == [
        (event.pcr, event.digest, event.data) for event in honest
    ]


def test_forged_data_is_not_called_proved() -> None:
    lie = RECORDS[3].replace("SecureBoot\x01".encode("utf-16-le")[:-1], "SecureBoot\x00".encode("utf-16-le")[:-1])
    assert lie != RECORDS[3]
    log = parse_event_log(HEAD + b"".join([*RECORDS[:3], lie, *RECORDS[4:]]))
    assert replay(log, quoted=BOOT.pcrs, bank="sha256")[3].data is None


def test_events_of_a_pcr_that_nobody_quoted_prove_nothing() -> None:
    quoted = {pcr: value for pcr, value in BOOT.pcrs.items() if pcr != 7}
    events = replay(parse_event_log(BOOT.log), quoted=quoted, bank="sha256")
    assert {event.pcr for event in events} == {0, 1, 2, 3, 4, 5, 6, 8, 9, 14}


@pytest.mark.parametrize("folder", ["uki", "uki-cmdline-drift"])
@pytest.mark.parametrize("word", [b"enter-initrd", b"anything"])
def test_what_systemd_measures_later_makes_pcr_11_unproved_and_is_no_refusal(folder: str, word: bytes) -> None:
    captured = boot(folder)
    log = parse_event_log(captured.log)
    moved = {**captured.pcrs, 11: extended(hashlib.sha256(word).digest(), start=captured.pcrs[11])}
    assert {event.pcr for event in replay(log, quoted=captured.pcrs, bank="sha256")} >= {9, 11}
    proved = replay(log, quoted=moved, bank="sha256")
    assert 11 not in {event.pcr for event in proved}
    assert len(proved) == sum(event.pcr != 11 for event in log.events)


@pytest.mark.parametrize("pcr", [10, 11, 12, 13, 15, 16, 23])
def test_a_pcr_that_moves_after_boot_neither_fails_nor_proves(pcr: int) -> None:
    log = parse_event_log(spec_id() + record(pcr, 0xD, b"section"))
    assert replay(log, quoted={pcr: b"\7" * 32}, bank="sha256") == ()
    assert len(replay(log, quoted={pcr: extended(hashlib.sha256(b"section").digest())}, bank="sha256")) == 1


def test_the_startup_locality_is_where_pcr_0_starts() -> None:
    digest = hashlib.sha256(b"v1").digest()
    log = parse_event_log(spec_id() + locality(3) + record(0, 8, b"v1"))
    quoted = {0: extended(digest, start=bytes(31) + b"\3")}
    assert [event.data for event in replay(log, quoted=quoted, bank="sha256")] == [b"v1"]
    with pytest.raises(ReplayMismatch, match="PCR 0"):
        replay(log, quoted={0: extended(digest)}, bank="sha256")


def both_banks(*records: bytes) -> EventLog:
    version = record_of_banks(0, 8, b"v")
    return parse_event_log(spec_id([SHA1, SHA256]) + version + b"".join(records))


WINDOWS = both_banks(
    record_of_banks(7, 4, bytes(4)),
    *(record_of_banks(pcr, 6, b"windows", ["sha256"]) for pcr in (11, 12, 13)),
)


def test_a_record_of_one_bank_spoils_its_pcr_in_the_other_and_nothing_else() -> None:
    sha1, sha256 = replay_values(WINDOWS, "sha1"), replay_values(WINDOWS, "sha256")
    assert (sorted(sha1), sorted(sha256)) == ([0, 7], [0, 7, 11, 12, 13])
    assert len(replay(WINDOWS, quoted=sha256, bank="sha256")) == 5
    events = replay(WINDOWS, quoted=sha1 | dict.fromkeys((11, 12, 13), bytes(20)), bank="sha1")
    assert [event.pcr for event in events] == [0, 7]


def test_a_record_without_the_bank_is_never_skipped() -> None:
    separator, extra = record_of_banks(7, 4, bytes(4)), record_of_banks(7, 5, b"more", ["sha256"])
    quoted = replay_values(both_banks(separator), "sha1")
    with pytest.raises(ReplayMismatch, match=r"PCR 7: record 3 of the event log has no sha1 digest"):
        replay(both_banks(separator, extra), quoted=quoted, bank="sha1")


@pytest.mark.parametrize("pcr", [pcr for pcr in sorted(LOG_PCRS) if pcr])
def test_a_pcr_that_only_has_records_of_another_bank_is_refused_by_name(pcr: int) -> None:
    log = both_banks(record_of_banks(pcr, 4, bytes(4), ["sha1"]))
    quoted = replay_values(log, "sha256") | {pcr: bytes(32)}
    with pytest.raises(ReplayMismatch, match=f"PCR {pcr}: "):
        replay(log, quoted=quoted, bank="sha256")


@pytest.mark.parametrize("records", [(), (record(7, 4, bytes(4)),)], ids=["an empty log", "only PCR 7"])
def test_a_bank_that_no_firmware_extended_is_refused(records: tuple[bytes, ...]) -> None:
    log = parse_event_log(spec_id() + b"".join(records))
    quoted = {0: bytes(32)} | replay_values(log, "sha256")
    with pytest.raises(ReplayMismatch, match="PCR 0: "):
        replay(log, quoted=quoted, bank="sha256")


def test_a_bank_that_the_log_does_not_declare_is_refused() -> None:
    log = parse_event_log(spec_id([SHA1]) + record_of_banks(0, 8, b"v"))
    with pytest.raises(ReplayMismatch, match="sha256"):
        replay(log, quoted={0: extended(hashlib.sha256(b"v").digest())}, bank="sha256")


def test_a_sha1_log_proves_nothing_about_sha256() -> None:
    with pytest.raises(ReplayMismatch):
        replay(parse_event_log(sha1_record(0, 4, bytes(4))), quoted={0: bytes(32)}, bank="sha256")


@pytest.mark.parametrize("bank", ["md5", "", "sm3_256", "new"])
def test_a_bank_that_cannot_be_computed_is_refused(bank: str) -> None:
    with pytest.raises(ReplayMismatch):
        replay(parse_event_log(BOOT.log), quoted=BOOT.pcrs, bank=bank)


@pytest.mark.parametrize(
    ("line", "hashed"),
    [
        pytest.param(b"kernel_cmdline: /vmlinuz ro\0", b"/vmlinuz ro", id="upstream GRUB"),
        pytest.param(b"grub_cmd: set a=b\0", b"set a=b", id="upstream GRUB command"),
        pytest.param(b"grub_kernel_cmdline /vmlinuz ro\0", b"/vmlinuz ro\0", id="distribution GRUB, with NUL"),
        pytest.param(b"grub_cmd set a=b\0", b"set a=b", id="distribution GRUB, without NUL"),
        pytest.param(b"grub_cmd set a=b\0\x7f", b"set a=b\0", id="distribution GRUB, with a byte too many"),
        pytest.param(b"grub_cmd set a=b\0\x7f", b"set a=b", id="the same, without NUL"),
        pytest.param(b"c\0m\0d\0", b"c\0m\0d\0", id="as it is"),
    ],
)
def test_a_boot_loader_line_is_proved_in_its_dialect(line: bytes, hashed: bytes) -> None:
    digest = hashlib.sha256(hashed).digest()
    log = parse_event_log(spec_id() + record(8, 0xD, line, digest=digest))
    assert replay(log, quoted={8: extended(digest)}, bank="sha256")[0].data == hashed


@settings(max_examples=100)
@given(st.integers(0, len(BOOT.log) - 1), st.binary(min_size=1, max_size=4))
def test_a_mutated_log_replays_truly_or_is_refused(at: int, change: bytes) -> None:
    try:
        events = replay(
            parse_event_log(BOOT.log[:at] + change + BOOT.log[at + len(change) :]), quoted=BOOT.pcrs, bank="sha256"
        )
    except (ParseError, ReplayMismatch):
        return
    assert [event.digest for event in events] == [event.digest for event in BOOT.events]
