"""Rules that read Windows and Linux hosts alike: what the firmware and the TPM say."""

from collections.abc import Callable
from typing import Final

from attestation.core.check import Answer, Proved, Rule, Verdict, failed, passed, unproven

# What only tampering, or a log that was cut, explains. Firmware that merely writes strange notes is not among them.
TAMPERED: Final = frozenset(
    {
        "type_spoofed",
        "type_ignored",
        "data_mismatch",
        "separator_duplicate",
        "separator_error",
        "separator_payload",
        "variable_late",
        "variable_conflict",
        "windows_late",
        "windows_malformed",
        "windows_unfinished",
    }
)


def is_true(name: str, yes: str, no: str, absent: str) -> Rule:
    """Pass when a proved fact is true, fail when it is false."""

    def rule(proved: Proved) -> Answer:
        fact = proved.fact(name)
        if fact is None:
            return unproven(absent)
        return passed(yes, fact) if fact.value is True else failed(no, fact)

    return rule


def is_false(name: str, yes: str, no: str, absent: str) -> Rule:
    """Pass when a proved fact is false, fail when it is true."""

    def rule(proved: Proved) -> Answer:
        fact = proved.fact(name)
        if fact is None:
            return unproven(absent)
        return passed(yes, fact) if fact.value is False else failed(no, fact)

    return rule


def all_of(*rules: Rule) -> Rule:
    """Fail when one of the rules fails, pass when all pass; the sentences of the verdict's rules, in their order."""

    def rule(proved: Proved) -> Answer:
        answers = [each(proved) for each in rules]
        for verdict in (Verdict.FAIL, Verdict.UNPROVEN, Verdict.PASS):
            telling = [answer for answer in answers if answer.verdict is verdict]
            if telling:
                leans = tuple(lean for answer in telling for lean in answer.leans)
                return Answer(verdict, " ".join(dict.fromkeys(answer.said for answer in telling)), leans)
        return unproven("Nothing was asked.")

    return rule


secure_boot = is_true(
    "secure_boot",
    "The firmware measured Secure Boot as on.",
    "The firmware measured Secure Boot as off.",
    "PCR 7 does not prove whether Secure Boot is on.",
)
firmware_debugger = is_false(
    "uefi_debug_mode",
    "The firmware measured no debugger.",
    "The firmware measured that its debugger is on.",
    "PCR 7 does not prove that the firmware has no debugger.",
)
firmware_dma_protection = is_false(
    "firmware_dma_protection_disabled",
    "The firmware did not switch its DMA protection off.",
    "The firmware measured that DMA protection is disabled.",
    "PCR 7 does not prove anything about DMA protection.",
)


def boot_log(proved: Proved) -> Answer:
    """PFP, "Measuring Boot Events": no firmware writes records that contradict their digests or each other."""
    found = [oddity for oddity in proved.oddities if oddity.code in TAMPERED]
    if not found:
        return passed("The boot log's records agree with their digests and with each other.")
    leans = tuple((-1, oddity.event) for oddity in found if oddity.event is not None)
    said = " ".join(oddity.message for oddity in found[:3])
    more = f" {len(found) - 3} more." if len(found) > 3 else ""
    return Answer(Verdict.FAIL, said + more, leans)


def counters(proved: Proved) -> Answer:
    """TPM 2.0 Library, part 1, "Reset Count": it only grows; so do restarts between two resets, and Windows' counter.

    The TPM's clock is not compared: answers to two challenges may overtake each other on their way.
    """
    before, clock = proved.before, proved.clock
    count = proved.fact("boot_count")
    if before.reset_count is not None and clock.reset_count < before.reset_count:
        return failed(f"The TPM's reset counter went back from {before.reset_count} to {clock.reset_count}.")
    if clock.reset_count == before.reset_count and clock.restart_count < (before.restart_count or 0):
        told = f"The TPM's restart counter went back from {before.restart_count} to {clock.restart_count}"
        return failed(f"{told}, and the TPM was not reset in between.")
    if before.boot_count is not None and count is not None and int(str(count.value)) < before.boot_count:
        return failed(f"Windows' boot counter went back from {before.boot_count} to {count.value}.", count)
    return passed("No counter went back since this host's attestation before.", count)


def not_resumed(proved: Proved) -> Answer:
    """TPM 2.0 Library, part 1: restartCount is 0 after a TPM Reset, and grows with each resume from sleep."""
    if proved.clock.restart_count:
        return failed(f"The TPM was resumed {proved.clock.restart_count} times since it was reset: the host slept.")
    return passed("The TPM was reset when this host started, and not resumed since.")


def dbx(proved: Proved) -> Answer:
    fact, least = proved.fact("dbx_entries"), proved.parameters.least_dbx_entries
    if fact is None:
        return unproven("PCR 7 does not prove what the revocation list dbx holds.")
    if not least:
        return unproven(f"The revocation list holds {fact.value} entries; the policy names no least number.", fact)
    if int(str(fact.value)) < least:
        return failed(f"The revocation list holds {fact.value} entries; the policy asks for at least {least}.", fact)
    return passed(f"The revocation list holds {fact.value} entries, at least {least} are asked for.", fact)


def firmware_version(proved: Proved) -> Answer:
    fact, accepted = proved.fact("firmware_version"), proved.parameters.firmware_versions
    if fact is None or 0 not in proved.pinned:
        return unproven("The boot log does not prove the firmware's version.")
    if not accepted:
        return unproven(f"The firmware is version {fact.value}; the policy names no accepted one.", fact)
    if fact.value not in accepted:
        return failed(f"The firmware is version {fact.value}, which the policy does not accept.", fact)
    return passed(f"The firmware is version {fact.value}, as the policy accepts.", fact)


def always(said: str) -> Callable[[Proved], Answer]:
    """Pass: what is asked was made sure of before any rule is asked."""
    return lambda proved: passed(said)
