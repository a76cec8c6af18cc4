"""Authorities in words for people: what one says of itself, what an exception permits, what to do about a refusal."""

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import SignatureAlgorithmOID

from attestation.core.authority import AIK_CERTIFICATE, EK_CERTIFICATE, Reason
from attestation.core.certificate_reader import (
    ReadCertificate,
    Tolerance,
    certificate_key,
    certificate_names,
    find_extension,
    issuer_address,
    plain,
)

_PURPOSES: Final = {EK_CERTIFICATE: "endorsement keys", AIK_CERTIFICATE: "attestation keys"}
_SIGNATURES: Final = {
    SignatureAlgorithmOID.RSA_WITH_SHA1: "RSA and SHA-1",
    SignatureAlgorithmOID.RSA_WITH_SHA256: "RSA and SHA-256",
    SignatureAlgorithmOID.RSA_WITH_SHA384: "RSA and SHA-384",
    SignatureAlgorithmOID.RSA_WITH_SHA512: "RSA and SHA-512",
    SignatureAlgorithmOID.RSASSA_PSS: "RSASSA-PSS",
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: "ECDSA and SHA-1",
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: "ECDSA and SHA-256",
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: "ECDSA and SHA-384",
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: "ECDSA and SHA-512",
}
_LONGEST_NAME: Final = 500


@dataclass(frozen=True, slots=True)
class AuthorityFacts:
    """What a certificate says of itself. Only that it was signed, and by whom, is verified, and not here."""

    subject: str
    issuer: str
    serial: str
    key: str
    signed_with: str
    purposes: tuple[str, ...]
    path_length: int | None
    issuer_address: str


@dataclass(frozen=True, slots=True)
class ExceptionWords:
    """An exception as somebody has to understand it who may allow it."""

    title: str
    permits: str
    why: str
    cost: str


EXCEPTIONS: Final = {
    Tolerance.PADDING: ExceptionWords(
        "Bytes behind the certificate",
        "A certificate is read to its end, and what follows is cut off.",
        "TPMs keep EK certificates in an NV index that may be larger than what it holds. Nuvoton’s and"
        " STMicroelectronics’ come with the rest of it.",
        "Nobody has signed what is cut off, and nobody looks at it.",
    ),
    Tolerance.SET_ORDER: ExceptionWords(
        "Attributes out of order",
        "SETs that are not in the order of DER (X.690, 11.6) are sorted for the parser.",
        "Nuvoton’s encoder writes the attributes of a name in an order of its own, which strict parsers refuse.",
        "The signature is verified over the bytes as they came, so that nothing can be sorted into another meaning.",
    ),
    Tolerance.OAEP_KEY: ExceptionWords(
        "Keys marked for OAEP alone",
        "A key marked as RSAES-OAEP (1.2.840.113549.1.1.7) is read as the RSA key that it is.",
        "STMicroelectronics marks endorsement keys like this, as the TCG’s first profile for them had it. Common"
        " libraries then give no key at all.",
        "The mark limits what a key is for, and an endorsement key is used for nothing else here.",
    ),
    Tolerance.NULL_PARAMETERS: ExceptionWords(
        "NULL beside an ECDSA signature",
        "NULL parameters beside ecdsa-with-SHA2, which has none (RFC 5758, 3.2), are left out for the parser.",
        "Intel’s on-die CA writes them into every certificate that it issues.",
        "The signature is verified over the bytes as they came, with the NULL in them.",
    ),
}

REMEDIES: Final = {
    Reason.UNREADABLE: "Ask the maker for the file again. A malformation that is known has an exception of its own.",
    Reason.NOT_AN_AUTHORITY: "Nothing: it is no CA’s certificate. An EK certificate belongs to its host alone.",
    Reason.OTHER_PURPOSE: "Nothing: no EK certificate is issued by it. Attestation keys are proved by their TPM here.",
    Reason.EXPIRED: "Get the maker’s newer one. Chains through an authority that has expired are refused.",
    Reason.NOT_YET_VALID: "Import it again when its time has come, or set this node’s clock.",
    Reason.NOT_UNDERSTOOD: "Nothing here: a certificate says that whoever does not understand this must refuse it.",
    Reason.WEAK_KEY: "Get an authority with a stronger key from the maker.",
    Reason.CHAIN_TOO_LONG: "Import the authority that issues EK certificates itself.",
    Reason.NOT_TOLERATED: "Allow the maker this exception on the maker’s page, then upload the file again.",
    Reason.NOT_CHOSEN: "Upload the file again and choose this maker, if you trust it.",
}


def authority_facts(read: ReadCertificate) -> AuthorityFacts:
    """Return what people want to see of an authority's certificate."""
    certificate = read.certificate
    subject, issuer = (plain(name, limit=_LONGEST_NAME) for name in certificate_names(certificate))
    constraints = find_extension(certificate, x509.BasicConstraints)
    algorithm = certificate.signature_algorithm_oid
    purposes = find_extension(certificate, x509.ExtendedKeyUsage)
    return AuthorityFacts(
        subject=subject,
        issuer=issuer,
        serial=f"{certificate.serial_number:x}",
        key=key_words(certificate_key(certificate)),
        signed_with=_SIGNATURES.get(algorithm, algorithm.dotted_string),
        purposes=tuple(_PURPOSES.get(each, each.dotted_string) for each in purposes or ()),
        path_length=constraints.path_length if constraints else None,
        issuer_address=issuer_address(certificate),
    )


def key_words(key: object) -> str:
    """Name a public key by its kind and strength."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    return f"ECC {key.curve.name}" if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__
