"""Other people's logs: every one with PCRs that a TPM read replays to them, or is the one with a known anomaly."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from attestation.core.eventlog import EV_NO_ACTION, parse_event_log
from attestation.core.inspection import LogReport, inspect_log
from attestation.core.replay import events_behind, replay, replay_values
from attestation.core.words import describe
from attestation.errors import ParseError, ReplayMismatch
from tests.boot_logs import COLLECTION

ANOMALIES = {"google_go-attestation/ebs_event_missing_eventlog": {"exit_boot_services_unlogged"}}
# What is in these logs on purpose, or by mistake, and must be said.
FLAGGED = {
    "nsacyber_HIRS/TPMLog_Altered.bin": "data_mismatch",
    "nsacyber_HIRS/laptop_badOemInstall_oem.1.rimel": "boot_program_missing",
    "nsacyber_HIRS/laptop_badVarInstall_var.1.rimel": "separator_missing",
    "nsacyber_HIRS/binary_bios_measurements_addEvt11asSPDMFirmwareBlob_version1": "algorithm_undeclared",
    "kgoldman_ibmtss/amd635.log": "separator_duplicate",
    "google_go-tpm-tools/arch-linux-workstation.bin": "secure_boot_malformed",
}
DIFFERENCES = {"pcr_mismatch", "pcr_not_in_log", "pcr_moved", "startup_locality_wrong", "exit_boot_services_unlogged"}


def _entries() -> list[dict[str, Any]]:
    index = COLLECTION / "index.json"
    entries = json.loads(index.read_text()) if index.exists() else []
    return [entry for entry in entries if entry["kind"] == "eventlog"]


ENTRIES = _entries()
pytestmark = pytest.mark.skipif(not ENTRIES, reason="the collection of other people's logs is not on this machine")


def _read(entry: dict[str, Any]) -> LogReport:
    banks = entry.get("expected_pcrs") or {}
    measured = {bank: {int(pcr): bytes.fromhex(value) for pcr, value in banks[bank].items()} for bank in banks}
    return inspect_log((COLLECTION / entry["file"]).read_bytes(), measured=measured or None)


def _file(entry: dict[str, Any]) -> str:
    return str(entry["file"])


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each["n_events"]], ids=_file)
def test_a_log_is_read_whole(entry: dict[str, Any]) -> None:
    report = _read(entry)
    assert report.records == entry["n_events"]
    assert report.log.startup_locality == entry.get("startup_locality", 0)
    assert report.log.format == ("sha1" if entry["format"] == "sha1-only" else "crypto-agile")


@pytest.mark.parametrize(
    "entry", [each for each in ENTRIES if str(each.get("expected_source")).startswith("independent")], ids=_file
)
def test_a_log_leads_to_what_its_tpm_read(entry: dict[str, Any]) -> None:
    report = _read(entry)
    found = {oddity.code for oddity in report.oddities} & DIFFERENCES
    assert found == ANOMALIES.get(entry["file"], set())
    for bank, expected in entry["expected_pcrs"].items():
        led = report.banks.get(bank, {})
        wrong = {pcr for pcr, value in expected.items() if int(pcr) in led and led[int(pcr)].hex() != value.lower()}
        assert wrong == ({"5"} if led and entry["file"] in ANOMALIES else set())


WINDOWS = [each for each in ENTRIES if each["os"] == "Windows" and not each["malicious"]]
WHOLE_DUMPS = [each for each in ENTRIES if any(len(values) == 24 for values in each.get("expected_pcrs", {}).values())]


@pytest.mark.parametrize("entry", WHOLE_DUMPS, ids=_file)
def test_a_whole_dump_of_a_tpm_vouches_for_every_pcr_that_stood_still(entry: dict[str, Any]) -> None:
    log = parse_event_log((COLLECTION / entry["file"]).read_bytes())
    for bank, values in entry["expected_pcrs"].items():
        quoted = {pcr: bytes.fromhex(values[str(pcr)]) for pcr in range(15)}
        events = replay(log, quoted=quoted, bank=bank)
        measured = [event for event in log.events if event.untrusted_type != EV_NO_ACTION and event.pcr < 15]
        assert [event.digest for event in events] == [event.digests[bank] for event in measured]


@pytest.mark.parametrize("entry", WINDOWS, ids=_file)
def test_windows_is_read_in_the_bank_it_writes(entry: dict[str, Any]) -> None:
    log = parse_event_log((COLLECTION / entry["file"]).read_bytes())
    bank = "sha256" if "sha256" in log.banks else "sha1"
    measured = {event.pcr for event in log.events if event.untrusted_type != EV_NO_ACTION}
    values = replay_values(log, bank)
    assert set(values) == measured
    later = {pcr: bytes(len(values[0])) for pcr in (11, 12, 13)}
    assert {event.pcr for event in replay(log, quoted=values, bank=bank)} == measured
    assert {event.pcr for event in replay(log, quoted=values | later, bank=bank)} == measured - set(later)


@pytest.mark.parametrize("entry", [each for each in WINDOWS if each.get("incomplete_banks")], ids=_file)
def test_windows_is_refused_in_the_bank_it_leaves_out(entry: dict[str, Any]) -> None:
    log = parse_event_log((COLLECTION / entry["file"]).read_bytes())
    values = replay_values(log, "sha1")
    assert not {11, 12, 13, 14} & set(values)
    assert {event.pcr for event in replay(log, quoted=values, bank="sha1")} == set(values)
    with pytest.raises(ReplayMismatch, match="PCR 14: record"):
        replay(log, quoted=values | dict.fromkeys((11, 12, 13, 14), bytes(20)), bank="sha1")


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each["malicious"]], ids=_file)
def test_a_malicious_log_is_refused_or_flagged(entry: dict[str, Any]) -> None:
    try:
        report = _read(entry)
    except ParseError:
        return
    assert report.oddities


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each["file"] in FLAGGED], ids=_file)
def test_what_is_odd_is_said(entry: dict[str, Any]) -> None:
    assert FLAGGED[entry["file"]] in {oddity.code for oddity in _read(entry).oddities}


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each.get("expected_kernel_cmdline")], ids=_file)
def test_the_kernel_command_line_is_proved(entry: dict[str, Any]) -> None:
    fact = _read(entry).facts["kernel_command_line"]
    assert fact is not None
    assert fact.value == entry["expected_kernel_cmdline"].rstrip("\0")


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each.get("expected_facts")], ids=_file)
def test_windows_answers_as_others_read_it(entry: dict[str, Any]) -> None:
    facts = _read(entry).facts
    found = {name: facts[name] for name in entry["expected_facts"]}
    values = {name: fact.value if fact is not None else None for name, fact in found.items()}
    assert {**values, "bitlocker_unlocks": [0, 0]} == entry["expected_facts"]
    assert values["bitlocker_unlocks"] == (0, 0)


# The index has four programs for this log, which are not in it; its PCRs are those of the log.
OTHER_PROGRAMS = "google_go-tpm-tools/gdc-host.bin"
PROGRAMS = [each for each in ENTRIES if each.get("expected_efi_app_digests") and each["file"] != OTHER_PROGRAMS]


@pytest.mark.parametrize("entry", PROGRAMS, ids=_file)
def test_the_programs_that_were_started_are_those_that_others_found(entry: dict[str, Any]) -> None:
    log = parse_event_log((COLLECTION / entry["file"]).read_bytes())
    for bank, expected in entry["expected_efi_app_digests"].items():
        events = [event for event in events_behind(log, {4}, bank=bank) if event.untrusted_type == 0x80000003]
        assert [event.digest.hex() for event in events] == expected
        assert {describe(event).name for event in events} == {"Boot program"}


# What others read out of Windows' records, stage by stage: the fact that it is here.
ONE_IS_ENOUGH = {
    "boot_debugging": "boot_debugging",
    "test_signing": "test_signing",
    "flight_signing": "flight_signing",
    "hypervisor_debug": "hypervisor_debug",
    "os_kernel_debug": "kernel_debug",
    "safe_mode": "safe_mode",
    "winpe": "winpe",
}
ALL_ARE_NEEDED = {
    "code_integrity": "code_integrity",
    "hv_mmio_nx": "hypervisor_mmio_nx",
    "hv_msr_filter": "hypervisor_msr_filter",
    "hypervisor_launch_type": "hypervisor",
    "vsm_launch_type": "vsm",
    "pagefile_enc": "pagefile_encryption",
    "hibernation_disabled": "hibernation_disabled",
    "dumps_disabled": "dumps_disabled",
    "vbs_vsm_required": "vbs_vsm_required",
    "vbs_sb_required": "vbs_secure_boot_required",
}
THE_SAME = {
    "counter_id": "counter_id",
    "event_counter": "event_counter",
    "boot_count": "boot_count",
    "hypervisor_iommu_policy": "hypervisor_iommu_policy",
    "driver_load_policy": "driver_load_policy",
}


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each.get("windows_facts_observed")], ids=_file)
def test_windows_records_are_read_as_others_read_them(entry: dict[str, Any]) -> None:
    observed = dict(entry["windows_facts_observed"])
    facts = inspect_log((COLLECTION / entry["file"]).read_bytes(), measured=None).facts
    found = {name: fact and fact.value for name, fact in facts.items()}
    # Boot manager and loader say it in PCR 12, and again in PCR 13: a volume is listed once for each of them.
    assert found["bitlocker_unlocks"] == tuple(observed.pop("bitlocker_unlock")[::2])
    drivers = found["elam"]
    assert isinstance(drivers, Mapping)
    assert set(observed.pop("elam_keyname")) == set(drivers)
    assert found["dep_policy"] == {0: "OptIn", 1: "OptOut"}[observed.pop("dep")[0]]
    for name, values in observed.items():
        if name in THE_SAME:
            assert [found[THE_SAME[name]]] == sorted(set(values))
        elif name in ONE_IS_ENOUGH:
            assert found[ONE_IS_ENOUGH[name]] is any(values)
        else:
            assert found[ALL_ARE_NEEDED[name]] is all(values)


CONFIDENTIAL: dict[str, dict[str, object]] = {
    "CCEL_data_ovmf": {"secure_boot": False, "dbx_entries": 0, "platform": "linux"},
    "CCEL_data_grub": {"secure_boot": True, "dbx_entries": 1, "platform": "linux", "mok_entries": 0},
    "CCEL_data_grub_gke": {"secure_boot": False, "dbx_entries": 186, "platform": "linux"},
    "CCEL_data_gcp": {"secure_boot": False, "dbx_entries": 186, "platform": None},
    "CCEL_AAEL_alibabacloud": {"secure_boot": False, "platform": "linux", "crash_dumps": True, "lockdown": None},
}


@pytest.mark.parametrize("entry", [each for each in ENTRIES if _file(each).split("/")[-1] in CONFIDENTIAL], ids=_file)
def test_a_confidential_guest_is_read_from_its_registers(entry: dict[str, Any]) -> None:
    facts = _read(entry).facts
    expected = CONFIDENTIAL[entry["file"].split("/")[-1]]
    found = {name: facts[name] for name in expected}
    assert {name: fact and fact.value for name, fact in found.items()} == expected
    assert {fact.pcr for fact in facts.values() if fact is not None} <= {1, 2, 3}


MACHINE_OWNER_KEYS = {
    "google_go-tpm-tools/cos-101-amd-sev.bin": 0,
    "google_go-tpm-tools/rhel8-uefi.bin": 0,
    "keylime_keylime/mb_log.bin": 0,
    "kgoldman_ibmtss/deb1.log": 2,
    "kgoldman_ibmtss/amd635.log": None,
}


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each["file"] in MACHINE_OWNER_KEYS], ids=_file)
def test_keys_that_the_owner_enrolled_are_counted(entry: dict[str, Any]) -> None:
    fact = _read(entry).facts["mok_entries"]
    assert (fact and fact.value) == MACHINE_OWNER_KEYS[entry["file"]]


def test_a_server_that_booted_without_dma_protection_is_told() -> None:
    (entry,) = [each for each in ENTRIES if each["file"].startswith("hpe-security-lab") and each["n_events"]]
    fact = _read(entry).facts["firmware_dma_protection_disabled"]
    assert fact is not None
    assert fact.value is True


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each["os"] in ("Linux", "Windows")], ids=_file)
def test_the_platform_is_told_or_left_open(entry: dict[str, Any]) -> None:
    fact = _read(entry).facts["platform"]
    if fact is not None:
        assert fact.value == entry["os"].lower()
    elif entry["os"] == "Linux" and entry.get("expected_kernel_cmdline"):
        pytest.fail("the kernel's command line proves that this is Linux")


SIPA_FACTS: dict[str, dict[str, object]] = {
    "kgoldman_ibmtss/dell1.log": {"boot_count": 1039716173, "event_counter": 2304, "cold_boot": True, "vsm": False},
    "kgoldman_ibmtss/hp1.log": {"boot_count": 42, "event_counter": 3328, "cold_boot": True, "elam": True},
    "kgoldman_ibmtss/p511.log": {"boot_count": 155, "cold_boot": True, "vsm": True, "bitlocker_unlocks": (4, 1)},
    "google_go-attestation/windows_gcp_shielded_vm.wbcl.bin": {"memory_overwrite_request": False, "smt_status": 0},
}


@pytest.mark.parametrize("entry", [each for each in ENTRIES if each["file"] in SIPA_FACTS], ids=_file)
def test_windows_says_how_it_was_started(entry: dict[str, Any]) -> None:
    facts = _read(entry).facts
    expected = SIPA_FACTS[entry["file"]]
    found = {name: facts[name] for name in expected}
    values = {name: fact and (bool(fact.value) if name == "elam" else fact.value) for name, fact in found.items()}
    assert values == expected
    for name in ("revocation_lists", "secure_boot_policies", "authority_keys"):
        assert facts[name] is not None
    for name in ("unvalidated_modules", "boot_failures"):
        fact = facts[name]
        assert fact is not None
        assert fact.value == ()
