"""The catalogue of checks: every question that a policy may require an answer to, each with its rule per platform.

The first thirteen are those of Microsoft's Host Guardian Service (its Hgs_* policies) and their counterparts for Linux;
its fourteenth, Hgs_SecureBootSettings, is part of `baseline`, which `attestation.core.baselines` asks and which can
never be off. The others ask what HGS cannot.
"""

from collections.abc import Mapping
from typing import Final

from attestation.core import common_rules as common
from attestation.core import linux_rules as linux
from attestation.core import windows_rules as windows
from attestation.core.check import Check

BASELINE: Final = "baseline"
RUNTIME: Final = "code_integrity_policy"

_ARGUMENT: Final = "Set it on the kernel command line and start the host again; have the new boot approved."
_WINDOWS: Final = "Change the setting and start the host again."

_ALL: Final = (
    Check(
        code="secure_boot",
        substatus="SecureBoot",
        title="Secure Boot is on",
        why="Without it the firmware starts any program, and every later measurement is that program's word.",
        remedy="Switch Secure Boot on in the firmware set-up with the approved keys, then start the host again.",
        windows=common.secure_boot,
        linux=common.secure_boot,
        default=True,
    ),
    Check(
        code="debug_mode",
        substatus="DebugMode",
        title="No debugger was attached to firmware or kernel",
        why="A debugger changes what runs without changing what was measured.",
        remedy="Switch the debugger off, in the firmware set-up or in the boot settings, and start the host again.",
        windows=windows.debuggers,
        linux=linux.debuggers,
    ),
    Check(
        code=RUNTIME,
        substatus="CodeIntegrityPolicy",
        title="Code runs under a registered policy",
        why="The boot measurements say what was started; this says what may run after that.",
        remedy="Register the policy that the host runs, or give the host a registered one and start it again.",
        windows=windows.code_integrity_policy,
        linux=linux.code_integrity_policy,
    ),
    Check(
        code="full_boot",
        substatus="FullBoot",
        title="The host was started, not resumed",
        why="What a resumed system loads back from memory or disk was measured by nobody.",
        remedy="Shut the host down and start it again.",
        windows=windows.cold_boot,
        linux=linux.cold_boot,
    ),
    Check(
        code="virtual_secure_mode",
        substatus="VirtualSecureMode",
        title="Keys are kept out of the host system's reach",
        why="A released key has to open in one place only. On plain KVM that place is the TPM; the host's root user can"
        " still read a running guest's memory.",
        remedy="Switch virtualisation-based security on and start the host again.",
        windows=windows.secure_mode,
        linux=common.always("The transport key was proved to live in this TPM, usable in this boot state only."),
    ),
    Check(
        code="iommu",
        substatus="Iommu",
        title="Devices cannot reach all memory",
        why="A device that may write anywhere in memory changes a measured system after it was measured.",
        remedy="Switch the IOMMU on in the firmware set-up and in the system (intel_iommu=on iommu.passthrough=0).",
        windows=windows.iommu,
        linux=linux.iommu,
    ),
    Check(
        code="encrypted_system",
        substatus="BitLocker",
        title="The system volume is encrypted",
        why="Whoever takes the disk reads what the host kept there. Microsoft advises against it for guarded hosts.",
        remedy="Encrypt the system volume and start the host again.",
        windows=windows.bitlocker,
        linux=linux.encrypted_root,
    ),
    Check(
        code="pagefile_encryption",
        substatus="PagefileEncryption",
        title="Memory is not written to disk in clear",
        why="Pages of a guest end up on the disk and stay there.",
        remedy="Encrypt the page file, or start the host without swap.",
        windows=windows.pagefile,
        linux=linux.no_plain_swap,
    ),
    Check(
        code="kernel_code_integrity",
        substatus="HypervisorEnforcedCodeIntegrityPolicy",
        title="The kernel's own code is protected",
        why="Who can put code into the kernel can read every guest.",
        remedy=f"Switch hypervisor-protected code integrity on; on Linux, use lockdown=integrity. {_ARGUMENT}",
        windows=windows.hvci,
        linux=linux.kernel_code_integrity,
    ),
    Check(
        code="no_hibernation",
        substatus="HibernationEnabled",
        title="The host does not hibernate",
        why="Hibernation writes all memory, the guests' too, to the disk.",
        remedy=f"Disable hibernation; on Linux, use nohibernate. {_ARGUMENT}",
        windows=windows.no_hibernation,
        linux=linux.no_hibernation,
    ),
    Check(
        code="no_dumps",
        substatus="DumpsEnabled",
        title="The host writes no crash dumps",
        why="A crash dump holds the memory of the guests.",
        remedy="Disable crash dumps; on Linux, remove crashkernel=. Start the host again.",
        windows=windows.no_dumps,
        linux=linux.no_dumps,
    ),
    Check(
        code="dump_encryption",
        substatus="DumpEncryption",
        title="Crash dumps are encrypted, or off",
        why="A crash dump in clear gives the guests' memory to whoever can read the disk.",
        remedy="Encrypt crash dumps, or disable them, and start the host again.",
        windows=windows.dump_encryption,
        linux=linux.dump_protected,
    ),
    Check(
        code="dump_encryption_key",
        substatus="DumpEncryptionKey",
        title="Crash dumps open with a registered key only",
        why="Encrypted to another key, a dump can be read by whoever holds that one.",
        remedy="Register the key's SHA-256 in the policy, or give the host a registered key.",
        windows=windows.dump_key,
        linux=linux.dump_protected,
    ),
    Check(
        code="boot_log",
        substatus="TcgLogVerification",
        title="The boot log agrees with itself",
        why="Records that contradict their digests, or come behind the mark that ends their part, somebody put there.",
        remedy="Look at the log's warnings on the attestation's page, then start the host again.",
        windows=common.boot_log,
        linux=common.boot_log,
        default=True,
    ),
    Check(
        code="counters",
        substatus="TcgLogVerification",
        title="No counter went back",
        why="A counter that goes back is another TPM, a cleared one, or an old answer.",
        remedy="Find out whether the TPM was cleared or replaced; if so, revoke the host and enrol it anew.",
        windows=common.counters,
        linux=common.counters,
        default=True,
    ),
    Check(
        code="test_signing",
        substatus="CodeIntegrityPolicy",
        title="Test-signed code is refused",
        why="Anybody can make a test signature.",
        remedy=f"Switch test signing off. {_WINDOWS}",
        windows=windows.test_signing,
        linux=None,
    ),
    Check(
        code="code_integrity_enforced",
        substatus="CodeIntegrityPolicy",
        title="The code integrity policy enforces",
        why="A policy that audits writes a line into a log where it should block.",
        remedy="Deploy the enforced form of the policy; on Linux, use ima_policy=tcb|appraise_tcb.",
        windows=windows.enforced,
        linux=linux.enforced,
    ),
    Check(
        code="code_integrity_not_trivial",
        substatus="CodeIntegrityPolicy",
        title="The code integrity policy does not allow everything",
        why="A policy that allows everything satisfies every check and protects nothing.",
        remedy="Deploy a policy that names what may run.",
        windows=windows.not_trivial,
        linux=None,
    ),
    Check(
        code="kernel_lockdown",
        substatus="HypervisorEnforcedCodeIntegrityPolicy",
        title="The kernel is locked down",
        why="Without lockdown, root changes the running kernel through /dev/mem, kexec or unsigned modules.",
        remedy=f"Use lockdown=integrity. {_ARGUMENT}",
        windows=None,
        linux=linux.lockdown,
    ),
    Check(
        code="module_signatures",
        substatus="CodeIntegrityPolicy",
        title="Kernel modules are signed",
        why="An unsigned module is kernel code that nobody approved.",
        remedy=f"Use module.sig_enforce=1 or lockdown=integrity. {_ARGUMENT}",
        windows=None,
        linux=linux.signed_modules,
    ),
    Check(
        code="ima_policy",
        substatus="CodeIntegrityPolicy",
        title="IMA measures what runs",
        why="A file that IMA does not measure is not in the list that a runtime policy judges.",
        remedy=f"Use ima_policy=tcb. {_ARGUMENT}",
        windows=None,
        linux=linux.measures_files,
    ),
    Check(
        code="normal_start",
        substatus="DebugMode",
        title="The system was started as usual",
        why="A rescue shell gives the console's user the whole system, with every measurement in order.",
        remedy="Start the host again without rescue arguments.",
        windows=windows.rescue,
        linux=linux.rescue,
    ),
    Check(
        code="processor_protections",
        substatus="NoInformation",
        title="No protection of the processor is switched off",
        why="Without them one guest can read another's memory.",
        remedy=f"Remove the argument (on Windows, set nx to OptOut). {_ARGUMENT}",
        windows=windows.data_execution,
        linux=linux.mitigations,
    ),
    Check(
        code="mandatory_access",
        substatus="NoInformation",
        title="Mandatory access control is on",
        why="It keeps a guest that breaks out of QEMU from reaching its neighbours.",
        remedy=f"Use enforcing=1 or apparmor=1. {_ARGUMENT}",
        windows=None,
        linux=linux.mandatory_access,
    ),
    Check(
        code="early_launch",
        substatus="NoInformation",
        title="An early-launch anti-malware driver was started",
        why="It judges the drivers that start before anything else can.",
        remedy=f"Install one. {_WINDOWS}",
        windows=windows.early_launch,
        linux=None,
    ),
    Check(
        code="dbx_age",
        substatus="SecureBootSettings",
        title="The revocation list is recent",
        why="An old dbx lets boot loaders start whose holes are known.",
        remedy="Install the current dbx update and have the new Secure Boot settings approved.",
        windows=common.dbx,
        linux=common.dbx,
    ),
    Check(
        code="firmware_version",
        substatus="SecureBootSettings",
        title="The firmware is an accepted version",
        why="Old firmware has known holes, and a baseline alone does not say which version it pins.",
        remedy="Install an accepted firmware version, or add this one to the policy.",
        windows=common.firmware_version,
        linux=common.firmware_version,
    ),
)

CHECKS: Final[Mapping[str, Check]] = {check.code: check for check in _ALL}
DEFAULT: Final = frozenset(check.code for check in _ALL if check.default)
"""What the first policy of a group requires, beside a baseline."""
