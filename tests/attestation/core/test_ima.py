"""The IMA list counts as far as it leads to the quoted PCR 10, and no further."""

import hashlib
from pathlib import Path
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.ima import IMA_LIMIT, ImaList, replay_ima
from attestation.errors import ImaMismatch, ParseError, TooLarge
from tests.boot_logs import CAPTURES, boot

BOOT = boot("secureboot-on")
ZERO = bytes(32)


def entry(template: bytes, *, name: bytes = b"ima-ng", pcr: int = 10, digest: bytes | None = None) -> bytes:
    digest = hashlib.sha1(template, usedforsecurity=False).digest() if digest is None else digest
    return pack("<I", pcr) + digest + pack("<I", len(name)) + name + pack("<I", len(template)) + template


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
    longer = BOOT.ima + entry(b"measured later") + b"cut off"
    assert replay_ima(longer, quoted=BOOT.pcrs[10], bank="sha256") == ImaList(4, 0)


def test_an_empty_list_goes_with_a_blank_pcr_10() -> None:
    assert replay_ima(b"", quoted=ZERO, bank="sha256") == ImaList(0, 0)


def test_a_violation_is_extended_as_ones_and_counted() -> None:
    log = entry(b"file") + entry(b"open writer", digest=bytes(20))
    assert replay_ima(log, quoted=extended(sha256(b"file"), b"\xff" * 32), bank="sha256") == ImaList(2, 1)


def test_the_legacy_template_is_hashed_with_its_name_padded() -> None:
    log = pack("<I", 10) + b"\7" * 20 + pack("<I", 3) + b"ima" + b"\5" * 20 + pack("<I", 5) + b"/init"
    assert replay_ima(log, quoted=extended(sha256(b"\5" * 20 + b"/init".ljust(256, b"\0"))), bank="sha256").entries == 1


@pytest.mark.parametrize("size", [20, 32, 48, 64])
def test_lists_with_other_digests_are_read(size: int) -> None:
    log = entry(b"a", digest=b"\7" * size) + entry(b"b", digest=b"\7" * size)
    assert replay_ima(log, quoted=extended(sha256(b"a"), sha256(b"b")), bank="sha256").entries == 2


def test_an_entry_of_another_pcr_is_not_counted() -> None:
    log = entry(b"elsewhere", pcr=11) + entry(b"here")
    assert replay_ima(log, quoted=extended(sha256(b"here")), bank="sha256") == ImaList(1, 0)


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(b"", id="nothing sent"),
        pytest.param(BOOT.ima[: len(BOOT.ima) // 2], id="cut"),
        pytest.param(BOOT.ima.replace(b"/init", b"/evil"), id="renamed file"),
        pytest.param(entry(b"first") + BOOT.ima, id="entry added in front"),
        pytest.param(BOOT.ima[:4] + bytes(20) + BOOT.ima[24:], id="file hidden as a violation"),
        pytest.param(entry(b"all of it is other"), id="another list"),
        pytest.param(b"\x0a\0\0\0" + bytes(20) + b"\xff" * 8, id="huge name"),
        pytest.param(BOOT.ima[:35] + b"\xff\xff\xff\xff" + BOOT.ima[39:], id="huge data"),
        pytest.param(entry(b"x", pcr=24), id="no such PCR"),
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
    for log in (data, BOOT.ima[:60] + data, entry(b"x") + data):
        with pytest.raises((ImaMismatch, ParseError)):
            replay_ima(log, quoted=b"\7" * 32, bank="sha256")
