"""What a command line asks for is named, what it does not ask for is known to be absent, and the rest is unproven."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.facts import read_facts
from attestation.core.linux import LONGEST_LINE, LinuxValue, linux_facts
from tests.boot_logs import boot

BASE = "/vmlinuz ro"
VALUES = [
    "lockdown",
    "module_signatures_enforced",
    "ima_policy",
    "ima_appraise",
    "ima_template",
    "ima_hash",
]


def fact(name: str, *words: str) -> LinuxValue | None:
    return linux_facts(" ".join((BASE, *words)))[name]


PRESENT: list[tuple[str, str, LinuxValue]] = [
    ("lockdown", "lockdown=integrity", "integrity"),
    ("module_signatures_enforced", "module.sig_enforce", ""),
    ("module_signatures_enforced", "module.sig-enforce=1", "1"),
    ("ima_policy", 'ima_policy="tcb|appraise_tcb"', "tcb|appraise_tcb"),
    ("ima_appraise", "ima_appraise=enforce", "enforce"),
    ("ima_template", "ima_template=ima-sig", "ima-sig"),
    ("ima_hash", "ima_hash=sha256", "sha256"),
    ("kernel_debug_arguments", "kgdboc=ttyS0,115200", ("kgdboc=ttyS0,115200",)),
    ("kernel_debug_arguments", "kgdboc.kgdboc=ttyS0", ("kgdboc.kgdboc=ttyS0",)),
    ("kernel_debug_arguments", "kdb.cmd_enable=1", ("kdb.cmd_enable=1",)),
    ("kernel_debug_arguments", "earlyprintk=xdbc debug", ("earlyprintk=xdbc", "debug")),
    ("appraisal_arguments", "ima_appraise=log ima_appraise=off", ("ima_appraise=log", "ima_appraise=off")),
    ("hibernation_arguments", "resume=/dev/sda2", ("resume=/dev/sda2",)),
    ("hibernation_arguments", "-- resume=/dev/sda2 nohibernate", ("resume=/dev/sda2",)),
    ("hibernation_arguments", "nohibernate", ("nohibernate",)),
    ("swap_arguments", "noswap systemd.swap=0 zswap.enabled=1", ("noswap", "systemd.swap=0", "zswap.enabled=1")),
    ("iommu_arguments", "intel-iommu=on iommu.passthrough=1", ("intel_iommu=on", "iommu.passthrough=1")),
    ("iommu_arguments", "amd_iommu=off iommu=pt", ("amd_iommu=off", "iommu=pt")),
    ("rescue_arguments", "init=/bin/sh", ("init=/bin/sh",)),
    ("init_arguments", "init=/sbin/init rdinit=/init", ("init=/sbin/init", "rdinit=/init")),
    ("mitigation_arguments", "mitigations=off nospectre-v2", ("mitigations=off", "nospectre_v2")),
    ("security_module_arguments", "selinux=0 enforcing=0", ("selinux=0", "enforcing=0")),
    ("security_module_arguments", "apparmor=0 lsm=lockdown,yama", ("apparmor=0", "lsm=lockdown,yama")),
    ("encrypted_root_arguments", "rd.luks.uuid=luks-1", ("rd.luks.uuid=luks-1",)),
    ("encrypted_root_arguments", "cryptdevice=/dev/sda2:root", ("cryptdevice=/dev/sda2:root",)),
    ("encrypted_root_arguments", "root=/dev/mapper/luks-1", ("root=/dev/mapper/luks-1",)),
    ("encrypted_root_arguments", "root=/dev/mapper/vg-root rd.luks=0", ("rd.luks=0",)),
    ("encrypted_root_arguments", "root=/dev/mapper/vg-root", ()),
    ("root_arguments", "root=/dev/sda1 root=LABEL=x", ("root=/dev/sda1", "root=LABEL=x")),
    ("verity_arguments", "roothash=00ff", ("roothash=00ff",)),
    ("crash_dumps", "crashkernel=256M", True),
    ("crash_dumps", "crashkernel=auto", True),
    ("crash_dumps", "fadump=on", True),
]


@pytest.mark.parametrize(("name", "words", "expected"), PRESENT)
def test_what_is_on_the_line_is_named(name: str, words: str, expected: LinuxValue) -> None:
    assert fact(name, words) == expected


@pytest.mark.parametrize("name", sorted({name for name, _, _ in PRESENT}))
def test_what_is_not_on_the_line_is_absent_and_an_absent_value_unproven(name: str) -> None:
    assert fact(name) == (None if name in VALUES else False if name == "crash_dumps" else ())


RESCUES = [
    "rescue", "emergency", "single", "s", "S", "1", "-s", "-b", "rd.break=pre-mount", "break=top", "rd.shell",
    "systemd.unit=rescue.target", "systemd.unit=my.target", "rd.systemd.unit=emergency.target", "init=/bin/bash",
    "rdinit=/bin/sh", "systemd.debug-shell=1", "systemd.run=/bin/true", "systemd.wants=debug-shell.service",
    "-- single", "-- s", '"init=/bin/sh"', "systemd.debug_shell",
]  # fmt: skip


@pytest.mark.parametrize("words", RESCUES)
def test_a_shell_in_place_of_the_system_is_a_rescue(words: str) -> None:
    assert fact("rescue_boot", words) is True
    assert fact("rescue_arguments", words)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "systemd.unit=multi-user.target",
        "init=/usr/lib/systemd/systemd",
        "rd.shell=0",
        "systemd.debug_shell=no",
        'dm="a rescue b"',
        "rescued",
        "root=single",
    ],
)
def test_a_usual_boot_is_no_rescue(words: str) -> None:
    assert fact("rescue_boot", words) is False


@pytest.mark.parametrize(
    "words", ["crashkernel=0", "crashkernel=0M", "fadump=off", "-- crashkernel=1G", "crashkernel="]
)
def test_no_memory_set_aside_is_no_crash_dump(words: str) -> None:
    assert fact("crash_dumps", words) is False


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("-- lockdown=integrity", id="for init"),
        pytest.param('dm="a lockdown=integrity"', id="in another value"),
        pytest.param("lockdown=integrity lockdown=none", id="two values"),
        pytest.param("lockdown.x=integrity", id="a longer name"),
        pytest.param("lockdown=integrity '", id="a line with two readings"),
        pytest.param("lockdown=integrity x=\u00e0", id="a letter that holds a blank of the kernel's"),
        pytest.param("x" * LONGEST_LINE + " lockdown=integrity", id="behind what the kernel cuts off"),
    ],
)
def test_a_value_is_not_taken_from_what_the_kernel_does_not_read(words: str) -> None:
    assert fact("lockdown", words) is None


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("bootconfig", id="the initial ramdisk has more arguments"),
        pytest.param("-- bootconfig", id="the same, for init"),
        pytest.param("x" * LONGEST_LINE, id="too long"),
        pytest.param("x='a'", id="two readings"),
        pytest.param("x=\u00e0", id="not ASCII"),
    ],
)
def test_absence_is_not_taken_from_a_line_that_is_not_all(words: str) -> None:
    for name in ("crash_dumps", "rescue_boot", "kernel_debug_arguments", "iommu_arguments"):
        assert fact(name, words) is None


def test_nothing_is_known_without_a_line() -> None:
    assert set(linux_facts(None).values()) == {None}


def test_a_capture_says_what_its_kernel_was_asked() -> None:
    found = read_facts(boot("cmdline-drift").events, bank="sha256")
    values = {name: each.value for name, each in found.items() if each is not None}
    assert (values["ima_policy"], values["crash_dumps"], values["rescue_boot"]) == ("tcb", False, False)
    assert values["kernel_debug_arguments"] == values["mitigation_arguments"] == ()


@given(st.text(max_size=80))
def test_any_line_gives_every_fact(line: str) -> None:
    assert linux_facts(line).keys() == linux_facts(None).keys()


@given(st.lists(st.sampled_from(RESCUES + [words for _, words, _ in PRESENT]), max_size=4))
def test_no_word_hides_a_rescue(words: list[str]) -> None:
    assert fact("rescue_boot", *words, "init=/bin/sh") is True
