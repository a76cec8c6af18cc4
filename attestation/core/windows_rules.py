"""Rules for Windows hosts: what the boot manager and the loader measured into PCRs 12 and 13 (wbcl.h).

The checks are those of Microsoft's Host Guardian Service; event by event, docs/checks/ says what each leans on.
"""

from typing import Final

from attestation.core.check import Answer, Proved, failed, passed, unproven
from attestation.core.common_rules import all_of, firmware_debugger, is_false, is_true, not_resumed

_ABSENT: Final = "The proved part of the Windows boot log does not say it."


def _hypervisor_debugger(proved: Proved) -> Answer:
    """The loader measures this setting only where it launches the hypervisor."""
    debugger, hypervisor = proved.fact("hypervisor_debug"), proved.fact("hypervisor")
    if debugger is not None and debugger.value is True:
        return failed("The hypervisor's debugger was on.", debugger)
    if debugger is not None:
        return passed("The hypervisor had no debugger.", debugger)
    if hypervisor is not None and hypervisor.value is False:
        return passed("No hypervisor was launched.", hypervisor)
    return unproven(_ABSENT)


debuggers = all_of(
    firmware_debugger,
    is_false("boot_debugging", "The boot manager had no debugger.", "The boot manager's debugger was on.", _ABSENT),
    is_false("kernel_debug", "The kernel had no debugger.", "The kernel's debugger was on.", _ABSENT),
    _hypervisor_debugger,
)
test_signing = all_of(
    is_false("test_signing", "Test-signed code was not allowed.", "Test-signed code was allowed.", _ABSENT),
    is_false("flight_signing", "Flight-signed code was not allowed.", "Flight-signed code was allowed.", _ABSENT),
)
rescue = all_of(
    is_false("safe_mode", "Windows did not start in safe mode.", "Windows started in safe mode.", _ABSENT),
    is_false("winpe", "Windows did not start as a preinstallation environment.", "Windows PE was started.", _ABSENT),
)
cold_boot = all_of(
    not_resumed,
    is_true("cold_boot", "Windows was started and not resumed.", "Windows was resumed from hibernation.", _ABSENT),
)
hvci = is_true(
    "hvci",
    "The hypervisor enforced code integrity.",
    "The hypervisor did not enforce code integrity.",
    "The proved part of the boot log does not say that virtual secure mode was launched.",
)
no_hibernation = is_true("hibernation_disabled", "Hibernation was disabled.", "Hibernation was possible.", _ABSENT)
no_dumps = is_true("dumps_disabled", "Crash dumps were disabled.", "Crash dumps were possible.", _ABSENT)
pagefile = is_true("pagefile_encryption", "The page file was encrypted.", "The page file was not encrypted.", _ABSENT)
data_execution = is_true(
    "dep", "Data execution prevention was on.", "Data execution prevention was always off.", _ABSENT
)


def code_integrity_policy(proved: Proved) -> Answer:
    """Every measured policy has to be a registered one; one that nobody registered may allow anything."""
    integrity, measured = proved.fact("code_integrity"), proved.fact("code_integrity_policies")
    if integrity is None:
        return unproven(_ABSENT)
    if integrity.value is not True:
        return failed("Code integrity was off.", integrity)
    if measured is None or not isinstance(measured.value, tuple) or not measured.value:
        return unproven("No code integrity policy was measured.", integrity)
    registered = {digest for policy in proved.code_policies for digest in policy.digests}
    unknown = [str(each) for each in measured.value if _digest(each) not in registered]
    if unknown:
        return failed(f"The code integrity policy {unknown[0]} is not registered.", measured)
    return passed("Every code integrity policy that was measured is a registered one.", measured)


def _digest(measured: object) -> str:
    """`code_integrity_policies` holds "name algorithm:hex"."""
    return str(measured).rpartition(" ")[2]


def enforced(proved: Proved) -> Answer:
    """A policy that audits writes a line where it should block: HGS cannot tell the two apart, its decoded text can."""
    measured = proved.fact("code_integrity_policies")
    if measured is None or not isinstance(measured.value, tuple) or not measured.value:
        return unproven("No code integrity policy was measured.")
    digests = {_digest(each) for each in measured.value}
    known = [policy for policy in proved.code_policies if policy.digests & digests]
    audits = [policy.name for policy in known if policy.audits]
    if audits:
        return failed(f"The code integrity policy {audits[0]} only audits, it blocks nothing.", measured)
    if len({digest for policy in known for digest in policy.digests & digests}) < len(digests):
        return unproven("A measured code integrity policy is not registered, so nobody knows what it does.", measured)
    return passed("Every code integrity policy that was measured is enforced.", measured)


def not_trivial(proved: Proved) -> Answer:
    measured = proved.fact("code_integrity_policies")
    if measured is None or not isinstance(measured.value, tuple) or not measured.value:
        return unproven("No code integrity policy was measured.")
    digests = {_digest(each) for each in measured.value}
    known = [policy for policy in proved.code_policies if policy.digests & digests]
    if not known:
        return unproven("The measured code integrity policies are not registered, so nobody knows what they allow.")
    opening = [policy for policy in known if policy.supplemental and policy.trivial]
    if opening:
        told = f"The supplemental policy {opening[0].name} adds everything to what its base allows"
        return failed(f"{told}: {opening[0].trivial[0]}", measured)
    bases = [policy for policy in known if not policy.supplemental]
    if not bases:
        return unproven("No base policy that was measured is registered, so nobody knows what it allows.", measured)
    # Of several base policies each that enforces has to allow a file, so one that allows everything takes nothing away.
    heeded = [policy for policy in bases if not policy.audits] or bases
    if all(policy.trivial for policy in heeded):
        return failed(f"The policy {heeded[0].name} allows everything: {heeded[0].trivial[0]}", measured)
    return passed("The registered code integrity policy does not allow everything.", measured)


def secure_mode(proved: Proved) -> Answer:
    vsm, key = proved.fact("vsm"), proved.fact("identity_key")
    if vsm is None:
        return unproven("The proved part of the boot log does not say that virtual secure mode was launched.")
    if vsm.value is not True:
        return failed("Virtual secure mode was off.", vsm)
    if key is None:
        return unproven("Virtual secure mode was on, but no identity key was measured.", vsm)
    return passed("Virtual secure mode was on and its identity key was measured.", vsm, key)


def iommu(proved: Proved) -> Answer:
    required, boot = proved.fact("iommu_required"), proved.fact("dma_protection")
    disabled = proved.fact("firmware_dma_protection_disabled")
    if disabled is not None and disabled.value is True:
        return failed("The firmware measured that DMA protection is disabled.", disabled)
    if required is not None and required.value is True:
        return passed("Virtualisation-based security was started only with an IOMMU.", required)
    if required is not None:
        return failed("Virtualisation-based security was allowed to start without an IOMMU.", required)
    if boot is not None and boot.value is True:
        return passed("DMA was protected while Windows started.", boot)
    return unproven(_ABSENT)


def bitlocker(proved: Proved) -> Answer:
    unlocks = proved.fact("bitlocker_unlocks")
    if unlocks is None or not isinstance(unlocks.value, tuple) or not unlocks.value:
        return unproven(_ABSENT)
    if 0 in unlocks.value:
        return failed("A volume that Windows started from was not protected by BitLocker.", unlocks)
    return passed("Every volume that Windows started from was protected by BitLocker.", unlocks)


def dump_encryption(proved: Proved) -> Answer:
    dumps, encrypted = proved.fact("dumps_disabled"), proved.fact("dump_encryption")
    if dumps is not None and dumps.value is True:
        return passed("Crash dumps were disabled.", dumps)
    if encrypted is None:
        return unproven(_ABSENT)
    if encrypted.value is True:
        return passed("Crash dumps were encrypted.", encrypted)
    return failed("Crash dumps were possible, and not encrypted.", encrypted)


def dump_key(proved: Proved) -> Answer:
    dumps, key = proved.fact("dumps_disabled"), proved.fact("dump_encryption_key")
    if dumps is not None and dumps.value is True:
        return passed("Crash dumps were disabled, so no key can read one.", dumps)
    if key is None:
        return unproven("No dump encryption key was measured.")
    if str(key.value) in proved.parameters.dump_keys:
        return passed("Crash dumps are encrypted to a registered key.", key)
    return failed(f"Crash dumps are encrypted to the key {key.value}, which is not registered.", key)


def early_launch(proved: Proved) -> Answer:
    drivers = proved.fact("elam")
    if drivers is None or not drivers.value:
        return unproven("No early-launch anti-malware driver was measured.")
    return passed("An early-launch anti-malware driver was measured.", drivers)
