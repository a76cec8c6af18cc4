"""Checks of what the agent keeps, and of what the portal made of the host: before, and now."""

from datetime import timedelta
from stat import S_IMODE, S_ISLNK
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from attestation.core.certificate import serial_text, verify_health_certificate
from attestation.core.certificate_reader import read_certificate
from attestation.core.possession import fingerprint, parse_host_key
from attestation.errors import CertificateUnknown, ParseError, Refusal
from guardedhost.diagnosis.outcome import Outcome, failed, passed, skipped
from guardedhost.diagnosis.portal import SPOKEN
from guardedhost.diagnosis.trace import HERE, UNPROVEN, UNREACHABLE, HeldCertificate, Trace
from guardedhost.store import TPM

NOT_ENROLLED: Final = "This host is not enrolled."
RUN_AS_ROOT: Final = "Run this as root."

_OTHERS: Final = 0o077
_MOST_NAMES: Final = 5
_LATE: Final = timedelta(minutes=10)
_START_AGENT: Final = "See that the agent runs: `systemctl status guardhouse-host`."


def enrolment(trace: Trace) -> Outcome:
    folder = trace.folder
    remedy = "Enrol it: `guardhouse host enrol --server https://…`."
    if folder.config is None:
        why = "Which portal this host belongs to, and as whom, is kept there."
        return failed(f"{folder.path}: {folder.error.rstrip('.')}.", why, remedy if folder.user == 0 else RUN_AS_ROOT)
    if not trace.enrolled:
        return failed(NOT_ENROLLED, "The portal challenges only hosts that are.", remedy)
    modes = " and ".join(trace.registered)
    if trace.mode in SPOKEN and trace.mode not in trace.registered:
        return failed(
            f"This host is registered for {modes} mode, and the fabric is in {trace.mode} mode.",
            "Only a host that is registered for the mode in force gets a certificate.",
            f"Register it for that, and have it approved: `guardhouse host enrol --mode {trace.mode} --server …`.",
        )
    return passed(f"{folder.config.name or 'This host'} is enrolled at {folder.config.server}, for {modes} mode.")


def state_folder(trace: Trace) -> Outcome:
    folder = trace.folder
    if not folder.files:
        return skipped("There is no state folder that can be read.")
    open_to_others = [each.name for each in folder.files if S_IMODE(each.mode) & _OTHERS and not S_ISLNK(each.mode)]
    foreign = [each.name for each in folder.files if each.owner not in (0, folder.user)]
    if S_IMODE(folder.files[0].mode) & _OTHERS or foreign:
        names = ", ".join((foreign or open_to_others)[:_MOST_NAMES])
        return failed(
            f"{folder.path} is open to others than its owner: {names}.",
            "Who writes there decides which portal this host obeys; who reads there has the keys of host-key mode.",
            f"chmod -R go= {folder.path}, and chown it to root.",
        )
    return passed(f"{folder.path} is its owner’s alone.")


def certificate(trace: Trace) -> Outcome:
    """The one in hand, which this look has not touched."""
    held = trace.held
    if not trace.enrolled:
        return skipped(NOT_ENROLLED)
    if "open" in trace.tpm.errors and trace.tpm.tcti:
        return skipped("The TPM has not said which boot this is.")
    if held is None and trace.last is None:
        return skipped("This host had not attested before.")
    if held is None:
        return failed("There is none in hand.", "No key is released to this host.", "See the findings below.")
    try:
        return _certificate(trace, held, read_certificate(held.certificate).certificate)
    except ParseError as error:
        return failed(str(error), "It cannot be used.", "Attest again: `guardhouse host attest`.")


def _certificate(trace: Trace, held: HeldCertificate, shown: x509.Certificate) -> Outcome:
    name = f"Certificate {serial_text(shown.serial_number)}"
    if trace.at >= shown.not_valid_after_utc:
        what = f"{name} lapsed at {shown.not_valid_after_utc:%Y-%m-%d %H:%M} UTC."
        return failed(what, "The agent did not renew it in time.", _START_AGENT)
    if trace.at < shown.not_valid_before_utc:
        what = f"{name} begins at {shown.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, which is still to come."
        return failed(what, "This host’s clock went back.", "Set the clock, and attest again.")
    if held.mode != TPM:
        return _signed(trace, held, shown, "holds")
    if trace.tpm.reset_count is None:
        return skipped("The TPM has not said which boot this is.")
    if held.reset_count != trace.tpm.reset_count:
        what = f"{name} is of an earlier boot."
        return failed(what, "Its key was bound to that boot; the host has not attested since.", _START_AGENT)
    if not held.usable:
        what = f"The TPM would not use the key of {name[0].lower()}{name[1:]}."
        return failed(what, "PCRs were extended since, or the TPM was cleared.", "Reboot, or attest again.")
    return _signed(trace, held, shown, "is of this boot and holds")


def _signed(trace: Trace, held: HeldCertificate, shown: x509.Certificate, words: str) -> Outcome:
    name = f"Certificate {serial_text(shown.serial_number)}"
    if _is_foreign(trace, held):
        what = f"{name} was signed by nobody of this fabric."
        return failed(what, "The portal was made anew, or another one answers.", "Attest again, or enrol again.")
    return passed(f"{name} {words} until {shown.not_valid_after_utc:%Y-%m-%d %H:%M} UTC.")


def _is_foreign(trace: Trace, held: HeldCertificate) -> bool:
    """Whether none of the portal's signers signed it; not known without them."""
    if trace.portal is None or not trace.portal.signers:
        return False
    try:
        signers = [read_certificate(each).certificate for each in trace.portal.signers]
        verify_health_certificate(held.certificate, signers=signers, now=trace.at)
    except CertificateUnknown:
        return True
    except Refusal:
        return False
    return False


def last_attestation(trace: Trace) -> Outcome:
    last = trace.last
    if not trace.enrolled:
        return skipped(NOT_ENROLLED)
    if last is None:
        return skipped("This host had not attested before.")
    words = f"{' '.join((last.status, *last.substatus))} at {last.at:%Y-%m-%d %H:%M} UTC"
    if last.status != "Passed":
        fresh = trace.answer is not None and trace.answer.status != ""  # then its findings are below, and newer
        findings = () if fresh else last.findings
        return failed(f"{words}.", "The portal did not accept this host.", "See the findings.", findings)
    if trace.at - last.next_attestation_at > _LATE:
        due = f"{last.next_attestation_at:%Y-%m-%d %H:%M} UTC"
        return failed(f"{words}; the next was due at {due}.", "The agent does not run, or cannot attest.", _START_AGENT)
    return passed(f"{words}.")


def verdict(trace: Trace) -> Outcome:
    """What the portal says now."""
    answer = trace.answer
    if answer is None:
        return skipped(NOT_ENROLLED)
    if answer.status == "Passed":
        return passed("Passed: the portal accepts this host.")
    if answer.status:
        words = " ".join((answer.status, *answer.substatus))
        return failed(f"{words}.", "The portal does not accept this host.", "See the findings.", answer.findings)
    why, remedy = _REFUSALS.get(answer.code, _REFUSED)
    return failed(answer.sentence if answer.code in _OWN else f"{answer.sentence} ({answer.code})", why, remedy)


def keytab(trace: Trace) -> Outcome:
    seen = trace.account
    why = "In Kerberos mode, this host is known by the machine account whose keys are in it."
    if not seen.keytab:
        remedy = "`guardhouse host enrol --mode kerberos --keytab FILE --server …` names it."
        return failed("This host is told of no keytab.", why, remedy)
    if seen.keytab_error:
        remedy = "Export it from the domain anew, for this machine's account, and let only root read it."
        return failed(seen.keytab_error, why, remedy)
    return passed(f"{seen.keytab} is there, and only its owner reads it.")


def ticket(trace: Trace) -> Outcome:
    """Whether the domain gives a ticket; whether the portal takes it shows in the verdict."""
    seen = trace.account
    if not seen.keytab:
        return skipped("There is no keytab to ask for a ticket with.")
    if seen.missing:
        return failed(seen.missing, "Without it this host cannot ask its domain for a ticket.", seen.install)
    if seen.ticket_error:
        return failed(
            seen.ticket_error,
            "Without a ticket to the portal's service this host cannot show which machine it is.",
            "Look at the domain's address in krb5.conf, at the clock, and whether the portal's name is that of its"
            " service (SPN). After the machine's password was changed, export its keytab anew.",
        )
    return passed(f"The domain gives a ticket for {seen.service}.")


def host_key(trace: Trace) -> Outcome:
    """The key is read as the portal reads it; whether it knows this one shows in the verdict."""
    seen = trace.host_key
    why = "In host-key mode, the portal knows this host by it."
    remedy = "`guardhouse host enrol --mode hostkey --server …` makes one where there is none, and registers it."
    if seen.public is None:
        return failed(seen.error or "This host has no key of its own.", why, remedy)
    try:
        key = parse_host_key(seen.public)
    except Refusal as error:
        return failed(str(error), why, f"Put a better one into host-key.pem, or none. {remedy}")
    kind = "RSA" if isinstance(key, rsa.RSAPublicKey) else "ECC"
    return passed(f"{kind}, {key.key_size} bits, SHA-256 {fingerprint(seen.public)}.")


_OWN: Final = frozenset({UNREACHABLE, UNPROVEN, HERE})
_REFUSED: Final = (
    "The portal refuses what this host sends.",
    "Look at what fails above; the portal’s page of this host has the attempt.",
)
_REFUSALS: Final = {
    UNREACHABLE: ("The portal has given no verdict.", "Mend the way to the portal, or wait until it is back."),
    UNPROVEN: (
        "Nobody there has opened this host’s ticket, so this is no verdict of the portal’s.",
        "See who answers at the portal’s address, and that the portal’s keytab has the key of the service named above.",
    ),
    HERE: ("The host could not show its state.", "Mend what fails above."),
    "unauthorized_host": (
        "The portal does not know this host, or somebody has rejected or revoked it.",
        "Ask an approver; enrol again if the portal was made anew.",
    ),
}
