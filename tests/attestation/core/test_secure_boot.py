"""What PCR 7 and shim's part of PCR 14 prove: keys, revocations, machine owner keys; and what they leave open."""

import hashlib
from collections.abc import Sequence

import pytest

from attestation.core.boot import Boot, Fact
from attestation.core.eventlog import parse_event_log
from attestation.core.replay import events_behind
from attestation.core.secure_boot import secure_boot_facts
from attestation.core.uefi import SHIM, parse_signature_lists, parse_variable, signature_list
from tests.attestation.core.test_uefi import variable
from tests.boot_logs import boot, record, spec_id

HANDOVER = record(7, 4, bytes(4))
CERTIFICATE = next(
    parse_variable(event.data).value[16:]
    for event in boot("secureboot-on").events
    if event.pcr == 7 and event.data is not None and "MokListRT".encode("utf-16-le") in event.data
)
NO_KEYS = signature_list("sha256", SHIM, bytes(32))


def facts(*records: bytes) -> dict[str, Fact | None]:
    log = parse_event_log(spec_id() + b"".join(records))
    return secure_boot_facts(Boot(events_behind(log, range(24), bank="sha256"), bank="sha256"))


def value(name: str, *records: bytes) -> object:
    fact = facts(*records)[name]
    return None if fact is None else fact.value


def shims(name: str, content: bytes) -> bytes:
    """A variable of shim's, as it is measured into PCR 7."""
    return record(7, 0x800000E0, variable(name, content, guid=SHIM.bytes_le))


def hashed(name: bytes, content: bytes) -> bytes:
    """A variable of shim's, as it is measured into PCR 14: the log has only its name."""
    return record(14, 0xD, name + b"\0", digest=hashlib.sha256(content).digest())


LEVEL = shims("SbatLevel", b"sbat,1\n")
UNPROVED = record(7, 0x800000E0, b"something", digest=hashlib.sha256(b"else").digest())


@pytest.mark.parametrize(
    ("records", "disabled"),
    [
        pytest.param((HANDOVER, shims("MokSBState", b"\1"), LEVEL), True, id="switched off"),
        pytest.param((HANDOVER, shims("MokSBState", b"\1")), True, id="switched off, an old shim"),
        pytest.param((HANDOVER, shims("MokSBState", b"\0"), LEVEL), False, id="switched on"),
        pytest.param((HANDOVER, LEVEL), False, id="never set"),
        pytest.param((HANDOVER, LEVEL, UNPROVED), None, id="never set, but something is hidden"),
        pytest.param((HANDOVER,), None, id="no shim"),
        pytest.param((LEVEL, HANDOVER), None, id="before the hand-over"),
        pytest.param((shims("MokSBState", b"\0"), LEVEL), None, id="no hand-over"),
    ],
)
def test_whether_shim_accepts_anything(records: Sequence[bytes], disabled: bool | None) -> None:
    assert value("mok_validation_disabled", *records) is disabled


@pytest.mark.parametrize(
    ("records", "trusted"),
    [
        pytest.param((HANDOVER, shims("MokListTrusted", b"\1")), True, id="in PCR 7"),
        pytest.param((HANDOVER, shims("MokListTrusted", b"\0")), False, id="in PCR 7, off"),
        pytest.param((HANDOVER, hashed(b"MokListTrusted", b"\1")), True, id="in PCR 14 alone"),
        pytest.param((HANDOVER, hashed(b"MokListTrusted", b"\0")), None, id="in PCR 14 alone, a 0 of whatever switch"),
        pytest.param((HANDOVER, LEVEL), None, id="nowhere"),
        pytest.param((shims("MokListTrusted", b"\0"), HANDOVER), None, id="before the hand-over"),
    ],
)
def test_whether_machine_owner_keys_are_trusted(records: Sequence[bytes], trusted: bool | None) -> None:
    assert value("moklist_trusted", *records) is trusted


VENDOR = shims("Shim", bytes(16) + CERTIFICATE)
ONLY_VENDOR = signature_list("x509", SHIM, CERTIFICATE)


@pytest.mark.parametrize(
    ("records", "entries"),
    [
        pytest.param((HANDOVER, hashed(b"MokList", NO_KEYS)), 0, id="no key"),
        pytest.param((HANDOVER, VENDOR, hashed(b"MokList", ONLY_VENDOR)), 0, id="only the vendor's"),
        pytest.param((HANDOVER, shims("Shim", CERTIFICATE), hashed(b"MokList", ONLY_VENDOR)), 0, id="without owner"),
        pytest.param((HANDOVER, hashed(b"MokList", ONLY_VENDOR)), None, id="a certificate that nothing proves"),
        pytest.param((HANDOVER, VENDOR, hashed(b"MokList", ONLY_VENDOR + NO_KEYS)), None, id="more than the vendor's"),
        pytest.param((HANDOVER, hashed(b"x", b"x"), hashed(b"MokList", NO_KEYS)), None, id="not measured first"),
        pytest.param((HANDOVER, shims("MokList", ONLY_VENDOR + NO_KEYS)), 2, id="the list itself, an old shim"),
        pytest.param((HANDOVER, shims("MokList", CERTIFICATE)), None, id="one that accepted a program"),
        pytest.param((HANDOVER, shims("MokList", b"\1" * 40)), None, id="no list"),
        pytest.param((HANDOVER,), None, id="nothing"),
    ],
)
def test_how_many_keys_the_owner_enrolled(records: Sequence[bytes], entries: int | None) -> None:
    assert value("mok_entries", *records) == entries


def test_a_capture_proves_that_nobody_enrolled_a_key() -> None:
    found = secure_boot_facts(Boot(boot("secureboot-on").events, bank="sha256"))
    assert found["mok_entries"] == Fact(0, 14, 23)
    assert found["mok_validation_disabled"] == Fact(False, 7, 25)
    assert found["moklist_trusted"] == Fact(True, 14, 26)


@pytest.mark.parametrize("text", [b"DMA Protection Disabled", b"DMA Protection Disabled\0"])
def test_an_action_counts_on_either_side_of_the_separator(text: bytes) -> None:
    action = record(7, 0x80000007, text)
    assert value("firmware_dma_protection_disabled", action, HANDOVER) is True
    assert value("firmware_dma_protection_disabled", HANDOVER, action) is True
    assert value("firmware_dma_protection_disabled", HANDOVER) is False
    assert value("firmware_dma_protection_disabled", action) is None


def test_a_list_is_written_as_it_is_read() -> None:
    (signature,) = parse_signature_lists(ONLY_VENDOR)
    assert (signature.kind, signature.owner, signature.data) == ("x509", SHIM, CERTIFICATE)
