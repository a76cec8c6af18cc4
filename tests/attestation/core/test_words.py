"""Words are for people: true to the bytes, honest about what is proved, and there for any bytes at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.event_types import TYPE_NAMES, type_name
from attestation.core.replay import VerifiedEvent
from attestation.core.words import LONGEST_TEXT, EventWords, describe, printable, secure_boot
from tests.attestation.core.test_sipa import sipa
from tests.attestation.core.test_uefi import gpt
from tests.boot_logs import boot

GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")


def variable(name: str, value: bytes, *, guid: bytes = GLOBAL) -> bytes:
    lengths = len(name).to_bytes(8, "little") + len(value).to_bytes(8, "little")
    return guid + lengths + name.encode("utf-16-le") + value


def proved(pcr: int, kind: int, data: bytes, untrusted: bytes | None = None) -> VerifiedEvent:
    return VerifiedEvent(0, pcr, kind, bytes(32), data, data if untrusted is None else untrusted)


def claimed(pcr: int, kind: int, untrusted: bytes) -> VerifiedEvent:
    return VerifiedEvent(0, pcr, kind, bytes(32), None, untrusted)


def test_a_real_boot_reads_like_a_boot() -> None:
    words = {(event.pcr, describe(event)) for event in boot("secureboot-on").events}
    line = "/boot/vmlinuz console=ttyS0 rootfstype=ramfs ima_policy=tcb panic=-1"
    assert {
        (7, EventWords("UEFI variable SecureBoot", "on", True)),
        (7, EventWords("Secure Boot authority SbatLevel", "sbat,1,2025021800 shim,4 grub,5", True)),
        (4, EventWords("Boot program", "\\EFI\\BOOT\\grubx64.efi", False)),
        (8, EventWords("Kernel command line", line, True)),
        (8, EventWords("GRUB command", "initrdefi /boot/initrd.img", True)),
        (9, EventWords("File read by the boot loader", "/boot/initrd.img", False)),
        (14, EventWords("Machine owner keys", "MokList", False)),
        (5, EventWords("Firmware action", "Exit Boot Services Returned with Success", True)),
        (0, EventWords("Separator", "the firmware hands over", True)),
        (1, EventWords("UEFI variable BootOrder", "0001 0000 0002", False)),
    } <= words


def test_the_stub_of_the_kernel_shows_only_a_label() -> None:
    words = [describe(event) for event in boot("uki").events]
    assert EventWords("Kernel load options", "LOADED_IMAGE::LoadOptions", False) in words
    assert EventWords("Initial ramdisk", "Linux initrd", False) in words


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (claimed(8, 0xD, b"kernel_cmdline: quiet\0"), EventWords("Kernel command line", "quiet", False)),
        (proved(8, 0xD, b"quiet\0", b"grub_kernel_cmdline quiet\0"), EventWords("Kernel command line", "quiet", True)),
        (proved(12, 0xD, "quiet\0".encode("utf-16-le")), EventWords("Kernel command line", "quiet", True)),
        (proved(0, 4, b"\1\0\0\0"), EventWords("Separator", "the firmware reports an error", True)),
        (proved(0, 4, b"evil"), EventWords("Separator", "an unexpected separator", True)),
        (claimed(7, 0x80000001, variable("SecureBoot", b"\1")), EventWords("UEFI variable SecureBoot", "on", False)),
        (proved(7, 0x80000001, variable("SecureBoot", b"")), EventWords("UEFI variable SecureBoot", "off", True)),
        (proved(7, 0x80000001, variable("PK", b"")), EventWords("UEFI variable PK", "nothing", True)),
        (proved(7, 0x80000001, b"short"), EventWords("UEFI variable", "short", False)),
        (claimed(4, 0x80000003, b""), EventWords("Boot program", "loaded from memory", False)),
        (claimed(5, 0x80000006, bytes(92)), EventWords("Partition table", "92 bytes", False)),
        (proved(0, 0x1234, b"\x80"), EventWords("event type 0x1234", "1 bytes", True)),
    ],
)
def test_events_are_described(event: VerifiedEvent, words: EventWords) -> None:
    assert describe(event) == words


def test_a_device_path_without_length_ends_the_search() -> None:
    assert describe(claimed(4, 0x80000003, bytes(32) + b"\4\4\0\0" * 50)).text == "loaded from memory"


def test_secure_boot_is_read_from_proved_bytes_of_pcr_7_only() -> None:
    on, off = variable("SecureBoot", b"\1"), variable("SecureBoot", b"\0")
    assert secure_boot([proved(7, 0x80000001, on)]) is True
    assert secure_boot([proved(7, 2, off), proved(7, 2, on)]) is False
    assert secure_boot([claimed(7, 0x80000001, on)]) is None
    assert secure_boot([proved(1, 0x80000001, on)]) is None
    assert secure_boot([proved(7, 0x80000001, variable("SecureBoot", b"\1", guid=bytes(16)))]) is None
    assert secure_boot([]) is None


def test_letters_that_hide_or_move_others_are_spelt_out() -> None:
    assert printable("quiet\u202eevil\x1b[2J\n") == "quiet\\u202eevil\\u001b[2J\\u000a"


def test_long_text_is_cut() -> None:
    assert len(printable("x" * 100_000)) == LONGEST_TEXT


@given(
    st.integers(0, 23),
    st.one_of(st.sampled_from(sorted(TYPE_NAMES)), st.integers(0, 2**32 - 1)),
    st.one_of(
        st.binary(max_size=300),
        st.builds(variable, st.text(max_size=9), st.binary(max_size=80)),
        st.sampled_from([b"kernel_cmdline: ", b"grub_cmd ", bytes(32) + b"\4\4"]).flatmap(
            lambda head: st.binary(max_size=80).map(lambda rest: head + rest)
        ),
    ),
    st.booleans(),
)
def test_any_bytes_give_short_printable_words(pcr: int, kind: int, data: bytes, hashed: bool) -> None:
    words = describe(proved(pcr, kind, data) if hashed else claimed(pcr, kind, data))
    assert words.name
    assert (words.name + words.text).isprintable()
    assert len(words.text) <= LONGEST_TEXT * 6
    assert hashed or not words.proved
    assert type_name(kind)


def test_keys_are_shown_by_the_names_in_their_certificates() -> None:
    words = [describe(event) for event in boot("secureboot-on").events]
    texts = {each.name: each.text for each in words if each.proved}
    assert "CN=Microsoft Windows Production PCA 2011" in texts["UEFI variable db"]
    assert "CN=Microsoft Corporation UEFI CA 2011" in texts["Secure Boot authority db"]
    assert texts["UEFI variable dbx"] == "1 hash"


def test_a_windows_record_and_a_partition_table_are_told_from_bytes() -> None:
    assert describe(proved(12, 6, sipa(0x40010001, sipa(0x00040001, b"\0")))).text == "2 records"
    assert describe(proved(12, 6, sipa(0x40010001, b"\1"))).text == "9 unreadable bytes"
    assert describe(proved(5, 0x80000006, gpt())).text.endswith(": no partition")
