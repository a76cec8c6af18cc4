"""Health certificates: for a few hours, proof that a host attested, bound to the key its TPM holds for this boot.

Keys, serial numbers and times come from the caller. X.509 after RFC 5280.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from attestation.errors import CertificateExpired, CertificateUnknown

HEALTH_EKU: Final = x509.ObjectIdentifier("2.25.54763902849384397631236806490199773375")
"""Key purpose "health certificate of a Guardhouse fabric": UUID 293324df-9a6c-48a1-94d6-f8e5c67950bf under 2.25."""

_ATTESTER: Final = "urn:guardhouse:attester:"
_MODE: Final = "urn:guardhouse:mode:"
_LONGEST_NAME: Final = 64  # ub-common-name (RFC 5280, appendix A.1)
_CERTIFICATE_LIMIT: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class HealthClaims:
    """Whose health a certificate states, and by which attestation mode."""

    attester_id: str
    name: str
    mode: str


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: a private key and the certificate that `build_signer` made for it."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class HealthCertificate:
    """A health certificate that one of our signers signed. Whether it is revoked is for the service to know."""

    serial: str
    claims: HealthClaims
    transport_spki: bytes
    not_before: datetime
    not_after: datetime
    signer_fingerprint: str


def serial_text(serial: int) -> str:
    """Write a serial number the one way it is stored and sent: lower-case hexadecimal without leading zeros."""
    return f"{serial:x}"


def build_signer(
    key: ec.EllipticCurvePrivateKey, *, number: int, fabric: str, not_before: datetime, not_after: datetime
) -> bytes:
    """Return the self-signed certificate of a signer that issues health certificates and CRLs, and no authorities."""
    name = _common_name(f"{fabric} health signer", suffix=f" {number}")
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(number)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def build_health_certificate(
    *,
    claims: HealthClaims,
    transport_spki: bytes,
    serial: int,
    not_before: datetime,
    not_after: datetime,
    signer: Signer,
) -> bytes:
    """Return a certificate for the transport key: whoever encrypts to it reaches this TPM in this boot state only."""
    transport_key = serialization.load_der_public_key(transport_spki)
    if not isinstance(transport_key, rsa.RSAPublicKey):
        raise TypeError("Transport keys are RSA keys.")
    uris = [x509.UniformResourceIdentifier(_ATTESTER + claims.attester_id)]
    uris.append(x509.UniformResourceIdentifier(_MODE + claims.mode))
    builder = (
        x509.CertificateBuilder()
        .subject_name(_common_name(claims.name))
        .issuer_name(signer.certificate.subject)
        .public_key(transport_key)
        .serial_number(serial)
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([HEALTH_EKU]), critical=True)
        .add_extension(x509.SubjectAlternativeName(uris), critical=False)
        .add_extension(_authority_identifier(signer.certificate), critical=False)
    )
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def serial_in(der: bytes) -> str:
    """Return the serial number that a certificate claims, from anybody; raise `CertificateUnknown` for what is none."""
    return serial_text(_load(der).serial_number)


def verify_health_certificate(der: bytes, *, signers: Sequence[x509.Certificate], now: datetime) -> HealthCertificate:
    """Return what one of `signers` states in `der`, which must be a health certificate that is valid at `now`."""
    health, signer = read_health_certificate(der, signers=signers)
    require_valid(health, signer, now=now)
    return health


def read_health_certificate(
    der: bytes, *, signers: Sequence[x509.Certificate]
) -> tuple[HealthCertificate, x509.Certificate]:
    """Return what one of `signers` states in `der`, and which. It is for the caller to ask whether it holds now."""
    certificate = _load(der)
    signer = _signer_of(certificate, signers)
    try:
        return _read(certificate, signer), signer
    except (ValueError, IndexError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise CertificateUnknown("This is not a health certificate.") from error


def require_valid(health: HealthCertificate, signer: x509.Certificate, *, now: datetime) -> None:
    if not signer.not_valid_before_utc <= now <= signer.not_valid_after_utc:
        raise CertificateExpired("The signer of this health certificate is not valid now.")
    if now < health.not_before:
        raise CertificateExpired(f"The health certificate is not valid before {health.not_before}.")
    if now >= health.not_after:
        raise CertificateExpired(f"The health certificate expired at {health.not_after}.")


def build_crl(
    *,
    revoked: Sequence[tuple[int, datetime]],
    signer: Signer,
    number: int,
    now: datetime,
    next_update: datetime,
) -> bytes:
    """Return a CRL (RFC 5280, section 5) of one signer; `revoked` are serial numbers and when each was revoked."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(now)
        .next_update(next_update)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_identifier(signer.certificate), critical=False)
    )
    for serial, revoked_at in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(revoked_at).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _load(der: bytes) -> x509.Certificate:
    if len(der) > _CERTIFICATE_LIMIT:
        raise CertificateUnknown("This is not a health certificate: it is too large.")
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise CertificateUnknown("This is not a certificate.") from error


def _signer_of(certificate: x509.Certificate, signers: Sequence[x509.Certificate]) -> x509.Certificate:
    for signer in signers:
        try:
            certificate.verify_directly_issued_by(signer)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            continue
        return signer
    raise CertificateUnknown("No signer of this fabric has signed this certificate.")


def _read(certificate: x509.Certificate, signer: x509.Certificate) -> HealthCertificate:
    """Read what our own signer wrote; ValueError for a certificate that it wrote for another purpose."""
    extensions = certificate.extensions
    if extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise ValueError("an authority")
    if list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) != [HEALTH_EKU]:
        raise ValueError("another purpose")
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    common_name = str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    claims = HealthClaims(_only(uris, _ATTESTER), common_name, _only(uris, _MODE))
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("another kind of key")
    return HealthCertificate(
        serial=serial_text(certificate.serial_number),
        claims=claims,
        transport_spki=key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        signer_fingerprint=signer.fingerprint(hashes.SHA256()).hex(),
    )


def _only(uris: Sequence[str], prefix: str) -> str:
    (found,) = (uri.removeprefix(prefix) for uri in uris if uri.startswith(prefix))
    return found


def _common_name(text: str, *, suffix: str = "") -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[: _LONGEST_NAME - len(suffix)] + suffix)])


def _authority_identifier(signer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    """A signer signs certificates and CRLs; a transport key enciphers keys. Neither does anything else."""
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
