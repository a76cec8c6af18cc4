"""Checks of the TPM and of what it is known by: state, attestation key, endorsement key, certificate."""

from collections.abc import Mapping
from typing import Final

from attestation.core.certificate_reader import MEANING, certificate_names, issuer_address, read_certificate
from attestation.core.claims import BANK
from attestation.core.endorsement import require_ek, tpm_maker, verify_endorsement
from attestation.core.quote import QUOTED_PCRS, verify_quote
from attestation.core.tpm import parse_public
from attestation.errors import EndorsementMismatch, EndorsementUntrusted, Refusal
from guardedhost.diagnosis.outcome import Outcome, failed, passed, skipped
from guardedhost.diagnosis.trace import Trace

NO_TPM: Final = "The TPM has not answered."


def tpm(trace: Trace) -> Outcome:
    seen = trace.tpm
    if "open" in seen.errors:
        return failed(
            seen.errors["open"],
            "A host proves itself by its TPM, and opens keys with it.",
            "Switch the TPM on in the firmware’s set-up, and run this as root, who alone may use /dev/tpmrm0.",
        )
    if seen.errors.keys() & {"condition", "boot"} or seen.condition is None:
        return failed(
            "; ".join(seen.errors[step].rstrip(".") for step in ("condition", "boot") if step in seen.errors) + ".",
            "The TPM answers, but not as it should.",
            "Reboot; if that does not help, the TPM or its firmware is faulty.",
        )
    return passed(f"One by {seen.condition.manufacturer}, firmware {seen.condition.firmware}, answers at {seen.tcti}.")


def tpm_lockout(trace: Trace) -> Outcome:
    condition = trace.tpm.condition
    if condition is None:
        return skipped(NO_TPM)
    if condition.locked:
        return failed(
            f"The TPM is locked: {condition.failures} wrong guesses, {condition.most_failures} are borne.",
            "Somebody guessed at a password that the TPM keeps: it refuses what has one. The agent’s keys have none.",
            f"Find out who. It forgets one guess in {condition.seconds_per_failure} seconds, or all with "
            "`tpm2_dictionarylockout --clear-lockout`.",
        )
    return passed(f"Not locked: {condition.failures} of {condition.most_failures} wrong guesses.")


def ak(trace: Trace) -> Outcome:
    seen, config = trace.tpm, trace.folder.config
    if seen.ak_public is None or seen.quote is None:
        reason = seen.errors.get("ak") or seen.errors.get("quote")
        return _no_signature(reason) if reason else skipped(NO_TPM)
    try:
        signed_pcrs(trace)
        name = parse_public(seen.ak_public).name.hex()
    except Refusal as error:
        return _no_signature(str(error))
    if config is None or not config.ak:
        return passed("The attestation key signs what the PCRs hold; which key was enrolled is not noted here.")
    if config.ak != name:
        return failed(
            "The attestation key is not the one that was enrolled.",
            "The TPM was exchanged, or its endorsement seed was changed: to the portal this is another host.",
            "Enrol this host again, and have it approved.",
        )
    return passed("The attestation key is the one that was enrolled, and signs what the PCRs hold.")


def _no_signature(reason: str) -> Outcome:
    return failed(
        f"The TPM does not sign what its PCRs hold: {reason.rstrip('.')}.",
        "No portal can accept a host that cannot quote its sha256 PCRs.",
        "See that the sha256 bank is switched on in the firmware’s set-up; clear or exchange the TPM if it is.",
    )


def ek(trace: Trace) -> Outcome:
    seen = trace.tpm
    if seen.ek_public is None:
        reason = seen.errors.get("endorsement")
        return skipped(NO_TPM) if reason is None else _no_ek(reason)
    try:
        public = parse_public(seen.ek_public)
        require_ek(public)
    except Refusal as error:
        return _no_ek(str(error))
    return passed(f"The endorsement key is {public.kind.value.upper()}, {public.key.key_size} bits.")


def _no_ek(reason: str) -> Outcome:
    return failed(
        f"The endorsement key cannot be used: {reason.rstrip('.')}.",
        "By this key the portal knows the TPM; without it no host enrols.",
        "See that the endorsement hierarchy is enabled and has no password of another program’s.",
    )


def ek_certificate(trace: Trace) -> Outcome:
    """Everything about the certificate but whose word it is."""
    seen = trace.tpm
    if seen.ek_public is None:
        return skipped("There is no endorsement key that it could be for.")
    if seen.ek_certificate is None:
        return failed(
            "The TPM holds no certificate for its endorsement key.",
            "Its maker’s word that the TPM is genuine is missing, so only a person can vouch for it.",
            "Get the certificate from the machine’s maker, or have the host approved as one without.",
        )
    unfit = _unfit(trace)
    if isinstance(unfit, EndorsementMismatch):
        return failed(str(unfit), "It was written for another TPM.", "Have the machine’s maker write the right one.")
    if unfit is not None:
        return failed(
            f"The certificate for the endorsement key does not hold: {str(unfit).rstrip('.')}.",
            "The portal refuses it, whoever has signed it.",
            "`guardhouse inspect ek` shows it. Ask the machine’s maker for another, or for a new TPM firmware.",
        )
    read = read_certificate(seen.ek_certificate)
    maker = " ".join(filter(None, tpm_maker(read.certificate))) or "no maker named"
    bugs = "; ".join(MEANING[each] for each in sorted(read.tolerances))
    return passed(f"It is for this TPM ({maker})" + (f", with {bugs}: allow its maker that." if bugs else "."))


def ek_chain(trace: Trace) -> Outcome:
    """As far as it is known here: a host keeps no list of makers, so nobody but the portal can climb the chain."""
    seen = trace.tpm
    if seen.ek_certificate is None or _unfit(trace) is not None:
        return skipped("There is no certificate that holds.")
    certificate = read_certificate(seen.ek_certificate).certificate
    address = issuer_address(certificate)
    where = f" The issuer’s certificate should be at {address}." if address else ""
    return skipped(f"Issued by {certificate_names(certificate)[1]}; the portal decides whom to trust.{where}")


def _unfit(trace: Trace) -> Refusal | None:
    """What is wrong with the EK certificate besides that nobody is trusted here, where there is one."""
    certificate, public = trace.tpm.ek_certificate or b"", trace.tpm.ek_public or b""
    try:
        verify_endorsement(certificate, parse_public(public), authorities=(), now=trace.at)
    except EndorsementUntrusted:
        return None
    except Refusal as error:
        return error
    return None


def quoted(trace: Trace) -> Mapping[int, bytes] | None:
    """The PCR values that the host's own attestation key vouches for."""
    try:
        return signed_pcrs(trace)
    except Refusal:
        return None


def signed_pcrs(trace: Trace) -> Mapping[int, bytes] | None:
    """The same, or the `Refusal` that says what is wrong with the quote; None where there is none."""
    seen = trace.tpm
    if seen.quote is None or seen.ak_public is None:
        return None
    quote = seen.quote
    return verify_quote(
        quote.attest,
        quote.signature,
        ak=parse_public(seen.ak_public),
        nonce=quote.nonce,
        selection=(BANK, QUOTED_PCRS),
        pcr_values=quote.values,
    ).pcrs
