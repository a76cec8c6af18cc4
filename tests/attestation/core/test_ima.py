"""The IMA list counts as far as it leads to the quoted PCR 10, and no further."""

import hashlib
import json
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.ima import (
    IMA_BANKS,
    IMA_LIMIT,
    START,
    Extension,
    ImaList,
    ImaPosition,
    ImaReplay,
    ima_measurements,
    ima_records,
    ima_values,
    replay_ima,
    replay_list,
)
from attestation.errors import ImaMismatch, ParseError, TooLarge
from tests.boot_logs import CAPTURES, COLLECTION, boot
from tests.ima_lists import legacy, line_of, ng, pcr_10, record, sig, violated

BOOT = boot("secureboot-on")
ZERO = bytes(32)


def extended(*templates: bytes) -> bytes:
    value = ZERO
    for template in templates:
        value = hashlib.sha256(value + template).digest()
    return value


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.mark.parametrize("folder", sorted(CAPTURES.iterdir()), ids=lambda folder: folder.name)
def test_every_capture_leads_to_its_tpm(folder: Path) -> None:
    captured = boot(folder.name)
    assert replay_ima(captured.ima, quoted=captured.pcrs[10], bank="sha256") == ImaList(4, 0)


def test_a_list_that_grew_after_the_quote_counts_up_to_it() -> None:
    longer = BOOT.ima + record(b"measured later") + b"cut off"
    assert replay_ima(longer, quoted=BOOT.pcrs[10], bank="sha256") == ImaList(4, 0)


def test_an_empty_list_goes_with_a_blank_pcr_10() -> None:
    assert replay_ima(b"", quoted=ZERO, bank="sha256") == ImaList(0, 0)


def test_a_violation_is_extended_as_ones_and_counted() -> None:
    log = record(b"file") + record(b"open writer", digest=bytes(20))
    assert replay_ima(log, quoted=extended(sha256(b"file"), b"\xff" * 32), bank="sha256") == ImaList(2, 1)


def test_the_legacy_template_is_hashed_with_its_name_padded() -> None:
    log = pack("<I", 10) + b"\7" * 20 + pack("<I", 3) + b"ima" + b"\5" * 20 + pack("<I", 5) + b"/init"
    assert replay_ima(log, quoted=extended(sha256(b"\5" * 20 + b"/init".ljust(256, b"\0"))), bank="sha256").entries == 1


@pytest.mark.parametrize("size", [20, 32, 48, 64])
def test_lists_with_other_digests_are_read(size: int) -> None:
    log = record(b"a", digest=b"\7" * size) + record(b"b", digest=b"\7" * size)
    assert replay_ima(log, quoted=extended(sha256(b"a"), sha256(b"b")), bank="sha256").entries == 2


def test_an_entry_of_another_pcr_is_not_counted() -> None:
    log = record(b"elsewhere", pcr=11) + record(b"here")
    assert replay_ima(log, quoted=extended(sha256(b"here")), bank="sha256") == ImaList(1, 0)


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(b"", id="nothing sent"),
        pytest.param(BOOT.ima[: len(BOOT.ima) // 2], id="cut"),
        pytest.param(BOOT.ima.replace(b"/init", b"/evil"), id="renamed file"),
        pytest.param(record(b"first") + BOOT.ima, id="entry added in front"),
        pytest.param(BOOT.ima[:4] + bytes(20) + BOOT.ima[24:], id="file hidden as a violation"),
        pytest.param(record(b"all of it is other"), id="another list"),
        pytest.param(b"\x0a\0\0\0" + bytes(20) + b"\xff" * 8, id="huge name"),
        pytest.param(BOOT.ima[:35] + b"\xff\xff\xff\xff" + BOOT.ima[39:], id="huge data"),
        pytest.param(record(b"x", pcr=24), id="no such PCR"),
    ],
)
def test_a_list_that_does_not_lead_to_pcr_10_is_refused(log: bytes) -> None:
    with pytest.raises((ImaMismatch, ParseError)):
        replay_ima(log, quoted=BOOT.pcrs[10], bank="sha256")


def test_a_bank_that_cannot_be_computed_is_refused() -> None:
    with pytest.raises(ImaMismatch):
        replay_ima(BOOT.ima, quoted=BOOT.pcrs[10], bank="md5")


def test_a_list_above_the_limit_is_not_looked_at() -> None:
    with pytest.raises(TooLarge):
        replay_ima(bytes(IMA_LIMIT + 1), quoted=ZERO, bank="sha256")


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_counted(data: bytes) -> None:
    for log in (data, BOOT.ima[:60] + data, record(b"x") + data):
        with pytest.raises((ImaMismatch, ParseError)):
            replay_ima(log, quoted=b"\7" * 32, bank="sha256")


FIVE = [ng(b"boot_aggregate"), ng(b"/init"), ng(b"/bin/sh"), sig(b"/bin/true"), legacy(b"/etc/old", b"\5" * 20)]
IBM = COLLECTION / "kgoldman_ibmtss"


def replayed(data: bytes, *, bank: str = "sha256", quoted: bytes | None = None, **more: Any) -> ImaReplay:
    quoted = pcr_10(data, bank=bank) if quoted is None else quoted
    return replay_list(data, quoted=quoted, bank=bank, **({"extension": Extension.REHASHED} | more))


def known_from(replay: ImaReplay) -> dict[bytes, bytes]:
    return dict(zip(replay.fresh, replay.digests, strict=True))


def published() -> dict[str, bytes]:
    index = COLLECTION / "index.json"
    listed = json.loads(index.read_text()) if index.exists() else []
    found = next((each for each in listed if each.get("file") == "kgoldman_ibmtss/ima_sha1.log"), None)
    return {bank: bytes.fromhex(pcrs["10"]) for bank, pcrs in found["expected_pcrs"].items()} if found else {}


@pytest.mark.skipif(not published(), reason="the collection of other people's lists is not on this machine")
@pytest.mark.parametrize("listed", IMA_BANKS)
@pytest.mark.parametrize("bank", IMA_BANKS)
def test_a_guests_lists_lead_to_what_its_tpm_read_in_every_bank(listed: str, bank: str) -> None:
    data = (IBM / f"ima_{listed}.log").read_bytes()
    assert replay_ima(data, quoted=published()[bank], bank=bank) == ImaList(362, 0)


@pytest.mark.skipif(not published(), reason="the collection of other people's lists is not on this machine")
@pytest.mark.parametrize(
    ("name", "entries", "violations"),
    [("sml-ima-ng-sha1", 6, 0), ("sml-ima-sha1", 12, 0), ("sml-ima-sig-sha256-invalidated", 2, 1)],
)
def test_the_collections_lists_are_read(name: str, entries: int, violations: int) -> None:
    data = (COLLECTION / "tpm2-software_tpm2-tss" / f"{name}.bin").read_bytes().removesuffix(b"\n")  # not the kernel's
    assert replay_ima(data, quoted=pcr_10(data), bank="sha256") == ImaList(entries, violations)


@pytest.mark.skipif(not published(), reason="the collection of other people's lists is not on this machine")
@pytest.mark.parametrize("name", ["sml-ima-sig-sha256", "sml-ima-ng-sha1-invalidated"])
def test_the_collections_cut_lists_name_the_entry_that_is_cut(name: str) -> None:
    data = (COLLECTION / "tpm2-software_tpm2-tss" / f"{name}.bin").read_bytes()
    with pytest.raises(ParseError, match="ends inside the entry at byte"):
        list(ima_records(data))


@pytest.mark.parametrize("bank", IMA_BANKS)
def test_every_line_is_proved_in_every_bank(bank: str) -> None:
    whole = replayed(b"".join(FIVE), bank=bank)
    assert list(whole.fresh) == [line_of(each) for each in FIVE]
    assert (whole.entries, whole.from_start, whole.position.offset) == (5, True, sum(map(len, FIVE)))


def test_measurements_and_values_agree() -> None:
    data = b"".join(FIVE) + violated(ng(b"/tmp/x")) + record(b"elsewhere", pcr=11)
    values: dict[int, bytes] = {}
    for pcr, digest in ima_measurements(data, bank="sha256"):
        values[pcr] = sha256(values.get(pcr, ZERO) + digest)
    assert values == ima_values(data, bank="sha256", extension=Extension.REHASHED)


def test_a_list_goes_on_from_where_it_was_proved() -> None:
    first, second = b"".join(FIVE[:2]), b"".join(FIVE[2:])
    position = replayed(first).position
    assert position == ImaPosition(len(first), 2, {"sha256": pcr_10(first)})
    rest = replayed(second, quoted=pcr_10(first + second), after=position)
    assert list(rest.fresh) == [line_of(each) for each in FIVE[2:]]
    assert rest.position == replayed(first + second).position
    assert not rest.from_start


def test_a_list_that_did_not_grow_needs_nothing_sent() -> None:
    position = replayed(FIVE[0]).position
    assert replayed(b"", quoted=pcr_10(FIVE[0]), after=position).position == position


def test_a_list_that_was_empty_last_time_begins_still() -> None:
    empty = replayed(b"", quoted=ZERO)
    assert empty.position.entries == 0
    assert replayed(FIVE[0], after=empty.position).from_start


def test_what_follows_the_quote_is_sent_again_next_time() -> None:
    whole = replayed(b"".join(FIVE), quoted=pcr_10(b"".join(FIVE[:3])))
    assert (whole.position.offset, whole.position.entries) == (sum(map(len, FIVE[:3])), 3)


@pytest.mark.parametrize(
    ("data", "position"),
    [
        pytest.param(FIVE[2], START, id="a continuation taken for a beginning"),
        pytest.param(FIVE[1] + FIVE[2], ImaPosition(1, 2, {"sha256": pcr_10(FIVE[0] + FIVE[1])}), id="sent twice"),
        pytest.param(FIVE[2], ImaPosition(1, 1, {"sha256": pcr_10(FIVE[0])}), id="a hole"),
        pytest.param(FIVE[2], ImaPosition(1, 2, {"sha256": ZERO}), id="the PCR of another boot"),
        pytest.param(FIVE[2], ImaPosition(1, 2, {"sha384": bytes(48)}), id="another bank"),
        pytest.param(FIVE[2], ImaPosition(1, 2, {}), id="no bank"),
    ],
)
def test_a_continuation_that_does_not_fit_is_refused(data: bytes, position: ImaPosition) -> None:
    with pytest.raises(ImaMismatch):
        replayed(data, quoted=pcr_10(b"".join(FIVE[:3])), after=position)


def test_the_short_and_the_long_answer_agree() -> None:
    data = b"".join(FIVE) + violated(FIVE[1]) + record(b"elsewhere", pcr=11) + FIVE[0]
    long = replayed(data)
    assert replay_ima(data, quoted=pcr_10(data), bank="sha256") == ImaList(long.entries, len(long.untrusted_violations))
    assert (long.entries, long.position.entries) == (7, 8)


def test_known_lines_are_not_returned_again() -> None:
    known = known_from(replayed(b"".join(FIVE)))
    again = replayed(b"".join(FIVE) + ng(b"/new"), known=known)
    assert list(again.fresh) == [line_of(ng(b"/new"))]
    assert again.entries == 6


def test_a_known_line_with_a_wrong_digest_proves_nothing() -> None:
    with pytest.raises(ImaMismatch):
        replayed(FIVE[0], known={line_of(FIVE[0]): bytes(32)})


def test_a_violation_is_none_of_the_known_lines() -> None:
    data = FIVE[0] + violated(FIVE[1])
    outcome = replayed(data, known=known_from(replayed(b"".join(FIVE))))
    assert outcome.untrusted_violations == (line_of(FIVE[1]),)
    assert not outcome.fresh


def test_an_old_kernels_padded_sha1_counts_only_for_who_asks() -> None:
    data = FIVE[0] + FIVE[1] + violated(FIVE[2])
    quoted = ima_values(data, bank="sha256", extension=Extension.INSECURE_PADDED_SHA1)[10]
    padded = replayed(data, quoted=quoted, extension=Extension.INSECURE_PADDED_SHA1)
    assert (padded.extension, padded.entries) == (Extension.INSECURE_PADDED_SHA1, 3)
    value = ZERO
    for digest in (FIVE[0][4:24], FIVE[1][4:24], b"\xff" * 20):
        value = sha256(value + digest + bytes(12))
    assert quoted == value
    with pytest.raises(ImaMismatch):
        replay_ima(data, quoted=quoted, bank="sha256")


def test_in_the_sha1_bank_both_kernels_extend_the_same() -> None:
    data = b"".join(FIVE) + violated(FIVE[2])
    old, new = (ima_values(data, bank="sha1", extension=each) for each in Extension)
    assert old == new


@pytest.mark.parametrize("bank", IMA_BANKS)
@pytest.mark.parametrize("cut", [1, 3, 30, 60])
def test_a_cut_list_is_refused_with_the_byte_of_its_last_entry(bank: str, cut: int) -> None:
    data = b"".join(FIVE[:3])
    with pytest.raises(ParseError, match=rf"byte {len(FIVE[0] + FIVE[1])}\b"):
        ima_values(data[:-cut], bank=bank, extension=Extension.REHASHED)


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(pack("<I", 24) + FIVE[1][4:], id="PCR"),
        pytest.param(FIVE[1][:34] + b"\xff\xff\xff\x7f" + FIVE[1][38:], id="two gibibytes of data"),
        pytest.param(FIVE[1][:24] + b"\xff\xff\xff\xff" + FIVE[1][28:], id="huge name"),
        pytest.param(legacy(b"x" * 257, bytes(20)), id="legacy name"),
    ],
)
def test_a_later_entry_out_of_bounds_is_refused_where_it_begins(tail: bytes) -> None:
    with pytest.raises(ParseError, match=rf"byte {len(FIVE[0])}\b"):
        list(ima_records(FIVE[0] + tail))


@given(st.lists(st.sampled_from([*FIVE, violated(FIVE[0]), record(b"x", pcr=11)]), max_size=8), st.binary(max_size=80))
def test_whatever_comes_first_a_list_is_cut_into_its_records(entries: list[bytes], rest: bytes) -> None:
    data, found = b"".join(entries), []
    try:
        for _, _, line, _, end in ima_records(data + rest):
            found.append((line, end))
    except ParseError:
        assert rest
    assert [line for line, _ in found[: len(entries)]] == [line_of(each) for each in entries][: len(found)]
    assert not entries or len(found) >= len(entries)
