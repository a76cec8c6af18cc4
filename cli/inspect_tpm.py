"""Quotes and EK certificates as fields, for `guardhouse inspect`."""

import binascii
import hashlib
import hmac
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

from cryptography import x509

from attestation.core.authority import EK_CERTIFICATE
from attestation.core.authority_words import key_words
from attestation.core.certificate_reader import MEANING, certificate_key, certificate_names
from attestation.core.certificate_reader import read_certificate as read
from attestation.core.comparison import Banks
from attestation.core.endorsement import tpm_maker
from attestation.core.eventlog import ALGORITHMS
from attestation.core.tpm import QuoteAttest, parse_attest
from attestation.errors import NotFromTpm, ParseError
from cli.inspect_tables import warning

_PEM: Final = b"-----BEGIN CERTIFICATE-----"
_PEM_END: Final = b"-----END CERTIFICATE-----"
_MAGIC: Final = b"\xffTCG"
_HASHES: Final = {20: ("sha1",), 32: ("sha256",), 48: ("sha384",), 64: ("sha512",)}


def read_quote(data: bytes, *, measured: Banks | None) -> Mapping[str, Any]:
    """A TPMS_ATTEST of a quote, alone or in its TPM2B_ATTEST."""
    sized = data[2:6] == _MAGIC and len(data) == 2 + int.from_bytes(data[:2], "big")
    attest = _quote(data[2:] if sized else data)
    banks = [(ALGORITHMS.get(bank, (f"alg_{bank:04x}", 0))[0], sorted(pcrs)) for bank, pcrs in attest.selection]
    fields = {
        "qualified_signer": attest.qualified_signer.hex(),
        "extra_data": attest.extra_data.hex(),
        "clock": attest.clock.clock,
        "reset_count": attest.clock.reset_count,
        "restart_count": attest.clock.restart_count,
        "safe": attest.clock.safe,
        "firmware_version": f"{attest.firmware_version:016x}",
        "selection": dict(banks),
        "pcr_digest": attest.pcr_digest.hex(),
        "warnings": [],
    }
    return fields if measured is None else {**fields, "warnings": _comparison(attest, banks, measured)}


def _quote(data: bytes) -> QuoteAttest:
    at = 4 if data.startswith(_MAGIC) else 0
    try:
        attest = parse_attest(data)
    except NotFromTpm as error:
        raise ParseError(f"TPMS_ATTEST at offset {at}: {error}") from error
    if not isinstance(attest, QuoteAttest):
        raise ParseError(f"TPMS_ATTEST at offset {at}: this certifies a key; it is no quote.")
    return attest


def _comparison(attest: QuoteAttest, banks: list[tuple[str, list[int]]], measured: Banks) -> list[dict[str, Any]]:
    """The digest in a quote is over the selected PCRs, bank by bank, in ascending order (TPM 2.0 part 1, 17.6)."""
    try:
        values = b"".join(measured[bank][pcr] for bank, pcrs in banks for pcr in pcrs)
    except KeyError:
        return [warning("pcr_absent", "The PCR values lack one that the quote is about.")]
    digests = (hashlib.new(name, values).digest() for name in _HASHES.get(len(attest.pcr_digest), ()))
    if any(hmac.compare_digest(digest, attest.pcr_digest) for digest in digests):
        return []
    return [warning("pcr_mismatch", "The quote is about other PCR values.")]


def read_certificate(data: bytes) -> Mapping[str, Any]:
    """An X.509 certificate of an endorsement key, as DER, or the first one of a PEM file."""
    der = _der(data)
    try:
        found = read(der)
    except ParseError as error:
        raise ParseError(f"certificate at offset 0: {error}") from error
    certificate = found.certificate
    subject, issuer = certificate_names(certificate)
    manufacturer, model, version = tpm_maker(certificate)
    usage = [entry.value for entry in certificate.extensions if isinstance(entry.value, x509.ExtendedKeyUsage)]
    marked = any(EK_CERTIFICATE in each for each in usage)
    fields: dict[str, Any] = {
        "subject": subject,
        "issuer": issuer,
        "serial": f"{certificate.serial_number:x}",
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "manufacturer": manufacturer,
        "model": model,
        "version": version,
        "key": key_words(certificate_key(certificate)),
        "endorsement_purpose": marked,
        "fingerprint": found.fingerprint,
    }
    text = "The certificate does not say that it is for an endorsement key."
    warnings = [] if marked else [warning("not_for_endorsement", text)]
    warnings += [warning(each, f"The certificate has {MEANING[each]}.") for each in sorted(found.tolerances)]
    return {**fields, "warnings": warnings}


def _der(data: bytes) -> bytes:
    at, end = data.find(_PEM), data.find(_PEM_END)
    if at < 0:
        return data
    try:
        return b64decode(b"".join(data[at + len(_PEM) : end].split()), validate=True)
    except binascii.Error as error:
        raise ParseError(f"certificate at offset {at}: this is no PEM ({error}).") from error
