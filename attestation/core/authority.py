"""What makes a certificate an authority for endorsements: asked before it is trusted, and again in every chain."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtensionOID

from attestation.core.certificate_reader import (
    MEANING,
    ReadCertificate,
    Tolerance,
    certificate_key,
    find_extension,
    quiet,
)

EK_CERTIFICATE: Final = x509.ObjectIdentifier("2.23.133.8.1")
"""tcg-kp-EKCertificate."""
AIK_CERTIFICATE: Final = x509.ObjectIdentifier("2.23.133.8.3")
"""tcg-kp-AIKCertificate: what most certificates of Microsoft's TrustedTpm.cab are for."""

_ANY_PURPOSE: Final = x509.ObjectIdentifier("2.5.29.37.0")
_LEAST_RSA_BITS: Final = 2048
_UNDERSTOOD: Final = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.CERTIFICATE_POLICIES,  # RFC 5280 6.1.1 (c): any policy will do
}


class Reason(StrEnum):
    """Why a certificate is no authority for endorsements. The values are stable."""

    UNREADABLE = "unreadable"
    NOT_AN_AUTHORITY = "not_an_authority"
    OTHER_PURPOSE = "other_purpose"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    NOT_UNDERSTOOD = "not_understood"
    WEAK_KEY = "weak_key"
    CHAIN_TOO_LONG = "chain_too_long"
    NOT_TOLERATED = "not_tolerated"
    NOT_CHOSEN = "not_chosen"


@dataclass(frozen=True, slots=True)
class Unfit:
    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that people trust as a TPM maker's, and the malformations they accept from that maker."""

    read: ReadCertificate
    tolerated: frozenset[Tolerance]

    @property
    def certificate(self) -> x509.Certificate:
        return self.read.certificate

    @property
    def is_root(self) -> bool:
        return is_root(self.certificate)


def is_root(certificate: x509.Certificate) -> bool:
    """Tell a self-issued certificate. Its own signature proves nothing; an operator's having put it there does."""
    with quiet():
        return certificate.subject == certificate.issuer


def why_unfit(authority: Authority, *, below: int, now: datetime) -> Unfit | None:
    """Say why this is no authority above `below` others today, or None when it is one (RFC 5280, 6.1.4)."""
    certificate = authority.certificate
    with quiet():
        name = f"certificate of the authority “{certificate.subject.rfc4514_string()}”"
        unfit = (
            _why_other_purpose(certificate, name)
            or _why_no_authority(certificate, name, below)
            or why_invalid(certificate, name, now)
            or _why_weak(certificate, name)
        )
    return unfit or why_intolerable(authority.read.tolerances, authority.tolerated, name)


def why_invalid(certificate: x509.Certificate, name: str, now: datetime) -> Unfit | None:
    """Say why a certificate of any kind does not count today."""
    if now < certificate.not_valid_before_utc:
        day = f"{certificate.not_valid_before_utc:%Y-%m-%d}"
        return Unfit(Reason.NOT_YET_VALID, f"The {name} is not valid before {day}.")
    if now > certificate.not_valid_after_utc:
        return Unfit(Reason.EXPIRED, f"The {name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}.")
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            oid = extension.oid.dotted_string
            return Unfit(
                Reason.NOT_UNDERSTOOD, f"The {name} has the critical extension {oid}, which is not understood."
            )
    return None


def why_intolerable(needed: frozenset[Tolerance], tolerated: frozenset[Tolerance], name: str) -> Unfit | None:
    """Say which exceptions a certificate needs that its maker has not been given."""
    missing = sorted(needed - tolerated)
    if not missing:
        return None
    has = ", and ".join(f"{MEANING[tolerance]} ({tolerance.value})" for tolerance in missing)
    return Unfit(Reason.NOT_TOLERATED, f"The {name} has {has}; nobody has allowed its maker that exception.")


def _why_no_authority(certificate: x509.Certificate, name: str, below: int) -> Unfit | None:
    constraints = find_extension(certificate, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        return Unfit(Reason.NOT_AN_AUTHORITY, f"The {name} does not say that it is an authority.")
    if constraints.path_length is not None and constraints.path_length < below:
        sentence = f"The {name} allows {constraints.path_length} authorities below it, there are {below}."
        return Unfit(Reason.CHAIN_TOO_LONG, sentence)
    usage = find_extension(certificate, x509.KeyUsage)
    if usage is None or not usage.key_cert_sign:
        return Unfit(Reason.NOT_AN_AUTHORITY, f"The {name} is not for signing certificates.")
    return None


def _why_other_purpose(certificate: x509.Certificate, name: str) -> Unfit | None:
    """An authority that names purposes issues for these alone, as EK authorities' own certificates show."""
    purposes = find_extension(certificate, x509.ExtendedKeyUsage)
    if purposes is None or EK_CERTIFICATE in purposes or _ANY_PURPOSE in purposes:
        return None
    what = "attestation keys (2.23.133.8.3)" if AIK_CERTIFICATE in purposes else "other purposes"
    return Unfit(Reason.OTHER_PURPOSE, f"The {name} is for {what}, not for endorsement keys (2.23.133.8.1).")


def _why_weak(certificate: x509.Certificate, name: str) -> Unfit | None:
    key = certificate_key(certificate)
    if isinstance(key, ec.EllipticCurvePublicKey) or (
        isinstance(key, rsa.RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS
    ):
        return None
    return Unfit(Reason.WEAK_KEY, f"The {name} has neither an RSA key of {_LEAST_RSA_BITS} bits or more nor an EC key.")
