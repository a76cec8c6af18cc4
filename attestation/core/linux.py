"""Answers what a proved kernel command line asks Linux, its initial ramdisk and systemd to do.

Whoever calls must have proved the line, whole and in a PCR that a baseline pins. Then both are known: what is on it,
and what is not. A fact that is a row of arguments has those that were found, and none when there are none. A fact that
is one value has the argument's value; without the argument it is unproven: the kernel's own configuration decides.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from attestation.core.command_line import Argument, read_command_line

Asks = Callable[[Argument], bool]
LinuxValue = bool | str | tuple[str, ...]

# The kernel cuts a longer line (COMMAND_LINE_SIZE, 2048 on x86 and ARM). GRUB puts BOOT_IMAGE= before what it measures.
LONGEST_LINE: Final = 2048 - 1 - len("BOOT_IMAGE=")


def linux_facts(line: str | None) -> dict[str, LinuxValue | None]:
    """Return every fact about Linux that we know to ask for; without a line that has one reading, none is proved."""
    unproven: dict[str, LinuxValue | None] = dict.fromkeys((*_VALUES, *_ROWS, *_SWITCHES))
    if line is None or not line.isascii() or len(line) > LONGEST_LINE:
        return unproven
    read = read_command_line(line)
    if not read.plain:
        return unproven
    facts: dict[str, LinuxValue | None] = {name: _value(read.arguments, key) for name, key in _VALUES.items()}
    if any(each.name == "bootconfig" for each in read.arguments):
        # Then the initial ramdisk brings further arguments, before those of the line (admin-guide/bootconfig).
        return unproven | facts
    facts |= {name: tuple(str(each) for each in read.arguments if asks(each)) for name, asks in _ROWS.items()}
    return facts | {name: any(map(asks, read.arguments)) for name, asks in _SWITCHES.items()}


def _value(arguments: Iterable[Argument], key: str) -> str | None:
    """The argument's one value. Of two that differ, one argument takes the first, one the last, one the stronger."""
    values = {each.value or "" for each in arguments if each.name == key and not each.for_init}
    return values.pop() if len(values) == 1 else None


def _kernel(*names: str) -> Asks:
    """Arguments that the kernel reads."""
    named = _anywhere(*names)
    return lambda argument: not argument.for_init and named(argument)


def _anywhere(*names: str) -> Asks:
    """Arguments of these names, wherever they stand; a name that ends with a star is the beginning of many."""
    whole = frozenset(name for name in names if not name.endswith("*"))
    begins = tuple(name[:-1] for name in names if name.endswith("*"))
    return lambda argument: argument.name in whole or (bool(begins) and argument.name.startswith(begins))


_TARGETS: Final = frozenset({"multi-user.target", "graphical.target", "default.target", "initrd.target"})
_INITS: Final = frozenset({"/init", "/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"})
_OFF: Final = frozenset({"0", "no", "n", "off", "false", "f"})
_RESCUE: Final = _anywhere(
    *("rescue", "emergency", "single", "s", "S", "1", "_s", "_b", "break", "rd.break", "rd.shell", "systemd.run"),
    *("systemd.wants", "rd.systemd.wants", "systemd.debug_shell", "rd.systemd.debug_shell"),
)
_LUKS: Final = _anywhere("rd.luks", "rd.luks.*", "luks", "luks.*", "cryptdevice", "cryptopts")


def _is_rescue(argument: Argument) -> bool:
    """Whether this starts something else than the system: a shell, a rescue target, a program in place of init."""
    if argument.name in ("systemd.unit", "rd.systemd.unit"):
        return argument.value not in _TARGETS
    if argument.name in ("init", "rdinit"):
        return argument.value not in _INITS
    return _RESCUE(argument) and argument.value not in _OFF


def _reserves_memory_for_dumps(argument: Argument) -> bool:
    """Without memory set aside at boot there is no second kernel that could write a dump (admin-guide/kdump)."""
    if argument.for_init or argument.name not in ("crashkernel", "fadump"):
        return False
    return (argument.value or "").rstrip("KMGkmg") not in ("", "0", "off")


def _encrypts_root(argument: Argument) -> bool:
    """A root on device mapper may as well be a plain logical volume; only such names tell that it is encrypted.

    What switches encryption off belongs here as well.
    """
    root = argument.value or "" if argument.name == "root" else ""
    mapped = root.startswith("/dev/mapper/") and ("crypt" in root or "luks-" in root)
    return mapped or _LUKS(argument)


def _is_about_hibernation(argument: Argument) -> bool:
    return _HIBERNATES(argument) or _RESUMES(argument)


_HIBERNATES: Final = _kernel("noresume", "hibernate", "nohibernate")
_RESUMES: Final = _anywhere("resume", "resume_offset", "resumewait", "resumedelay")

# Fact -> the kernel argument whose value it is.
_VALUES: Final[Mapping[str, str]] = {
    "lockdown": "lockdown",
    "module_signatures_enforced": "module.sig_enforce",
    "ima_policy": "ima_policy",
    "ima_appraise": "ima_appraise",
    "ima_template": "ima_template",
    "ima_hash": "ima_hash",
}
# Fact -> which arguments it lists.
_ROWS: Final[Mapping[str, Asks]] = {
    "kernel_debug_arguments": _kernel(
        *("kgdb*", "ekgdboc", "kdb*", "earlyprintk", "earlycon", "debug", "no_hash_pointers", "ohci1394_dma")
    ),
    "appraisal_arguments": _kernel("ima_appraise"),
    "hibernation_arguments": _is_about_hibernation,
    "swap_arguments": _anywhere("noswap", "systemd.swap", "zswap.*"),
    "iommu_arguments": _kernel(
        *("iommu", "iommu.*", "intel_iommu", "amd_iommu", "intremap", "amd_iommu_intr", "arm_smmu*", "efi")
    ),
    "rescue_arguments": _is_rescue,
    "init_arguments": _anywhere("init", "rdinit"),
    "mitigation_arguments": _kernel(
        *("mitigations", "pti", "nopti", "kpti", "nospectre_*", "spectre_*", "spec_*", "nospec_*", "l1tf", "l1d_flush"),
        *("mds", "mmio_stale_data", "tsx", "tsx_async_abort", "retbleed", "srbds", "gather_data_sampling", "ssbd"),
        *("indirect_target_selection", "reg_file_data_sampling", "vmscape", "kvm.nx_huge_pages", "kvm_intel.*"),
        *("kvm_amd.*", "nosmt", "nokaslr", "nosmap", "nosmep", "clearcpuid"),
    ),
    "security_module_arguments": _kernel("lsm", "security", "selinux", "enforcing", "apparmor*", "smack*", "tomoyo*"),
    "encrypted_root_arguments": _encrypts_root,
    "root_arguments": _anywhere("root"),
    "verity_arguments": _anywhere("roothash", "usrhash", "rd.systemd.verity", "systemd.verity*", "dm_mod.create"),
}
# Fact -> which argument makes it true.
_SWITCHES: Final[Mapping[str, Asks]] = {
    "rescue_boot": _is_rescue,
    "crash_dumps": _reserves_memory_for_dumps,
}
