"""A fact is proved by digests or it is no fact: types, labels and forged data change no answer into a wrong one."""

import hashlib
from collections.abc import Sequence
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.core.eventlog import parse_event_log
from attestation.core.facts import Fact, read_facts
from attestation.core.replay import VerifiedEvent, events_behind
from attestation.core.uefi import IMAGE_SECURITY, SHIM, parse_variable
from attestation.core.windows import windows_facts
from tests.attestation.core.test_sipa import sipa
from tests.attestation.core.test_uefi import variable
from tests.boot_logs import CAPTURES, boot, record, spec_id

HANDOVER = record(7, 4, bytes(4))
WBCL = b"WBCL"
ON, OFF = (record(7, 0x80000001, variable("SecureBoot", value)) for value in (b"\1", b"\0"))
LINE = b"/vmlinuz root=/dev/sda1 lockdown=integrity module.sig_enforce=1 ro"


def events(*records: bytes) -> tuple[VerifiedEvent, ...]:
    log = parse_event_log(spec_id() + b"".join(records))
    return events_behind(log, range(24), bank="sha256")


def facts(*records: bytes) -> dict[str, Fact | None]:
    return read_facts(events(*records), bank="sha256")


def value(name: str, *records: bytes) -> object:
    fact = facts(*records)[name]
    return None if fact is None else fact.value


def grub(line: bytes, *, label: bytes = b"grub_cmd: ") -> bytes:
    return record(8, 0xD, label + line + b"\0", digest=hashlib.sha256(line).digest())


def forged(pcr: int, kind: int, data: bytes) -> bytes:
    return record(pcr, kind, data, digest=hashlib.sha256(b"something else").digest())


def windows(*records: bytes, pcr: int = 12, ended: bool = True) -> bytes:
    tagged = record(pcr, 6, sipa(0x40010001, b"".join(records)))
    return tagged + (record(pcr, 4, WBCL) if ended else b"")


def flag(kind: int, number: int, *, size: int = 1) -> bytes:
    return sipa(kind, number.to_bytes(size, "little"))


@pytest.mark.parametrize(("folder", "on"), [("secureboot-on", True), ("secureboot-off", False)])
def test_captures_say_whether_secure_boot_was_on(folder: str, on: bool) -> None:
    fact = read_facts(boot(folder).events, bank="sha256")["secure_boot"]
    assert fact == Fact(on, 7, 3)


def test_a_capture_answers_what_people_ask() -> None:
    found = read_facts(boot("secureboot-on").events, bank="sha256")
    values = {name: fact.value for name, fact in found.items() if fact is not None}
    assert values["kernel_command_line"] == "/boot/vmlinuz console=ttyS0 rootfstype=ramfs ima_policy=tcb panic=-1"
    assert values["ima_policy"] == "tcb"
    assert "Microsoft Corporation UEFI CA" in str(values["shim_certificate"])
    assert str(values["sbat"]).startswith("sbat,1,")
    assert (values["uefi_debug_mode"], values["dbx_entries"]) == (False, 1)
    assert found["lockdown"] is None
    assert found["code_integrity"] is None


def test_a_unified_kernel_proves_its_initrd_and_not_its_command_line() -> None:
    captured = boot("uki")
    log = parse_event_log(captured.log)
    found = read_facts(events_behind(log, captured.pcrs, bank="sha256"), bank="sha256")
    assert found["initrd"] is not None
    assert str(found["initrd"].value).startswith("b1bdfce2d226")
    assert found["kernel_command_line"] is None


STUB = record(9, 6, b"\xed\x22\x3b\x8f\x1a\0\0\0LOADED_IMAGE::LoadOptions\0", digest=bytes(32))
SIPA = sipa(0x40010001, sipa(0x00020003, b"\1\0\0\0"))
WINDOWS = (record(12, 6, SIPA), record(12, 4, b"WBCL"))
TRUST_POINT = (record(14, 6, sipa(0x00060002, b"key")), record(14, 4, b"WBCL"))
PLATFORMS = {
    "GRUB's command line": ((record(8, 0xD, b"/vmlinuz ro"),), "linux"),
    "a kernel's EFI stub": ((STUB,), "linux"),
    "a unified kernel": ((record(11, 0xD, b".linux\0"), record(11, 0xD, b".linux", digest=bytes(32))), "linux"),
    "Windows": ((*WINDOWS, *TRUST_POINT), "windows"),
    "Windows' records alone, as an administrator can add them": (WINDOWS, None),
    "Windows' end in PCR 14 alone": (TRUST_POINT, None),
    "Windows without its mark": ((*WINDOWS[:1], *TRUST_POINT), None),
    "Windows' records where a loader extended PCR 9": ((record(9, 0xD, b"file"), *WINDOWS, *TRUST_POINT), None),
    "Windows' records on Linux": ((STUB, *WINDOWS, *TRUST_POINT), "linux"),
    "a stub's line that nothing pinned has": ((record(12, 0xD, b"ro"),), None),
    "nothing": ((), None),
}


@pytest.mark.parametrize(("records", "platform"), PLATFORMS.values(), ids=PLATFORMS)
def test_the_platform_is_told_by_what_an_administrator_cannot_add(records: Sequence[bytes], platform: object) -> None:
    assert value("platform", *records) == platform


@pytest.mark.parametrize("folder", sorted(folder.name for folder in CAPTURES.iterdir()))
def test_every_capture_is_linux(folder: str) -> None:
    fact = read_facts(boot(folder).events, bank="sha256")["platform"]
    assert fact is not None
    assert fact.value == "linux"


def registers(*records: bytes) -> dict[str, Fact | None]:
    return read_facts(events(*records), bank="sha256", confidential=True)


def in_register(line: bytes) -> bytes:
    return record(3, 0xD, b"grub_cmd: " + line + b"\0", digest=hashlib.sha256(line).digest())


def test_a_confidential_guest_answers_from_its_registers() -> None:
    found = registers(
        record(1, 0x80000001, variable("SecureBoot", b"\1")),
        record(1, 4, bytes(4)),
        in_register(b"linux " + LINE),
        in_register(LINE),
    )
    assert found["secure_boot"] == Fact(True, 1, 0)
    assert found["lockdown"] == Fact("integrity", 3, 3)
    assert found["platform"] == Fact("linux", 3, 3)


def test_a_register_is_no_pcr_of_that_number() -> None:
    found = registers(
        record(7, 0x80000001, variable("SecureBoot", b"\1")), HANDOVER, grub(LINE), *WINDOWS, *TRUST_POINT
    )
    assert not any(found.values())


@pytest.mark.parametrize(("hidden", "proved"), [(2, True), (3, False)])
def test_a_line_in_a_register_counts_only_when_no_other_can_be_hidden(hidden: int, proved: bool) -> None:
    files = [record(3, 0xD, b"/file", digest=hashlib.sha256(bytes((number,))).digest()) for number in range(hidden)]
    before = [forged(3, 0xD, b"MokList\0"), in_register(b"linux " + LINE), in_register(LINE)]
    found = registers(*before, *files)["kernel_command_line"]
    assert (found is not None) is proved
    assert registers(*before[:1], in_register(LINE))["kernel_command_line"] is None


def test_nothing_proves_nothing() -> None:
    assert not any(read_facts((), bank="sha256").values())


@pytest.mark.parametrize("kind", [0x80000001, 0x2, 0xD, 0x800000E0])
def test_the_type_of_a_record_changes_no_answer(kind: int) -> None:
    assert value("secure_boot", record(7, kind, variable("SecureBoot", b"\0")), HANDOVER) is False


SECURE_BOOT_UNPROVEN = {
    "no separator": (ON,),
    "measured after the hand-over": (HANDOVER, ON),
    "data that were not measured": (forged(7, 0x80000001, variable("SecureBoot", b"\1")), HANDOVER),
    "another PCR": (record(1, 0x80000001, variable("SecureBoot", b"\1")), HANDOVER),
    "another maker's variable": (record(7, 0x80000001, variable("SecureBoot", b"\1", guid=bytes(16))), HANDOVER),
    "two": (record(7, 0x80000001, variable("SecureBoot", b"\2")), HANDOVER),
    "two bytes": (record(7, 0x80000001, variable("SecureBoot", b"\1\1")), HANDOVER),
    "a longer name": (record(7, 0x80000001, variable("SecureBoot2", b"\1")), HANDOVER),
}


@pytest.mark.parametrize("records", SECURE_BOOT_UNPROVEN.values(), ids=SECURE_BOOT_UNPROVEN)
def test_secure_boot_is_not_taken_from_what_proves_nothing(records: Sequence[bytes]) -> None:
    assert value("secure_boot", *records) is None


def test_an_empty_secure_boot_variable_means_that_there_is_none() -> None:
    assert value("secure_boot", record(7, 0x80000001, variable("SecureBoot", b"")), HANDOVER) is False


def test_the_first_value_counts_whatever_is_measured_later() -> None:
    assert value("secure_boot", OFF, ON, HANDOVER, ON) is False


def test_a_separator_with_forged_data_still_ends_the_firmwares_part() -> None:
    disguised = record(7, 0x2, b"nothing to see", digest=hashlib.sha256(bytes(4)).digest())
    assert value("secure_boot", disguised, ON, HANDOVER) is None


def test_debug_mode_is_told_by_its_digest() -> None:
    hidden = record(7, 0x2, b"nothing to see", digest=hashlib.sha256(b"UEFI Debug Mode").digest())
    assert value("uefi_debug_mode", hidden, HANDOVER) is True
    assert value("uefi_debug_mode", ON, HANDOVER) is False
    assert value("uefi_debug_mode", ON) is None


DEBIAN = "1.2.840.113549.1.9.1=debian-devel@lists.debian.org,CN=Debian UEFI Secure Boot (PK/KEK key),O=Debian"
MICROSOFT = "CN=Microsoft {},O=Microsoft Corporation,L=Redmond,ST=Washington,C=US"
UEFI_CA = MICROSOFT.format("Corporation UEFI CA 2011")


def test_the_keys_of_secure_boot_are_named_by_their_certificates() -> None:
    captured = boot("secureboot-on").events
    found = read_facts(captured, bank="sha256")
    assert found["platform_key"] == Fact((DEBIAN,), 7, 4)
    assert found["key_exchange_keys"] == Fact((DEBIAN, MICROSOFT.format("Corporation KEK CA 2011")), 7, 5)
    assert found["db"] == Fact((MICROSOFT.format("Windows Production PCA 2011"), UEFI_CA), 7, 6)
    dbx = parse_variable(captured[7].data or b"").value
    assert found["dbx_sha256"] == Fact(hashlib.sha256(dbx).hexdigest(), 7, 7)
    assert found["boot_authorities"] == Fact((UEFI_CA,), 7, 21)


@pytest.mark.parametrize("name", ["db", "dbx"])
def test_a_malformed_signature_list_is_no_answer(name: str) -> None:
    data = variable(name, b"\1" * 40, guid=IMAGE_SECURITY.bytes_le)
    assert value("db", record(7, 0x80000001, data), HANDOVER) is None
    assert value("dbx_entries", record(7, 0x80000001, data), HANDOVER) is None


def test_shims_level_is_shown_without_its_last_newline() -> None:
    level = record(7, 0x800000E0, variable("SbatLevel", b"sbat,1,2025\n", guid=SHIM.bytes_le))
    assert value("sbat", HANDOVER, level) == "sbat,1,2025"
    assert value("sbat", level, HANDOVER) is None


def test_only_the_first_measurement_can_be_the_firmwares_version() -> None:
    version = record(0, 8, "F42\0".encode("utf-16-le"))
    assert value("firmware_version", version) == "F42"
    assert value("firmware_version", record(0, 1, b"code"), version) is None
    assert value("firmware_version", forged(0, 8, b"F42")) is None


@pytest.mark.parametrize("label", [b"kernel_cmdline: ", b"grub_cmd: ", b"module_cmdline: ", b"grub_cmd "])
def test_a_label_neither_makes_nor_hides_a_command_line(label: bytes) -> None:
    assert value("kernel_command_line", grub(b"linux " + LINE), grub(LINE, label=label)) == LINE.decode()
    assert value("kernel_command_line", grub(b"set a=b", label=label)) is None


COMMAND_LINE_UNPROVEN = {
    "two, none of them set by a command": (grub(b"/vmlinuz a"), grub(b"/vmlinuz b")),
    "one line that is not proved": (grub(LINE), forged(8, 0xD, b"grub_cmd: boot\0")),
    "a line that is not proved": (forged(8, 0xD, b"kernel_cmdline: /vmlinuz\0"),),
    "control characters": (grub(b"/vmlinuz \x1b[2J"),),
    "a stub's line that was not measured": (forged(12, 0xD, "ro".encode("utf-16-le")),),
    "two different lines of a stub": (record(12, 0xD, b"ro"), record(12, 0xD, b"rw")),
    "the wrong PCR": (record(9, 0xD, b"kernel_cmdline: /vmlinuz\0"),),
}


@pytest.mark.parametrize("records", COMMAND_LINE_UNPROVEN.values(), ids=COMMAND_LINE_UNPROVEN)
def test_a_command_line_is_not_guessed(records: Sequence[bytes]) -> None:
    assert value("kernel_command_line", *records) is None


def test_the_last_of_several_boot_attempts_counts() -> None:
    attempts = [grub(b"linux /one"), grub(b"/one"), grub(b"linux /two ro"), grub(b"/two ro")]
    assert value("kernel_command_line", *attempts) == "/two ro"


def test_a_stubs_command_line_counts_where_the_kernel_measured_it_too() -> None:
    data = "console=ttyS0 lockdown=confidentiality\0".encode("utf-16-le")
    line = record(12, 0xD, data)
    options = record(9, 6, b"label", digest=hashlib.sha256(data).digest())
    assert value("kernel_command_line", line) == "console=ttyS0 lockdown=confidentiality"
    assert value("lockdown", line) is None
    assert value("lockdown", options, line) == "confidentiality"
    assert facts(options, line)["lockdown"] == Fact("confidentiality", 9, 0)


def test_arguments_lean_on_the_line_that_they_stand_on() -> None:
    found = facts(grub(b"linux " + LINE), grub(LINE))
    assert found["lockdown"] == Fact("integrity", 8, 1)
    assert found["module_signatures_enforced"] == Fact("1", 8, 1)
    assert found["kernel_debug_arguments"] == Fact((), 8, 1)
    assert found["crash_dumps"] == Fact(False, 8, 1)


def test_without_a_line_nothing_is_absent() -> None:
    assert value("crash_dumps", HANDOVER) is None
    assert value("kernel_debug_arguments", grub(LINE), forged(8, 0xD, b"grub_cmd: boot\0")) is None
    stub = record(12, 0xD, "ro\0".encode("utf-16-le"))
    assert value("rescue_boot", stub) is None


LATCHES = [
    ("boot_debugging", 0x00040001, 0, 1, True),
    ("kernel_debug", 0x00050001, 0, 1, True),
    ("test_signing", 0x00050003, 0, 1, True),
    ("safe_mode", 0x00050005, 0, 1, True),
    ("code_integrity", 0x00050002, 1, 0, False),
    ("hibernation_disabled", 0x00050024, 1, 0, False),
    ("dep", 0x00050004, 3, 2, False),
    ("cold_boot", 0x00020003, 1, 2, False),
    ("cold_boot", 0x00020003, 5, 2, False),
    ("vbs_mmio_nx_required", 0x000A0004, 1, 0, False),
    ("vbs_boot_chain_required", 0x000A0008, 1, 0, False),
    ("svn_chain_intact", 0x0002000A, 0, 1, False),
    ("memory_overwrite_request", 0x0002000B, 0, 0x25, False),
    ("identity_keys_made", 0x0002000C, 0, 1, False),
]


@pytest.mark.parametrize(("name", "kind", "good", "bad", "latched"), LATCHES)
def test_one_bad_stage_is_enough(name: str, kind: int, good: int, bad: int, latched: bool) -> None:
    assert value(name, windows(flag(kind, good), flag(kind, good))) is not latched
    assert value(name, windows(flag(kind, good), flag(kind, bad), flag(kind, good))) is latched
    both = windows(flag(kind, good)), windows(flag(kind, bad), pcr=13)
    assert value(name, *both) is latched


@pytest.mark.parametrize(("name", "kind", "good", "bad", "latched"), LATCHES)
def test_windows_answers_nothing_without_proof(name: str, kind: int, good: int, bad: int, latched: bool) -> None:
    record_ = flag(kind, good)
    tagged = sipa(0x40010001, record_)
    assert value(name) is None
    assert value(name, windows(record_, ended=False)) is None
    assert value(name, record(12, 4, WBCL), windows(record_)) is None
    assert value(name, forged(12, 6, tagged), record(12, 4, WBCL)) is None
    assert value(name, record(12, 6, tagged), forged(12, 6, tagged), record(12, 4, WBCL)) is None
    assert value(name, record(12, 6, tagged + b"\1"), record(12, 4, WBCL)) is None
    assert value(name, windows(record_, pcr=11)) is None
    assert value(name, windows(sipa(kind, bytes(3)))) is None


def test_the_lowest_version_of_all_stages_counts() -> None:
    assert value("application_svn", windows(flag(0x00020009, 3, size=4), flag(0x00020009, 2, size=4))) == 2


@pytest.mark.parametrize(
    ("name", "kind"), [("dump_encryption_key", 0x00050027), ("smt_status", 0x00050014), ("lsa_iso_config", 0x00050028)]
)
def test_two_different_values_are_none(name: str, kind: int) -> None:
    expected = "02000000" if name == "dump_encryption_key" else 2
    assert value(name, windows(flag(kind, 2, size=4), flag(kind, 2, size=4))) == expected
    assert value(name, windows(flag(kind, 2, size=4), flag(kind, 3, size=4))) is None
    assert value(name, windows(sipa(kind, b""))) is None


# wbcl.h: number of a record, its content, and what it says. Numbers are written out here, and not imported.
MEASURED: dict[str, tuple[int, bytes, object]] = {
    "application_svn": (0x00020009, b"\2\0\0\0", 2),
    "boot_count": (0x00020002, b"\7" + bytes(7), 7),
    "boot_debugging": (0x00040001, b"\1", True),
    "code_integrity": (0x00050002, b"\1", True),
    "code_integrity_signers": (0x00050031, b"x", (hashlib.sha256(b"x").hexdigest(),)),
    "code_integrity_update_signers": (0x00050032, b"x", (hashlib.sha256(b"x").hexdigest(),)),
    "cold_boot": (0x00020003, b"\1\0\0\0", True),
    "counter_id": (0x00020007, b"\5" + bytes(7), 5),
    "dep": (0x00050004, b"\3" + bytes(7), True),
    "dep_policy": (0x00050004, b"\3" + bytes(7), "AlwaysOn"),
    "dma_protection": (0x00050030, b"\1", True),
    "driver_load_policy": (0x0005000E, b"\3\0\0\0", 3),
    "drtm_smm_level": (0x000C0002, b"\2\0\0\0", 2),
    "dump_encryption": (0x00050026, b"\1", True),
    "dump_encryption_key": (0x00050027, b"\xab" * 32, "ab" * 32),
    "dump_uses_ame_root": (0x000A0009, b"\1", True),
    "dumps_disabled": (0x00050025, b"\1", True),
    "event_counter": (0x00020006, b"\6" + bytes(7), 6),
    "flight_signing": (0x00050021, b"\1", True),
    "hibernation_disabled": (0x00050024, b"\1", True),
    "hypervisor": (0x0005000A, b"\1" + bytes(7), True),
    "hypervisor_debug": (0x0005000D, b"\1", True),
    "hypervisor_iommu_policy": (0x0005000C, b"\2" + bytes(7), 2),
    "hypervisor_mmio_nx": (0x00050010, b"\1" + bytes(7), True),
    "hypervisor_msr_filter": (0x00050011, b"\1" + bytes(7), True),
    "hypervisor_path": (0x0005000B, "\\hvix64.exe\0".encode("utf-16-le"), "\\hvix64.exe"),
    "identity_key": (0x00050020, b"x", hashlib.sha256(b"x").hexdigest()),
    "identity_keys_made": (0x0002000C, bytes(4), True),
    "identity_signing_key": (0x00050023, b"x", hashlib.sha256(b"x").hexdigest()),
    "iommu_required": (0x000A0003, b"\1", True),
    "kernel_debug": (0x00050001, b"\1", True),
    "lsa_iso_config": (0x00050028, b"\1\0\0\0", 1),
    "memory_overwrite_request": (0x0002000B, bytes(4), True),
    "pagefile_encryption": (0x00050022, b"\1", True),
    "safe_mode": (0x00050005, b"\1", True),
    "smt_status": (0x00050014, b"\1" + bytes(7), 1),
    "svn_chain_intact": (0x0002000A, bytes(4), True),
    "system_root": (0x00050009, "\\Windows\0".encode("utf-16-le"), "\\Windows"),
    "test_signing": (0x00050003, b"\1", True),
    "vbs_boot_chain_required": (0x000A0008, b"\1", True),
    "vbs_mandatory": (0x000A0006, b"\1", True),
    "vbs_mmio_nx_required": (0x000A0004, b"\1", True),
    "vbs_msr_filter_required": (0x000A0005, b"\1", True),
    "vbs_no_secrets": (0x000A000A, b"\1", True),
    "vbs_secure_boot_required": (0x000A0002, b"\1", True),
    "vbs_vsm_required": (0x000A0001, b"\1", True),
    "winpe": (0x00050006, b"\1", True),
}
# What is made of several records has tests of its own.
COMPOSED = {
    *("authority_keys", "bitlocker_unlocks", "boot_failures", "code_integrity_policies", "elam", "hvci"),
    *("revocation_lists", "secure_boot_policies", "unvalidated_modules", "vsm"),
}


def test_every_fact_of_windows_is_tested_by_its_number() -> None:
    assert windows_facts((), bank="sha256").keys() == MEASURED.keys() | COMPOSED


@pytest.mark.parametrize("name", MEASURED)
def test_a_record_of_windows_says_one_thing(name: str) -> None:
    kind, content, expected = MEASURED[name]
    found = windows_facts(events(windows(sipa(kind, content))), bank="sha256")
    said = {each: fact[0] for each, fact in found.items() if fact is not None and each != "boot_failures"}
    assert said[name] == expected
    assert said.keys() - {name} <= {"dep", "dep_policy"}


def module(path: str, *, validated: int) -> bytes:
    return sipa(0x40010003, sipa(0x00070001, path.encode("utf-16-le")) + flag(0x0007000A, validated))


def test_modules_that_the_loader_did_not_accept_are_named() -> None:
    good, bad = module("good.sys", validated=1), module("bad.sys", validated=0)
    assert value("unvalidated_modules", windows(good, bad)) == ("bad.sys",)
    assert value("unvalidated_modules", windows(good)) == ()
    assert value("unvalidated_modules", windows(sipa(0x40010003, sipa(0x00070004, b"hash")))) is None


def test_failures_are_named_or_proved_to_be_none() -> None:
    assert value("boot_failures", windows(sipa(0x00030001), sipa(0x00030005))) == ("firmware", "hypervisor")
    assert value("boot_failures", windows(flag(0x00040001, 0))) == ()
    assert value("boot_failures", windows(flag(0x00040001, 0), ended=False)) is None


def test_keys_that_vouch_for_loaders_are_read_from_pcr_14() -> None:
    key = hashlib.sha256(b"key").hexdigest()
    assert facts(*TRUST_POINT)["authority_keys"] == Fact((key,), 14, 0)
    assert value("authority_keys", *TRUST_POINT[:1]) is None


def test_policies_and_lists_are_shown_by_their_hash() -> None:
    policy = sipa(0x00050029, pack("<IIHHII", 1, 20, 0xB, 2, 0, 0) + b"\1\2")
    lists = sipa(0x00040002, pack("<QIH", 0, 1, 0xB) + b"\3") + sipa(0x00050013, pack("<QIH", 0, 1, 0xB) + b"\4")
    assert value("secure_boot_policies", windows(policy)) == ("sha256:0102",)
    assert value("revocation_lists", windows(lists)) == {"sha256:03": "1601-01-01", "sha256:04": "1601-01-01"}
    assert value("revocation_lists", windows(lists + sipa(0x00050013, b"short"))) is None
    signer = hashlib.sha256(b"signer").hexdigest()
    assert value("code_integrity_signers", windows(sipa(0x00050031, b"signer"))) == (signer,)


@pytest.mark.parametrize(("content", "shown"), [("\\Windows\0", "\\Windows"), ("a\x1b[2J", None)])
def test_text_of_windows_is_shown_when_it_can_be(content: str, shown: str | None) -> None:
    assert value("system_root", windows(sipa(0x00050009, content.encode("utf-16-le")))) == shown


def test_two_boot_counters_are_none() -> None:
    assert value("boot_count", windows(flag(0x00020002, 7, size=8))) == 7
    assert value("boot_count", windows(flag(0x00020002, 7, size=8), flag(0x00020002, 9, size=8))) is None


VSM, HYPERVISOR, HVCI = flag(0x00050012, 1, size=8), flag(0x0005000A, 1, size=8), flag(0x000A0007, 1, size=8)


@pytest.mark.parametrize(
    ("records", "vsm", "hvci"),
    [
        pytest.param((VSM, HYPERVISOR, HVCI), True, True, id="all on"),
        pytest.param((VSM, HYPERVISOR), True, False, id="no integrity policy"),
        pytest.param((VSM, HVCI), False, False, id="no hypervisor"),
        pytest.param((flag(0x00050012, 0, size=8), HYPERVISOR, HVCI), False, False, id="policy, but not launched"),
        pytest.param((HYPERVISOR, HVCI), None, None, id="nothing about the secure kernel"),
    ],
)
def test_hvci_needs_the_secure_kernel_under_it(records: Sequence[bytes], vsm: object, hvci: object) -> None:
    assert (value("vsm", windows(*records)), value("hvci", windows(*records))) == (vsm, hvci)


def test_an_early_launch_driver_is_named_with_its_measurement() -> None:
    name, measured = sipa(0x00090001, "Defender\0".encode("utf-16-le")), sipa(0x00090004, b"\1\2")
    assert value("elam", windows(sipa(0x40010002, name + measured))) == {"Defender": "0102"}


def test_every_unlocked_volume_is_listed_once() -> None:
    both = windows(flag(0x00020005, 4, size=4), flag(0x00020005, 1, size=4))
    assert value("bitlocker_unlocks", both, windows(flag(0x00020005, 4, size=4), pcr=13)) == (4, 1)


def test_a_code_integrity_policy_is_shown_by_name_and_hash() -> None:
    name = "P\0".encode("utf-16-le")
    policy = pack("<QHHI", 1, len(name), 0x800C, 2) + name + b"\1\2"
    assert value("code_integrity_policies", windows(sipa(0x0005000F, policy))) == ("P sha256:0102",)
    assert value("code_integrity_policies", windows(sipa(0x0005000F, policy[:-1]))) is None


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from([0, 7, 8, 11, 12, 13]), st.binary(max_size=80)), max_size=8))
def test_any_events_give_facts_about_them(raw: list[tuple[int, bytes]]) -> None:
    found = events(*(record(pcr, 0x80000001, data) for pcr, data in raw))
    indices = {(event.index, event.pcr) for event in found}
    for fact in read_facts(found, bank="sha256").values():
        assert fact is None or (fact.event, fact.pcr) in indices
