"""Where a log and a TPM differ, the known reasons are told from the unknown ones."""

import hashlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.comparison import parse_pcr_values
from attestation.core.inspection import inspect_log
from attestation.errors import ParseError
from tests.boot_logs import CAPTURES, boot, locality, record, spec_id

BOOT = boot("secureboot-on")


def codes(log: bytes, measured: Mapping[int, bytes]) -> list[str]:
    found = inspect_log(log, measured={"sha256": measured}).oddities
    return [oddity.code for oddity in found]


def extended(*digests: bytes, start: bytes = bytes(32)) -> bytes:
    for digest in digests:
        start = hashlib.sha256(start + digest).digest()
    return start


@pytest.mark.parametrize("folder", sorted(folder.name for folder in CAPTURES.iterdir()))
def test_a_capture_matches_its_tpm(folder: str) -> None:
    measured = parse_pcr_values((CAPTURES / folder / "pcrs.txt").read_bytes())
    assert inspect_log(boot(folder).log, measured=measured).oddities == ()


def test_another_boots_values_do_not_match() -> None:
    assert set(codes(BOOT.log, boot("cmdline-drift").pcrs)) == {"pcr_mismatch"}


def test_only_matching_pcrs_prove_anything() -> None:
    measured = {**BOOT.pcrs, 7: bytes(32)}
    found = inspect_log(BOOT.log, measured={"sha256": measured})
    assert found.facts["secure_boot"] is None
    assert found.facts["kernel_command_line"] is not None
    assert 7 not in {event.pcr for event in found.events}


def test_a_bank_that_windows_capped_is_named_and_proves_nothing() -> None:
    capped = {pcr: extended(bytes(32), start=value) for pcr, value in BOOT.pcrs.items() if pcr < 8}
    found = inspect_log(BOOT.log, measured={"sha256": capped})
    assert [oddity.code for oddity in found.oddities] == ["bank_capped"]
    assert not any(found.facts.values())


def test_a_firmware_that_forgot_to_log_its_end_is_named() -> None:
    head = BOOT.log[: -(2 * 50 + 29 + 40)]
    assert codes(head, BOOT.pcrs) == ["exit_boot_services_missing", "exit_boot_services_unlogged"]


def test_a_wrong_startup_locality_is_named() -> None:
    version = record(0, 8, b"v")
    value = extended(hashlib.sha256(b"v").digest(), start=bytes(31) + b"\3")
    assert "startup_locality_wrong" in codes(spec_id() + version, {0: value})
    assert "startup_locality_wrong" in codes(spec_id() + locality(4) + version, {0: value})
    assert "startup_locality_wrong" not in codes(spec_id() + locality(3) + version, {0: value})


def test_a_pcr_that_the_log_does_not_mention_is_named() -> None:
    assert "pcr_not_in_log" in codes(spec_id() + record(0, 4, bytes(4)), {9: b"\1" * 32})
    assert "pcr_not_in_log" not in codes(spec_id() + record(0, 4, bytes(4)), {9: bytes(32), 17: b"\xff" * 32})


def test_a_pcr_that_moves_after_the_boot_is_not_a_forgery() -> None:
    found = codes(spec_id() + record(11, 0xD, b"x"), {11: b"\1" * 32})
    assert "pcr_moved" in found
    assert "pcr_mismatch" not in found


def test_values_of_another_bank_compare_with_nothing() -> None:
    found = inspect_log(BOOT.log, measured={"sha1": {0: bytes(20)}})
    assert [oddity.code for oddity in found.oddities] == ["bank_absent"]
    assert not any(found.facts.values())


def test_values_may_come_from_tpm2_pcrread() -> None:
    text = f"  sha1:\n    0 : 0x{'AB' * 20}\n  sha256:\n    0 : 0x{'0c' * 32}\n    10: 0x{'01' * 32}\n"
    assert parse_pcr_values(text.encode()) == {
        "sha1": {0: b"\xab" * 20},
        "sha256": {0: b"\x0c" * 32, 10: b"\1" * 32},
    }


REFUSED = {
    "nothing": b"",
    "only a bank": b"sha256:\n",
    "no number": b"zero " + b"00" * 32,
    "no digest": b"0 zz",
    "a digest of no bank": b"0 " + b"00" * 31,
    "a PCR that no TPM has": b"24 " + b"00" * 32,
    "a negative PCR": b"-1 " + b"00" * 32,
    "one PCR twice": b"0 " + b"00" * 32 + b"\n0 " + b"00" * 32,
    "three words": b"0 " + b"00" * 32 + b" 1",
    "something else": b"\xff\xfe\x00",
    "too much": b"#" * 70000,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_malformed_values_are_refused(data: bytes) -> None:
    with pytest.raises(ParseError, match="at offset"):
        parse_pcr_values(data)


@given(st.binary(max_size=200))
def test_any_bytes_give_values_or_a_parse_error(data: bytes) -> None:
    try:
        parse_pcr_values(data)
        parse_pcr_values(b"0 " + data)
    except ParseError:
        return
