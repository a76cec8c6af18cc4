"""The whole diagnosis: every check in the order in which one leans on the other, and one word for all.

A check of another attestation mode is one function and one line here; it is asked for by the mode's name.
"""

from dataclasses import dataclass
from typing import Final

from guardedhost.diagnosis import evidence, identity, portal, standing
from guardedhost.diagnosis.outcome import Check, Outcome, Result, skipped
from guardedhost.diagnosis.trace import HERE, UNPROVEN, UNREACHABLE, Trace
from guardedhost.store import HOST_KEY, KERBEROS, TPM

_TPM: Final = frozenset({TPM})
_KERBEROS: Final = frozenset({KERBEROS})
_HOST_KEY: Final = frozenset({HOST_KEY})

CHECKS: Final = (
    Check("enrolment", standing.enrolment),
    Check("state_folder", standing.state_folder),
    Check("dns", portal.dns),
    Check("connection", portal.connection),
    Check("tls", portal.tls),
    Check("clock", portal.clock),
    Check("portal", portal.portal),
    Check("tpm", identity.tpm, _TPM),
    Check("tpm_lockout", identity.tpm_lockout, _TPM),
    Check("ak", identity.ak, _TPM),
    Check("ek", identity.ek, _TPM),
    Check("ek_certificate", identity.ek_certificate, _TPM),
    Check("ek_chain", identity.ek_chain, _TPM),
    Check("boot_log", evidence.boot_log, _TPM),
    Check("boot_replay", evidence.boot_replay, _TPM),
    Check("secure_boot", evidence.secure_boot, _TPM),
    Check("ima", evidence.ima, _TPM),
    Check("keytab", standing.keytab, _KERBEROS),
    Check("ticket", standing.ticket, _KERBEROS),
    Check("host_key", standing.host_key, _HOST_KEY),
    Check("certificate", standing.certificate),
    Check("last_attestation", standing.last_attestation),
    Check("verdict", standing.verdict),
)

# HGS's words for the state of a host ([MS-HGSA]; see docs/diagnose.md).
STATUSES: Final = (
    "NotConfigured",
    "Unknown",
    "Passed",
    "Expired",
    "TransientError",
    "UnauthorizedHost",
    "TpmError",
    "InsecureHostConfiguration",
)


@dataclass(frozen=True, slots=True)
class Line:
    """A check and what it says."""

    check: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Diagnosis:
    status: str
    lines: tuple[Line, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        return tuple(line.check for line in self.lines if line.outcome.result is Result.FAIL)


def diagnose(trace: Trace) -> Diagnosis:
    """Judge a trace. The same trace gives the same diagnosis, on the host or off it."""
    lines = tuple(Line(check.name, _outcome(check, trace)) for check in CHECKS)
    return Diagnosis(_status(trace, {line.check: line.outcome.result for line in lines}), lines)


def _outcome(check: Check, trace: Trace) -> Outcome:
    """Judge what the mode in force asks for, and what this host is registered for and may be asked tomorrow."""
    if check.modes and check.modes.isdisjoint((trace.mode, *trace.registered)):
        return skipped(f"Only {' or '.join(sorted(check.modes))} mode asks for it; the fabric is in {trace.mode} mode.")
    return check.judge(trace)


def _status(trace: Trace, results: dict[str, Result]) -> str:
    """The portal's word where it has spoken, and otherwise the reason why it has not."""
    answer = trace.answer
    if not trace.enrolled or answer is None:
        return "NotConfigured"
    if answer.status:
        return answer.status if answer.status in STATUSES else "Unknown"
    if answer.code == "unauthorized_host" or trace.mode not in trace.registered:
        return "UnauthorizedHost"
    if {results["tpm"], results["ak"]} & {Result.FAIL} and (trace.mode == TPM or answer.code == HERE):
        return "TpmError"
    if trace.mode == TPM and {results["boot_log"], results["boot_replay"]} & {Result.FAIL}:
        return "InsecureHostConfiguration"
    if answer.code in (UNREACHABLE, UNPROVEN):
        return "Expired" if _lapsed(trace) else "TransientError"
    if answer.code == HERE:
        return "Unknown"
    return "TpmError" if trace.mode == TPM else "UnauthorizedHost"


def _lapsed(trace: Trace) -> bool:
    """HGS calls a host Expired that passed once and whose certificate has ended since."""
    until = None if trace.last is None else trace.last.certificate_until
    return until is not None and until <= trace.at
