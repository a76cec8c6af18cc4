"""Checks of what the host was measured to run: boot log, Secure Boot and IMA list, by the Verifier's own code."""

from collections.abc import Mapping
from typing import Final

from attestation.core.claims import BANK, IMA_PCR, Boot, read_boot, read_ima
from attestation.core.ima import Extension, replay_list
from attestation.core.inspection import inspect_log
from attestation.errors import (
    ImaMismatch,
    ParseError,
    Refusal,
    ReplayMismatch,
    TooLarge,
)
from guardedhost.diagnosis.identity import quoted
from guardedhost.diagnosis.outcome import Outcome, failed, passed, skipped
from guardedhost.diagnosis.trace import Trace

_MOST_REASONS: Final = 4
# Of what a look at the log may say, what explains that it does not lead to the TPM's values.
_EXPLAINING: Final = frozenset(
    {
        "pcr_mismatch",
        "pcr_not_in_log",
        "exit_boot_services_unlogged",
        "startup_locality_wrong",
        "bank_capped",
        "bank_incomplete",
        "bank_absent",
    }
)


def boot_log(trace: Trace) -> Outcome:
    log = trace.boot_log
    if log.content is None:
        return failed(
            log.error or f"There is no boot log at {log.path or 'any place'}.",
            "Without it nobody can tell what the host has booted.",
            "Run this as root. On a kernel without the log, see that securityfs is mounted, the firmware boots by UEFI "
            "and its TPM is on.",
        )
    try:
        report = inspect_log(log.content, measured=None)
    except ParseError as error:
        return failed(
            f"The boot log cannot be read: {str(error).rstrip('.')}.",
            "The portal refuses a log that is damaged.",
            "Reboot; if it is the same again, update the firmware. `guardhouse inspect eventlog` names the byte.",
        )
    return passed(f"{report.records} events, banks {', '.join(report.banks)}.")


def boot_replay(trace: Trace) -> Outcome:
    pcrs = quoted(trace)
    if trace.boot_log.content is None or pcrs is None:
        return skipped("There is no boot log." if pcrs else "The TPM has signed no PCR values.")
    try:
        boot = read_boot(trace.boot_log.content, pcrs)
    except ReplayMismatch as error:
        return failed(
            str(error),
            f"{_reasons(trace.boot_log.content, pcrs)} The log is of another boot, altered, or incomplete.".lstrip(),
            "Reboot once. If it stays so, the firmware or the boot loader leaves measurements out: update it.",
        )
    except ParseError:
        return skipped("The boot log cannot be read.")
    return passed(f"The log leads to what the TPM’s PCRs hold; {len(boot.events)} events are proved.")


def _reasons(log: bytes, pcrs: Mapping[int, bytes]) -> str:
    oddities = inspect_log(log, measured={BANK: {pcr: value for pcr, value in pcrs.items() if pcr != IMA_PCR}}).oddities
    reasons = [oddity.message for oddity in oddities if oddity.code in _EXPLAINING]
    more = f" (and {len(reasons) - _MOST_REASONS} more)" if len(reasons) > _MOST_REASONS else ""
    return " ".join(reasons[:_MOST_REASONS]) + more


def secure_boot(trace: Trace) -> Outcome:
    boot = _boot(trace)
    if boot is None:
        return skipped("Nothing about the boot is proved.")
    fact = boot.facts.get("secure_boot")
    if fact is not None and fact.value is True:
        return passed("Secure Boot was on.")
    if trace.answer is not None and trace.answer.status == "Passed":
        return skipped("Secure Boot was not on, and this host’s policy does not ask for it.")
    return failed(
        "Secure Boot was off." if fact is not None else "Nothing proves that Secure Boot was on.",
        "Without it, any program could have run before the system; most policies ask for it.",
        "Switch Secure Boot on in the firmware’s set-up, and reboot.",
    )


def ima(trace: Trace) -> Outcome:
    log, pcrs = trace.ima_log, quoted(trace)
    if log.error:
        return failed(log.error, "What has run on this host cannot be shown.", "Run this as root.")
    if log.content is None:
        return skipped(
            "This host is configured without an IMA list."
            if not log.path
            else f"The kernel keeps no IMA list at {log.path}; only policies that ask for one need it."
        )
    if pcrs is None:
        return skipped("The TPM has signed no PCR values.")
    try:
        found = read_ima(log.content, pcrs)
    except TooLarge as error:
        return failed(str(error), "The portal takes no longer list.", "Reboot, or measure less: see the IMA policy.")
    except ParseError as error:
        return failed(
            str(error), "The portal refuses a list that is damaged.", "Reboot; `guardhouse inspect ima` helps."
        )
    except ImaMismatch as error:
        return _ima_mismatch(log.content, pcrs, error)
    entries = 0 if found is None else found.entries
    violations = 0 if found is None else len(found.untrusted_violations)
    return passed(
        f"The list leads to PCR 10: {entries} entries" + (f", {violations} violations." if violations else ".")
    )


def _ima_mismatch(log: bytes, pcrs: Mapping[int, bytes], error: ImaMismatch) -> Outcome:
    try:
        replay_list(log, quoted=pcrs[IMA_PCR], bank=BANK, extension=Extension.INSECURE_PADDED_SHA1)
    except Refusal:
        return failed(
            str(error),
            "The list was cut or altered, is of another boot, or another program has extended PCR 10.",
            "Reboot. After kexec, the kernel has to hand its list on (CONFIG_IMA_KEXEC).",
        )
    return failed(
        "PCR 10 was extended with SHA-1 digests.",
        "Kernels before 5.8 do so, and who can make SHA-1 collide can then swap files unseen: the portal refuses it.",
        "Run a kernel of version 5.8 or later.",
    )


def _boot(trace: Trace) -> Boot | None:
    pcrs = quoted(trace)
    try:
        return read_boot(trace.boot_log.content, pcrs) if trace.boot_log.content is not None and pcrs else None
    except Refusal:
        return None
