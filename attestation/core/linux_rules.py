"""Rules for Linux hosts: the counterparts of Microsoft's checks, from the proved kernel command line.

What an argument switches on is proved when it is there. What only the kernel's own configuration decides is unproven
when the argument is absent, whatever most kernels do. Facts and arguments: `attestation.core.linux`, and the kernel's
Documentation/admin-guide/kernel-parameters.txt.
"""

from collections.abc import Callable
from typing import Final

from attestation.core.check import Answer, Proved, Rule, Verdict, failed, passed, unproven
from attestation.core.common_rules import all_of, firmware_debugger, firmware_dma_protection, not_resumed
from attestation.core.facts import Fact

NO_LINE: Final = "No PCR that the baseline pins proves a kernel command line that can be read in one way only."
_CONFIGURED: Final = "The command line does not say it; the kernel's configuration decides."
_IMA: Final = ((10, -1),)  # what rests on PCR 10 leans on no event of the boot log
_ACCESS: Final = {"enforcing=1": "selinux", "apparmor=1": "apparmor"}
_LOCKED: Final = ("integrity", "confidentiality")
_MEASURING: Final = "tcb"  # "critical_data" measures what the kernel holds, and no file
_APPRAISING: Final = frozenset({"appraise_tcb", "secure_boot"})
_OFF: Final = frozenset({"0", "no", "n", "off", "false", "f"})
_PARTITIONS: Final = (
    *("/dev/sd", "/dev/hd", "/dev/vd", "/dev/xvd", "/dev/nvme", "/dev/mmcblk"),
    *("/dev/disk/by-part", "/dev/disk/by-path", "PARTUUID=", "PARTLABEL="),
)
_LUKS_SWITCHES: Final = ("rd.luks=", "luks=")
_UNLOCKING: Final = ("rd.luks.uuid=", "luks.uuid=", "rd.luks.name=", "luks.name=", "cryptdevice=", "cryptopts=")
_UNSAFE_IOMMU: Final = {
    "iommu": ("off", "pt", "soft"),
    "intel_iommu": ("off",),
    "amd_iommu": ("off",),
    "intremap": ("off", "nosid"),
}
_SWITCHED_OFF: Final = ("iommu.strict", "arm_smmu.disable_bypass")
_IOMMU_DRIVERS: Final = {"intel_iommu": "on", "amd_iommu": "force_enable"}
_WEAKENING: Final = frozenset({"off", "0", "no", "n"})
_WEAKENING_NAMES: Final = ("nopti", "nosmap", "nosmep", "nokaslr", "nospectre_", "nospec_")


def _pinned(proved: Proved, name: str) -> Fact | None:
    """A fact of the command line, where the baseline pins the PCR that it is proved by."""
    fact = proved.fact(name)
    return fact if fact is not None and fact.pcr in proved.pinned else None


def _arguments(name: str, judge: Callable[[Fact, tuple[str, ...]], Answer]) -> Rule:
    """A rule over a row of arguments, which may be empty: that is proved as well."""

    def rule(proved: Proved) -> Answer:
        fact = _pinned(proved, name)
        if fact is None or not isinstance(fact.value, tuple):
            return unproven(NO_LINE)
        return judge(fact, tuple(map(str, fact.value)))

    return rule


def _none_of(name: str, none: str, some: str) -> Rule:
    """Pass when the row is empty; `some` is said of its first argument."""
    return _arguments(name, lambda fact, found: failed(some.format(found[0]), fact) if found else passed(none, fact))


def _words(argument: str) -> frozenset[str]:
    return frozenset(argument.partition("=")[2].split(","))


def _switch(value: str) -> bool | None:
    """lib/kstrtox.c, kstrtobool(): the first letter counts, of "on" and "off" the second; None is no switch.

    Kernels since 6.3 know "true" and "false" as well. Those before do as if nothing had been said: nothing is proved.
    """
    told = value[:2].lower() if value[:1] in ("o", "O") else value[:1].lower()
    return {"y": True, "1": True, "on": True, "n": False, "0": False, "of": False}.get(told)


def _left_out(proved: Proved, module: str) -> bool:
    """Documentation/admin-guide/LSM: a security module that lsm= does not name is not started, whatever else is set."""
    fact = _pinned(proved, "security_module_arguments")
    found = map(str, fact.value) if fact is not None and isinstance(fact.value, tuple) else ()
    return any(module not in _words(each) for each in found if each.partition("=")[0] == "lsm")


def lockdown(proved: Proved) -> Answer:
    """kernel_lockdown(7): both levels keep root from changing the running kernel, where the module is not left out."""
    fact = _pinned(proved, "lockdown")
    if fact is None:
        return unproven(_CONFIGURED)
    if fact.value in _LOCKED and _left_out(proved, "lockdown"):
        return unproven("The command line leaves lockdown out of lsm=; the kernel's configuration decides.", fact)
    if fact.value in _LOCKED:
        return passed(f"The kernel was locked down ({fact.value}).", fact)
    return failed(f"The kernel was started with lockdown={fact.value}.", fact)


def signed_modules(proved: Proved) -> Answer:
    """Documentation/admin-guide/module-signing.rst; lockdown asks for signatures as well."""
    fact = _pinned(proved, "module_signatures_enforced")
    switch = None if fact is None else _switch(str(fact.value) or "1")  # a module's switch without a value is on
    if switch:
        return passed("The kernel loads signed modules only.", fact)
    locked = lockdown(proved)
    if locked.verdict is Verdict.PASS:
        return Answer(Verdict.PASS, "The kernel was locked down, so it loads signed modules only.", locked.leans)
    if switch is False:
        return failed("The kernel was told to load modules that nobody has signed.", fact)
    return unproven(_CONFIGURED)


def _policies(fact: Fact | None) -> frozenset[str]:
    """The policies that ima_policy= names, divided by bars or blanks (ima_policy.c, policy_setup)."""
    return frozenset() if fact is None else frozenset(str(fact.value).replace("|", " ").split())


def measures_files(proved: Proved) -> Answer:
    fact = _pinned(proved, "ima_policy")
    if fact is None:
        return unproven("The command line names no IMA policy; the kernel's configuration decides.")
    if _MEASURING in _policies(fact):
        return passed(f"IMA measures what runs (ima_policy={fact.value}).", fact)
    return failed(f"The IMA policy {fact.value} does not measure what runs.", fact)


def enforced(proved: Proved) -> Answer:
    """kernel-parameters.txt: a policy says which files, and any mode but "enforce" lets them pass.

    Enforcing alone refuses nothing: a policy that was loaded later may say which files, and was measured by nobody.
    """
    return all_of(_arguments("appraisal_arguments", _judge_appraisal), _refuses_files)(proved)


def _judge_appraisal(fact: Fact, found: tuple[str, ...]) -> Answer:
    weak = [each for each in found if each != "ima_appraise=enforce"]
    if weak:
        return failed(f"IMA does not refuse anything ({weak[0]}).", fact)
    return passed("IMA enforces what its policy names.", fact)


def _refuses_files(proved: Proved) -> Answer:
    policy = _pinned(proved, "ima_policy")
    named = _APPRAISING & _policies(policy)
    if "appraise_tcb" in named:
        return passed("It refuses root's files without a good signature or digest.", policy)
    if named:
        return passed("It refuses modules, kernels and policies without a good signature.", policy)
    return unproven("The command line does not say which files IMA refuses.", policy)


def code_integrity_policy(proved: Proved) -> Answer:
    """The counterpart of a registered policy: each file that IMA measured is held against an approved one."""
    if proved.runtime is None:
        return unproven("The policy names no runtime policy, or the host sent no IMA list.")
    if proved.runtime.troubles:
        return Answer(Verdict.FAIL, f"{proved.runtime.troubles} measured files are not as approved.", _IMA)
    return Answer(Verdict.PASS, f"All {proved.runtime.entries} entries of the IMA list are as approved.", _IMA)


def _judge_iommu(fact: Fact, found: tuple[str, ...]) -> Answer:
    """kernel-parameters.txt: one argument starts the driver, another has it translate what devices ask for.

    `iommu.strict` says when translations end and not whether there are any.
    """
    off = [each for each in found if _opens_memory(each)]
    if off:
        return failed(f"Devices may reach all memory ({off[0]}).", fact)
    started = any(_starts_iommu(each) for each in found)
    translated = "iommu=nopt" in found or any(_is_switched(each, "iommu.passthrough", on=False) for each in found)
    if started and translated:
        return passed("The kernel was told to keep devices to their own memory.", fact)
    if started:
        return unproven("The IOMMU was started; the kernel's configuration decides whether it is passed by.", fact)
    return unproven("The command line does not say how devices reach memory.", fact)


def _starts_iommu(argument: str) -> bool:
    on = _IOMMU_DRIVERS.get(argument.partition("=")[0])
    return on is not None and any(word.startswith(on) for word in _words(argument))


def _opens_memory(argument: str) -> bool:
    """The drivers compare how a word begins (drivers/iommu), and older ones of AMD any part of it."""
    name = argument.partition("=")[0]
    weak = any(word.startswith(_UNSAFE_IOMMU.get(name, ())) for word in _words(argument))
    weak |= name == "amd_iommu" and "off" in argument
    weak |= _is_switched(argument, "iommu.passthrough", on=True)
    return weak or any(_is_switched(argument, each, on=False) for each in _SWITCHED_OFF)


def _is_switched(argument: str, name: str, *, on: bool) -> bool:
    said, _, value = argument.partition("=")
    return said == name and _switch(value) is on


def encrypted_root(proved: Proved) -> Answer:
    """dracut.cmdline(7), systemd-cryptsetup-generator(8): what unlocks a volume, unless the root is a partition."""
    fact, roots = _pinned(proved, "encrypted_root_arguments"), _pinned(proved, "root_arguments")
    if fact is None or roots is None or not isinstance(fact.value, tuple) or not isinstance(roots.value, tuple):
        return unproven(NO_LINE)
    bare = [each for each in map(str, roots.value) if each.removeprefix("root=").startswith(_PARTITIONS)]
    if bare:
        return unproven(f"The command line names a partition, which may be in clear ({bare[0]}).", roots)
    off = any(each.startswith(_LUKS_SWITCHES) and _words(each) & _OFF for each in map(str, fact.value))
    if not off and any(str(each).startswith(_UNLOCKING) for each in fact.value):
        return passed("The system was started from an encrypted volume.", fact)
    return unproven("The command line does not say that the system's volume is encrypted.", fact)


def _judge_swap(fact: Fact, found: tuple[str, ...]) -> Answer:
    """kernel-command-line(7), systemd.swap; sysvinit's noswap is heeded by no other init."""
    switches = [_words(each) <= _OFF for each in found if each.partition("=")[0] == "systemd.swap"]
    if switches and all(switches):
        return passed("The system was started without swap.", fact)
    return unproven("Nothing measured says whether the system swaps, or to what.", fact)


def _judge_hibernation(fact: Fact, found: tuple[str, ...]) -> Answer:
    """kernel-parameters.txt: noresume keeps a system from being resumed; its memory may be written all the same."""
    if {"nohibernate", "hibernate=no"} & set(found):
        return passed("Hibernation was switched off.", fact)
    resumes = [each for each in found if each.startswith("resume")]
    if resumes and not {"noresume", "hibernate=noresume"} & set(found):
        return failed(f"The system can be resumed from a disk ({resumes[0]}).", fact)
    return unproven("The command line does not forbid hibernation.", fact)


def no_hibernation(proved: Proved) -> Answer:
    """A locked-down kernel does not hibernate either (kernel_lockdown(7))."""
    answer, locked = _arguments("hibernation_arguments", _judge_hibernation)(proved), lockdown(proved)
    if answer.verdict is not Verdict.PASS and locked.verdict is Verdict.PASS:
        return Answer(Verdict.PASS, "The kernel was locked down, so it does not hibernate.", locked.leans)
    return answer


def no_dumps(proved: Proved) -> Answer:
    """Documentation/admin-guide/kdump/kdump.rst: a dump needs memory that was set aside at boot."""
    fact = _pinned(proved, "crash_dumps")
    if fact is None:
        return unproven(NO_LINE)
    if fact.value is True:
        return failed("Memory was reserved for crash dumps.", fact)
    return passed("No memory was reserved for crash dumps.", fact)


def dump_protected(proved: Proved) -> Answer:
    answer = no_dumps(proved)
    if answer.verdict is Verdict.FAIL:
        return Answer(
            Verdict.UNPROVEN, "Crash dumps are possible; nothing measured says how they are kept.", answer.leans
        )
    return answer


def rescue(proved: Proved) -> Answer:
    fact, found = _pinned(proved, "rescue_boot"), _pinned(proved, "rescue_arguments")
    if fact is None:
        return unproven(NO_LINE)
    if fact.value is True:
        first = (
            found.value[0] if found is not None and isinstance(found.value, tuple) and found.value else "an argument"
        )
        return failed(f"The system was not started as usual, but with {first}.", fact)
    return passed("The system was started as usual.", fact)


def _judge_mitigations(fact: Fact, found: tuple[str, ...]) -> Answer:
    weak = [
        each
        for each in found
        if each.startswith(_WEAKENING_NAMES) or (_WEAKENING & _words(each) and not each.startswith("nosmt"))
    ]
    if weak:
        return failed(f"The kernel was started without a protection ({weak[0]}).", fact)
    return passed("No protection of the processor was switched off.", fact)


def _judge_access(fact: Fact, found: tuple[str, ...]) -> Answer:
    """kernel-parameters.txt: `lsm=` names the modules that are started, `security=` which one of the large ones is."""
    off = [each for each in found if each == "security=none" or _is_zero(each, "selinux", "enforcing", "apparmor")]
    if off:
        return failed(f"Mandatory access control was switched off ({off[0]}).", fact)
    orders = [_words(each) for each in found if each.startswith(("lsm=", "security="))]
    on = [each for each in found if each in _ACCESS and all(_ACCESS[each] in order for order in orders)]
    if on:
        return passed(f"Mandatory access control was switched on ({on[0]}).", fact)
    return unproven("The command line does not say it; the system's configuration decides.", fact)


def _is_zero(argument: str, *names: str) -> bool:
    """kstrtoul(): a number in any of C's forms."""
    name, _, value = argument.partition("=")
    return name in names and value != "" and not value.lower().removeprefix("0x").strip("0")


debuggers = all_of(
    firmware_debugger,
    _none_of("kernel_debug_arguments", "The kernel was started without a debugger.", "The kernel was started with {}."),
)
iommu = all_of(firmware_dma_protection, _arguments("iommu_arguments", _judge_iommu))
no_plain_swap = _arguments("swap_arguments", _judge_swap)
mitigations = _arguments("mitigation_arguments", _judge_mitigations)
mandatory_access = _arguments("security_module_arguments", _judge_access)
kernel_code_integrity = all_of(lockdown, signed_modules)
cold_boot = not_resumed
