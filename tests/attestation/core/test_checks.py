"""Every check says pass, fail or unproven, and says it from proved facts only."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from attestation.core import baselines
from attestation.core.baselines import AREAS
from attestation.core.check import Answer, CodePolicy, Counters, Parameters, Proved, RuntimeOutcome, Verdict
from attestation.core.checks import BASELINE, CHECKS, DEFAULT
from attestation.core.claims import BANK, read_boot
from attestation.core.command_line import read_command_line
from attestation.core.common_rules import TAMPERED
from attestation.core.eventlog import parse_event_log
from attestation.core.facts import Fact, FactValue
from attestation.core.linux import linux_facts
from attestation.core.oddities import Oddity
from attestation.core.replay import replay_banks
from attestation.core.tpm import Clock
from tests.attestation.core.test_baselines import SUBSTATUS
from tests.boot_logs import COLLECTION, boot

PAGES = Path(__file__).parents[3] / "docs" / "checks"
CLOCK = Clock(1000, 5, 0, safe=True)
LINE_PCR, WINDOWS_PCR, FIRMWARE_PCR = 8, 12, 7
PINNED = frozenset((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14))


def ask(code: str, proved: Proved, platform: str) -> Answer:
    rule = CHECKS[code].rule_for(platform)
    assert rule is not None
    return rule(proved)


def firmware(**values: FactValue) -> dict[str, Fact | None]:
    settings = {"uefi_debug_mode": False, "firmware_dma_protection_disabled": False, "secure_boot": True} | values
    return {name: Fact(value, FIRMWARE_PCR, 3) for name, value in settings.items()}


def linux(line: str, *, pcr: int = LINE_PCR, pinned: frozenset[int] = PINNED, **more: FactValue) -> Proved:
    """What a host proves whose kernel was started with this line."""
    values: Mapping[str, FactValue | None] = linux_facts(line)
    facts = {name: None if value is None else Fact(value, pcr, 20) for name, value in values.items()}
    return Proved(facts={**firmware(**more), **facts}, pinned=pinned, clock=CLOCK)


def windows(**values: FactValue) -> Proved:
    facts = {name: Fact(value, WINDOWS_PCR, 40) for name, value in values.items()}
    return Proved(facts={**firmware(), **facts}, pinned=PINNED, clock=CLOCK)


PASS, FAIL, UNPROVEN = Verdict.PASS, Verdict.FAIL, Verdict.UNPROVEN


@pytest.mark.parametrize(
    ("code", "line", "verdict"),
    [
        ("debug_mode", "/vmlinuz quiet", PASS),
        ("debug_mode", "/vmlinuz kgdboc=ttyS0", FAIL),
        ("debug_mode", "/vmlinuz kgdbwait", FAIL),
        ("debug_mode", "/vmlinuz earlyprintk=serial", FAIL),
        ("kernel_lockdown", "/vmlinuz lockdown=integrity", PASS),
        ("kernel_lockdown", "/vmlinuz lockdown=confidentiality", PASS),
        ("kernel_lockdown", "/vmlinuz lockdown=none", FAIL),
        ("kernel_lockdown", "/vmlinuz lockdown", FAIL),
        ("kernel_lockdown", "/vmlinuz lockdown=none lockdown=integrity", UNPROVEN),
        ("kernel_lockdown", "/vmlinuz quiet", UNPROVEN),
        ("kernel_lockdown", "/vmlinuz lockdown=integrity lsm=lockdown,yama,apparmor", PASS),
        ("kernel_lockdown", "/vmlinuz lockdown=integrity lsm=yama,apparmor", UNPROVEN),
        ("kernel_lockdown", "/vmlinuz lockdown=integrity lsm=lockdown lsm=yama", UNPROVEN),
        ("kernel_lockdown", "/vmlinuz lockdown=none lsm=yama", FAIL),
        ("module_signatures", "/vmlinuz lockdown=integrity lsm=yama", UNPROVEN),
        ("no_hibernation", "/vmlinuz lockdown=integrity lsm=yama", UNPROVEN),
        ("kernel_lockdown", "/vmlinuz -- lockdown=integrity", UNPROVEN),
        ("module_signatures", "/vmlinuz module.sig_enforce=1", PASS),
        ("module_signatures", "/vmlinuz module.sig_enforce", PASS),
        ("module_signatures", "/vmlinuz lockdown=integrity", PASS),
        ("module_signatures", "/vmlinuz module.sig_enforce=Yes", PASS),
        ("module_signatures", "/vmlinuz module.sig_enforce=true", UNPROVEN),
        ("module_signatures", "/vmlinuz module.sig_enforce=off", FAIL),
        ("module_signatures", "/vmlinuz module.sig_enforce=0", FAIL),
        ("module_signatures", "/vmlinuz", UNPROVEN),
        ("kernel_code_integrity", "/vmlinuz lockdown=integrity", PASS),
        ("kernel_code_integrity", "/vmlinuz lockdown=none module.sig_enforce=1", FAIL),
        ("kernel_code_integrity", "/vmlinuz module.sig_enforce=1", UNPROVEN),
        ("ima_policy", "/vmlinuz ima_policy=tcb", PASS),
        ("ima_policy", "/vmlinuz ima_policy=secure_boot|tcb", PASS),
        ("ima_policy", "/vmlinuz ima_policy=fail_securely", FAIL),
        ("ima_policy", "/vmlinuz ima_policy=critical_data", FAIL),
        ("ima_policy", '/vmlinuz ima_policy="secure_boot | tcb"', PASS),
        ("ima_policy", "/vmlinuz", UNPROVEN),
        ("code_integrity_enforced", "/vmlinuz ima_appraise=enforce", UNPROVEN),
        ("code_integrity_enforced", "/vmlinuz ima_policy=tcb ima_appraise=enforce", UNPROVEN),
        ("code_integrity_enforced", "/vmlinuz ima_policy=tcb|appraise_tcb ima_appraise=enforce", PASS),
        ("code_integrity_enforced", "/vmlinuz ima_policy=appraise_tcb", PASS),
        ("code_integrity_enforced", "/vmlinuz ima_policy=appraise_tcb ima_appraise=enforce ima_appraise=log", FAIL),
        ("code_integrity_enforced", "/vmlinuz ima_policy=appraise_tcb ima_policy=tcb", UNPROVEN),
        ("code_integrity_enforced", "/vmlinuz ima_policy=appraise_tcb ima_appraise=log", FAIL),
        ("code_integrity_enforced", "/vmlinuz ima_policy=tcb|secure_boot", PASS),
        ("code_integrity_enforced", "/vmlinuz ima_appraise=log", FAIL),
        ("code_integrity_enforced", "/vmlinuz ima_appraise=fix ima_policy=secure_boot", FAIL),
        ("code_integrity_enforced", "/vmlinuz", UNPROVEN),
        ("iommu", "/vmlinuz intel_iommu=on iommu.passthrough=0", PASS),
        ("iommu", "/vmlinuz intel-iommu=on,sm_on iommu.passthrough=off iommu.strict=1", PASS),
        ("iommu", "/vmlinuz amd_iommu=force_enable iommu=nopt", PASS),
        ("iommu", "/vmlinuz intel_iommu=on intel_iommu=sm_on iommu.passthrough=0", PASS),
        ("iommu", "/vmlinuz intel_iommu=on", UNPROVEN),
        ("iommu", "/vmlinuz intel_iommu=on iommu.passthrough=false", UNPROVEN),
        ("iommu", "/vmlinuz intel_iommu=on iommu=usedac,nopt", UNPROVEN),
        ("iommu", "/vmlinuz intel_iommu=strict iommu.passthrough=0", UNPROVEN),
        ("iommu", "/vmlinuz iommu.passthrough=0 iommu.strict=1", UNPROVEN),
        ("iommu", "/vmlinuz iommu=force", UNPROVEN),
        ("iommu", "/vmlinuz intel_iommu=on iommu.passthrough=0 iommu.passthrough=y", FAIL),
        ("iommu", "/vmlinuz intel_iommu=on iommu.passthrough=0 iommu.strict=no", FAIL),
        ("iommu", "/vmlinuz intel_iommu=on,offered iommu.passthrough=0", FAIL),
        ("iommu", "/vmlinuz amd_iommu=force_enable,igfx_off iommu.passthrough=0", FAIL),
        ("iommu", "/vmlinuz intel_iommu=on iommu.passthrough=0 intremap=nosid", FAIL),
        ("iommu", "/vmlinuz intel_iommu=on iommu.passthrough=0 efi=disable_early_pci_dma", PASS),
        ("iommu", "/vmlinuz arm-smmu.disable_bypass=0", FAIL),
        ("iommu", "/vmlinuz intel_iommu=on iommu=pt", FAIL),
        ("iommu", "/vmlinuz intel_iommu=off", FAIL),
        ("iommu", "/vmlinuz iommu.passthrough=1", FAIL),
        ("iommu", "/vmlinuz", UNPROVEN),
        ("encrypted_system", "/vmlinuz rd.luks.uuid=1234", PASS),
        ("encrypted_system", "/vmlinuz rd.luks.name=1234=root root=/dev/mapper/root", PASS),
        ("encrypted_system", "/vmlinuz cryptdevice=UUID=1:root root=UUID=2", PASS),
        ("encrypted_system", "/vmlinuz rd.luks=0", UNPROVEN),
        ("encrypted_system", "/vmlinuz rd.luks=1", UNPROVEN),
        ("encrypted_system", "/vmlinuz rd.luks.uuid=1234 rd.luks=0", UNPROVEN),
        ("encrypted_system", "/vmlinuz rd.luks.uuid=1234 root=/dev/nvme0n1p2", UNPROVEN),
        ("encrypted_system", "/vmlinuz rd.luks.uuid=1234 root=PARTUUID=1", UNPROVEN),
        ("encrypted_system", "/vmlinuz root=/dev/mapper/vg-root", UNPROVEN),
        ("encrypted_system", "/vmlinuz root=/dev/sda2", UNPROVEN),
        ("pagefile_encryption", "/vmlinuz noswap", UNPROVEN),
        ("pagefile_encryption", "/vmlinuz systemd.swap=no", PASS),
        ("pagefile_encryption", "/vmlinuz systemd.swap=0 systemd.swap=1", UNPROVEN),
        ("pagefile_encryption", "/vmlinuz systemd.swap", UNPROVEN),
        ("pagefile_encryption", "/vmlinuz zswap.enabled=0", UNPROVEN),
        ("pagefile_encryption", "/vmlinuz systemd.swap=0", PASS),
        ("pagefile_encryption", "/vmlinuz systemd.swap=1", UNPROVEN),
        ("no_hibernation", "/vmlinuz nohibernate", PASS),
        ("no_hibernation", "/vmlinuz lockdown=integrity resume=/dev/sda3", PASS),
        ("no_hibernation", "/vmlinuz hibernate=no", PASS),
        ("no_hibernation", "/vmlinuz noresume", UNPROVEN),
        ("no_hibernation", "/vmlinuz noresume resume=/dev/sda3", UNPROVEN),
        ("no_hibernation", "/vmlinuz hibernate=noresume", UNPROVEN),
        ("no_hibernation", "/vmlinuz resume=/dev/sda3", FAIL),
        ("no_hibernation", "/vmlinuz", UNPROVEN),
        ("no_dumps", "/vmlinuz", PASS),
        ("no_dumps", "/vmlinuz crashkernel=256M", FAIL),
        ("dump_encryption", "/vmlinuz", PASS),
        ("dump_encryption", "/vmlinuz crashkernel=256M", UNPROVEN),
        ("dump_encryption_key", "/vmlinuz", PASS),
        ("dump_encryption_key", "/vmlinuz crashkernel=256M", UNPROVEN),
        ("normal_start", "/vmlinuz quiet", PASS),
        ("normal_start", "/vmlinuz single", FAIL),
        ("normal_start", "/vmlinuz init=/bin/sh", FAIL),
        ("normal_start", "/vmlinuz -- single", FAIL),
        ("normal_start", "/vmlinuz systemd.unit=rescue.target", FAIL),
        ("processor_protections", "/vmlinuz mitigations=auto,nosmt", PASS),
        ("processor_protections", "/vmlinuz mitigations=off", FAIL),
        ("processor_protections", "/vmlinuz nopti", FAIL),
        ("mandatory_access", "/vmlinuz enforcing=1", PASS),
        ("mandatory_access", "/vmlinuz apparmor=1 lsm=lockdown,apparmor", PASS),
        ("mandatory_access", "/vmlinuz apparmor=1 lsm=lockdown,yama", UNPROVEN),
        ("mandatory_access", "/vmlinuz enforcing=1 lsm=apparmor", UNPROVEN),
        ("mandatory_access", "/vmlinuz apparmor=1 security=apparmor", PASS),
        ("mandatory_access", "/vmlinuz apparmor=1 security=selinux", UNPROVEN),
        ("mandatory_access", "/vmlinuz enforcing=1 selinux=0x00", FAIL),
        ("mandatory_access", "/vmlinuz selinux=0", FAIL),
        ("mandatory_access", "/vmlinuz enforcing=0", FAIL),
        ("mandatory_access", "/vmlinuz", UNPROVEN),
    ],
)
def test_a_proved_kernel_command_line_answers(code: str, line: str, verdict: Verdict) -> None:
    assert ask(code, linux(line), "linux").verdict is verdict


OF_THE_LINE = sorted({
    "debug_mode", "kernel_lockdown", "module_signatures", "ima_policy", "code_integrity_enforced", "iommu",
    "encrypted_system", "pagefile_encryption", "no_hibernation", "no_dumps", "normal_start", "processor_protections",
    "mandatory_access", "kernel_code_integrity",
})  # fmt: skip
STRICT = (
    "/vmlinuz lockdown=integrity module.sig_enforce=1 ima_policy=tcb|appraise_tcb intel_iommu=on iommu.passthrough=0"
    " systemd.swap=0 rd.luks.uuid=1 enforcing=1"
)


@pytest.mark.parametrize("code", OF_THE_LINE)
def test_a_strict_command_line_passes(code: str) -> None:
    assert ask(code, linux(STRICT), "linux").verdict is PASS


@pytest.mark.parametrize("code", OF_THE_LINE)
@pytest.mark.parametrize(
    "proved",
    [
        pytest.param(linux(STRICT, pcr=12), id="in a PCR that no baseline pins"),
        pytest.param(linux(STRICT, pinned=frozenset((0, 7))), id="in a PCR that this baseline does not pin"),
        pytest.param(linux(STRICT + " 'a b'"), id="readable in two ways"),
        pytest.param(linux(STRICT + " x" * 2000), id="longer than the kernel reads"),
        pytest.param(Proved(firmware(), PINNED, CLOCK), id="not there"),
    ],
)
def test_a_command_line_that_is_not_proved_answers_nothing(code: str, proved: Proved) -> None:
    assert ask(code, proved, "linux").verdict is UNPROVEN


def test_lines_of_these_tests_are_read_in_one_way() -> None:
    assert read_command_line(STRICT).plain


GOOD_WINDOWS: dict[str, FactValue] = {
    "boot_debugging": False,
    "kernel_debug": False,
    "test_signing": False,
    "flight_signing": False,
    "hypervisor": True,
    "hypervisor_debug": False,
    "safe_mode": False,
    "winpe": False,
    "cold_boot": True,
    "code_integrity": True,
    "code_integrity_policies": ("{A244370E}.cip sha256:" + "ab" * 32,),
    "vsm": True,
    "hvci": True,
    "identity_key": "00" * 32,
    "iommu_required": True,
    "bitlocker_unlocks": (4,),
    "pagefile_encryption": True,
    "hibernation_disabled": True,
    "dumps_disabled": True,
    "dump_encryption": True,
    "dump_encryption_key": "cd" * 32,
    "dep": True,
    "elam": {"Windows Defender": "00"},
}
STRICT_POLICY = CodePolicy("Hosts", frozenset({"sha256:" + "ab" * 32}), audits=False, trivial=(), supplemental=False)


NO_CHANGE: Mapping[str, FactValue | None] = {}


def windows_host(
    *policies: CodePolicy, changes: Mapping[str, FactValue | None] = NO_CHANGE, dump_keys: tuple[str, ...] = ()
) -> Proved:
    values = {name: value for name, value in (GOOD_WINDOWS | dict(changes)).items() if value is not None}
    parameters = Parameters(dump_keys=dump_keys)
    return Proved(windows(**values).facts, PINNED, CLOCK, code_policies=policies, parameters=parameters)


OF_WINDOWS = sorted(code for code, check in CHECKS.items() if check.windows)
OF_WINDOWS = [code for code in OF_WINDOWS if code not in {"dbx_age", "firmware_version"}]  # these need parameters


@pytest.mark.parametrize("code", OF_WINDOWS)
def test_a_strict_windows_host_passes(code: str) -> None:
    assert ask(code, windows_host(STRICT_POLICY), "windows").verdict is PASS


@pytest.mark.parametrize(
    ("code", "changes", "verdict"),
    [
        ("debug_mode", {"boot_debugging": True}, FAIL),
        ("debug_mode", {"kernel_debug": True}, FAIL),
        ("debug_mode", {"kernel_debug": None}, UNPROVEN),
        ("debug_mode", {"hypervisor_debug": True}, FAIL),
        ("debug_mode", {"hypervisor_debug": None}, UNPROVEN),
        ("debug_mode", {"hypervisor_debug": None, "hypervisor": None}, UNPROVEN),
        ("debug_mode", {"hypervisor_debug": None, "hypervisor": False}, PASS),
        ("full_boot", {"cold_boot": False}, FAIL),
        ("full_boot", {"cold_boot": None}, UNPROVEN),
        ("virtual_secure_mode", {"vsm": False}, FAIL),
        ("virtual_secure_mode", {"identity_key": None}, UNPROVEN),
        ("virtual_secure_mode", {"vsm": None}, UNPROVEN),
        ("kernel_code_integrity", {"hvci": False}, FAIL),
        ("kernel_code_integrity", {"hvci": None}, UNPROVEN),
        ("iommu", {"iommu_required": False}, FAIL),
        ("iommu", {"iommu_required": None}, UNPROVEN),
        ("iommu", {"iommu_required": None, "dma_protection": True}, PASS),
        ("encrypted_system", {"bitlocker_unlocks": (4, 0)}, FAIL),
        ("encrypted_system", {"bitlocker_unlocks": ()}, UNPROVEN),
        ("pagefile_encryption", {"pagefile_encryption": False}, FAIL),
        ("no_hibernation", {"hibernation_disabled": False}, FAIL),
        ("no_dumps", {"dumps_disabled": False}, FAIL),
        ("dump_encryption", {"dumps_disabled": False}, PASS),
        ("dump_encryption", {"dumps_disabled": False, "dump_encryption": False}, FAIL),
        ("dump_encryption", {"dumps_disabled": None, "dump_encryption": None}, UNPROVEN),
        ("dump_encryption_key", {"dumps_disabled": False}, FAIL),
        ("dump_encryption_key", {"dumps_disabled": False, "dump_encryption_key": None}, UNPROVEN),
        ("code_integrity_policy", {"code_integrity": False}, FAIL),
        ("code_integrity_policy", {"code_integrity": None}, UNPROVEN),
        ("code_integrity_policy", {"code_integrity_policies": None}, UNPROVEN),
        ("code_integrity_policy", {"code_integrity_policies": ("other sha256:" + "ee" * 32,)}, FAIL),
        ("code_integrity_enforced", {"code_integrity_policies": ("other sha256:" + "ee" * 32,)}, UNPROVEN),
        ("code_integrity_not_trivial", {"code_integrity_policies": ("other sha256:" + "ee" * 32,)}, UNPROVEN),
        ("test_signing", {"test_signing": True}, FAIL),
        ("test_signing", {"flight_signing": True}, FAIL),
        ("normal_start", {"safe_mode": True}, FAIL),
        ("normal_start", {"winpe": True}, FAIL),
        ("processor_protections", {"dep": False}, FAIL),
        ("early_launch", {"elam": None}, UNPROVEN),
    ],
)
def test_windows_says_what_it_measured(code: str, changes: dict[str, FactValue | None], verdict: Verdict) -> None:
    assert ask(code, windows_host(STRICT_POLICY, changes=changes), "windows").verdict is verdict


def test_a_code_integrity_policy_that_audits_does_not_enforce() -> None:
    audits = replace(STRICT_POLICY, audits=True)
    assert ask("code_integrity_policy", windows_host(audits), "windows").verdict is PASS
    answer = ask("code_integrity_enforced", windows_host(audits), "windows")
    assert (answer.verdict, "only audits" in answer.said) == (FAIL, True)


def test_a_policy_that_allows_everything_is_trivial() -> None:
    everything = replace(STRICT_POLICY, trivial=EVERYTHING)
    assert ask("code_integrity_not_trivial", windows_host(everything), "windows").verdict is FAIL


EVERYTHING = ("It allows every file.",)
BESIDE = CodePolicy("Beside", frozenset({"sha256:" + "ee" * 32}), audits=False, trivial=(), supplemental=False)
BOTH = ("a sha256:" + "ab" * 32, "b sha256:" + "ee" * 32)


@pytest.mark.parametrize(
    ("policies", "verdict"),
    [
        pytest.param((STRICT_POLICY, replace(BESIDE, trivial=EVERYTHING)), PASS, id="a base beside it"),
        pytest.param((STRICT_POLICY, replace(BESIDE, supplemental=True)), PASS, id="a narrow supplemental policy"),
        pytest.param(
            (STRICT_POLICY, replace(BESIDE, trivial=EVERYTHING, supplemental=True)), FAIL, id="one that adds everything"
        ),
        pytest.param(
            (replace(STRICT_POLICY, audits=True), replace(BESIDE, trivial=EVERYTHING)), FAIL, id="the strict one audits"
        ),
        pytest.param(
            (replace(STRICT_POLICY, trivial=EVERYTHING), replace(BESIDE, trivial=EVERYTHING)),
            FAIL,
            id="both of them",
        ),
        pytest.param((replace(BESIDE, supplemental=True),), UNPROVEN, id="a base that nobody registered"),
    ],
)
def test_policies_are_weighed_as_windows_joins_them(policies: tuple[CodePolicy, ...], verdict: Verdict) -> None:
    host = windows_host(*policies, changes={"code_integrity_policies": BOTH})
    assert ask("code_integrity_not_trivial", host, "windows").verdict is verdict


def test_one_of_two_measured_policies_that_nobody_registered_fails() -> None:
    host = windows_host(STRICT_POLICY, changes={"code_integrity_policies": BOTH})
    assert ask("code_integrity_policy", host, "windows").verdict is FAIL
    assert ask("code_integrity_enforced", host, "windows").verdict is UNPROVEN


def test_dumps_to_a_registered_key_pass() -> None:
    host = windows_host(changes={"dumps_disabled": False}, dump_keys=("cd" * 32,))
    assert ask("dump_encryption_key", host, "windows").verdict is PASS


@pytest.mark.parametrize("platform", ["linux", "windows"])
@pytest.mark.parametrize(
    ("facts", "verdict"),
    [({"secure_boot": True}, PASS), ({"secure_boot": False}, FAIL), ({}, UNPROVEN)],
)
def test_secure_boot_is_what_the_firmware_measured(
    platform: str, facts: dict[str, FactValue], verdict: Verdict
) -> None:
    known = {name: Fact(value, 7, 1) for name, value in facts.items()}
    assert ask("secure_boot", Proved(known, PINNED, CLOCK), platform).verdict is verdict


@pytest.mark.parametrize("platform", ["linux", "windows"])
def test_a_firmware_that_switched_dma_protection_off_fails(platform: str) -> None:
    base = linux(STRICT, firmware_dma_protection_disabled=True) if platform == "linux" else windows_host()
    facts = {**base.facts, "firmware_dma_protection_disabled": Fact(True, 7, 2)}
    assert ask("iommu", Proved(facts, PINNED, CLOCK), platform).verdict is FAIL


@pytest.mark.parametrize(
    ("clock", "before", "verdict"),
    [
        (CLOCK, Counters(), PASS),
        (CLOCK, Counters(reset_count=5, boot_count=9), PASS),
        (CLOCK, Counters(reset_count=6), FAIL),
        (CLOCK, Counters(boot_count=11), FAIL),
        (Clock(1000, 5, 1, safe=True), Counters(reset_count=5, restart_count=2), FAIL),
        (Clock(1000, 5, 2, safe=True), Counters(reset_count=5, restart_count=2), PASS),
        (Clock(1000, 6, 0, safe=True), Counters(reset_count=5, restart_count=2), PASS),
    ],
)
def test_counters_never_go_back(clock: Clock, before: Counters, verdict: Verdict) -> None:
    proved = Proved({"boot_count": Fact(10, 12, 1)}, PINNED, clock, before=before)
    assert ask("counters", proved, "windows").verdict is verdict


def test_a_host_that_slept_was_not_started() -> None:
    slept = Proved({}, PINNED, Clock(1, 5, 2, safe=True))
    assert ask("full_boot", slept, "linux").verdict is FAIL


@pytest.mark.parametrize("code", sorted(TAMPERED))
def test_a_log_that_contradicts_itself_fails(code: str) -> None:
    proved = Proved({}, PINNED, CLOCK, oddities=(Oddity(code, "Something is wrong.", 7),))
    assert ask("boot_log", proved, "linux").verdict is FAIL


def test_a_firmware_that_writes_strange_notes_does_not_fail() -> None:
    proved = Proved({}, PINNED, CLOCK, oddities=(Oddity("note_unknown", "A strange note.", 7),))
    assert ask("boot_log", proved, "linux").verdict is PASS


@pytest.mark.parametrize(("outcome", "verdict"), [(None, UNPROVEN), ((7, 0), PASS), ((7, 2), FAIL)])
def test_files_are_held_against_a_runtime_policy(outcome: tuple[int, int] | None, verdict: Verdict) -> None:
    runtime = None if outcome is None else RuntimeOutcome(*outcome)
    assert ask("code_integrity_policy", Proved({}, PINNED, CLOCK, runtime=runtime), "linux").verdict is verdict


@pytest.mark.parametrize(
    ("parameters", "verdict"),
    [
        (Parameters(), UNPROVEN),
        (Parameters(least_dbx_entries=371), PASS),
        (Parameters(least_dbx_entries=372), FAIL),
    ],
)
def test_the_revocation_list_has_the_entries_that_are_asked_for(parameters: Parameters, verdict: Verdict) -> None:
    proved = Proved({"dbx_entries": Fact(371, 7, 5)}, PINNED, CLOCK, parameters=parameters)
    assert ask("dbx_age", proved, "linux").verdict is verdict


@pytest.mark.parametrize(
    ("accepted", "pinned", "verdict"),
    [((), PINNED, UNPROVEN), (("1.2",), PINNED, PASS), (("1.3",), PINNED, FAIL), (("1.2",), frozenset((7,)), UNPROVEN)],
)
def test_the_firmware_is_an_accepted_version(
    accepted: tuple[str, ...], pinned: frozenset[int], verdict: Verdict
) -> None:
    parameters = Parameters(firmware_versions=accepted)
    proved = Proved({"firmware_version": Fact("1.2", 0, 0)}, pinned, CLOCK, parameters=parameters)
    assert ask("firmware_version", proved, "linux").verdict is verdict


@pytest.mark.parametrize("code", sorted(CHECKS))
@pytest.mark.parametrize("platform", ["linux", "windows"])
def test_nothing_proved_passes_nothing_that_a_fact_is_needed_for(code: str, platform: str) -> None:
    rule = CHECKS[code].rule_for(platform)
    if rule is None:
        return
    without_facts = {"boot_log", "counters", "virtual_secure_mode", "full_boot"}
    answer = rule(Proved({}, PINNED, CLOCK))
    assert answer.verdict is UNPROVEN or code in without_facts
    assert answer.said.endswith(".")


@pytest.mark.parametrize("code", sorted(CHECKS))
def test_every_check_has_a_word_of_hgs_sentences_and_a_page(code: str) -> None:
    check = CHECKS[code]
    assert check.code == code
    assert check.substatus in SUBSTATUS
    assert all(text.endswith(".") for text in (check.why, check.remedy))
    page = (PAGES / f"{code}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {check.title}\n")
    assert check.substatus in page
    assert f"`{code}`" in page


# Microsoft's policies of the Host Guardian Service: the check that asks the same, and HGS's word for its failure.
HGS = {
    "Hgs_SecureBootEnabled": ("secure_boot", "SecureBoot"),
    "Hgs_SecureBootSettings": (BASELINE, "SecureBootSettings"),
    "Hgs_UefiDebugDisabled": ("debug_mode", "DebugMode"),
    "Hgs_CiPolicy": ("code_integrity_policy", "CodeIntegrityPolicy"),
    "Hgs_FullBoot": ("full_boot", "FullBoot"),
    "Hgs_VsmIdkPresent": ("virtual_secure_mode", "VirtualSecureMode"),
    "Hgs_IommuEnabled": ("iommu", "Iommu"),
    "Hgs_BitLockerEnabled": ("encrypted_system", "BitLocker"),
    "Hgs_PageFileEncryptionEnabled": ("pagefile_encryption", "PagefileEncryption"),
    "Hgs_HypervisorEnforcedCiPolicy": ("kernel_code_integrity", "HypervisorEnforcedCodeIntegrityPolicy"),
    "Hgs_NoHibernation": ("no_hibernation", "HibernationEnabled"),
    "Hgs_NoDumps": ("no_dumps", "DumpsEnabled"),
    "Hgs_DumpEncryption": ("dump_encryption", "DumpEncryption"),
    "Hgs_DumpEncryptionKey": ("dump_encryption_key", "DumpEncryptionKey"),
}


@pytest.mark.parametrize("policy", HGS)
def test_what_hgs_asks_is_asked_of_both_platforms_and_failed_in_its_word(policy: str) -> None:
    code, substatus = HGS[policy]
    page = (PAGES / f"{code}.md").read_text(encoding="utf-8")
    assert re.search(rf"HGS policy: {policy}\b", page)
    assert f"`{substatus}`" in page
    if code == BASELINE:
        assert AREAS[7].substatus == substatus
    else:
        check = CHECKS[code]
        assert (check.substatus, check.windows is not None, check.linux is not None) == (substatus, True, True)


def test_the_table_of_checks_is_the_catalogue() -> None:
    rows = [
        f"| [{check.title}]({code}.md) | `{code}` | `{check.substatus}` | {'yes' if check.windows else ''} "
        f"| {'yes' if check.linux else ''} | {'yes' if check.default else ''} |"
        for code, check in CHECKS.items()
    ]
    lines = (PAGES / "README.md").read_text(encoding="utf-8").splitlines()
    assert [" ".join(line.split()) for line in lines if line.startswith("| [")] == [
        " ".join(row.split()) for row in rows
    ]
    assert {page.stem for page in PAGES.glob("*.md")} == CHECKS.keys() | {BASELINE, "README"}


@pytest.mark.parametrize("code", ["secure_boot", "boot_log", "counters", "dbx_age", "firmware_version"])
def test_what_firmware_and_tpm_say_is_judged_alike_on_both_platforms(code: str) -> None:
    assert CHECKS[code].windows is CHECKS[code].linux


def test_the_baseline_is_no_check_that_could_be_off() -> None:
    assert BASELINE not in CHECKS
    assert CHECKS.keys() >= DEFAULT


def test_the_page_about_baselines_names_every_finding_and_word_of_theirs() -> None:
    page = (PAGES / f"{BASELINE}.md").read_text(encoding="utf-8")
    source = inspect.getsource(baselines)
    codes = set(re.findall(r'(?:code=|Finding\(\s*)"([a-z_]+)"', source))
    assert len(codes) > 5
    assert all(f"`{code}`" in page for code in codes)
    assert all(f"`{area.substatus}`" in page for area in AREAS.values())


def test_a_captured_boot_answers_from_its_own_log() -> None:
    captured = boot("secureboot-on")
    proved = Proved(read_boot(captured.log, captured.pcrs).facts, PINNED, CLOCK)
    for code in ("secure_boot", "debug_mode", "ima_policy", "no_dumps", "normal_start"):
        answer = ask(code, proved, "linux")
        assert answer.verdict is PASS
        assert answer.leans


def test_a_captured_boot_without_secure_boot_fails() -> None:
    captured = boot("secureboot-off")
    proved = Proved(read_boot(captured.log, captured.pcrs).facts, PINNED, CLOCK)
    assert ask("secure_boot", proved, "linux").verdict is FAIL


WINDOWS_LOGS = [
    pytest.param(path, id=path.name)
    for path in sorted(COLLECTION.glob("**/*"))
    if path.is_file() and ("wbcl" in path.name.lower() or "windows" in path.name.lower() or "HIRS" in str(path))
]


@pytest.mark.skipif(not WINDOWS_LOGS, reason="the collection of real boot logs is not beside this repository")
@pytest.mark.parametrize("path", WINDOWS_LOGS)
def test_real_logs_answer_every_check_with_a_sentence(path: Path) -> None:
    data = path.read_bytes()
    if len(data) > 1 << 20 or not data.startswith(bytes(4)):
        pytest.skip("this is no boot log")
    log = parse_event_log(data)
    values = replay_banks(log).get(BANK)
    if not values:
        pytest.skip("this log has no SHA-256 bank")
    facts = read_boot(data, values).facts
    for check in CHECKS.values():
        for rule in filter(None, (check.windows, check.linux)):
            assert rule(Proved(facts, PINNED, CLOCK)).said
