"""Endorsements: the TPM maker's word, in an X.509 certificate, that an endorsement key lives in a genuine TPM.

The chain is checked here after RFC 5280, section 6.1, and not by a TLS library's verifier: EK certificates name no
host, have an empty subject, carry the key purpose of the TCG EK Credential Profile, and makers' encoders have bugs.
"""

import hashlib
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final, NoReturn, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtensionOID

from attestation.core.der import SEQUENCE, VERSION, read_element, read_elements, sort_sets
from attestation.core.tpm import ALG_AES, ALG_CFB, RESIDENT, Attribute, Symmetric, TpmPublic
from attestation.errors import (
    EndorsementMismatch,
    EndorsementRefused,
    EndorsementUntrusted,
    ParseError,
    TooLarge,
    UnacceptableKey,
)

CERTIFICATE_LIMIT: Final = 16 * 1024
EK_CERTIFICATE: Final = x509.ObjectIdentifier("2.23.133.8.1")
"""tcg-kp-EKCertificate."""

_MANUFACTURER: Final = x509.ObjectIdentifier("2.23.133.2.1")
_MODEL: Final = x509.ObjectIdentifier("2.23.133.2.2")
_VERSION: Final = x509.ObjectIdentifier("2.23.133.2.3")
_PROTECTIONS: Final = (Symmetric(ALG_AES, 128, ALG_CFB), Symmetric(ALG_AES, 256, ALG_CFB))
_LONGEST_CHAIN: Final = 6
_UNDERSTOOD: Final = {
    ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.KEY_USAGE,
    ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    ExtensionOID.CERTIFICATE_POLICIES,  # RFC 5280 6.1.1 (c): any policy will do
}
_RSAES_OAEP: Final = bytes.fromhex("06092a864886f70d010107")
_RSA_ENCRYPTION: Final = bytes.fromhex("300d06092a864886f70d0101010500")
_GOOD_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
# An operator chose the authorities byte by byte, so a collision in one gains nothing; makers' old ones have SHA-1.
_AUTHORITY_HASHES: Final = (*_GOOD_HASHES, hashes.SHA1)
_BROKEN: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_filters = threading.Lock()
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class Endorsement:
    """What a verified EK certificate says. The strings are the maker's; absent ones are empty."""

    fingerprint: str
    manufacturer: str
    model: str
    version: str
    issuer: str
    root_fingerprint: str
    not_after: datetime
    serial: str


@dataclass(frozen=True, slots=True)
class _Signed:
    """A certificate and the bytes its issuer signed, which are not the parsed ones when SETs had to be sorted."""

    certificate: x509.Certificate
    body: bytes


def require_ek(public: TpmPublic) -> Symmetric:
    """Return how an endorsement key protects; refuse any key but a TPM-resident storage key, which alone activates."""
    if not public.has(RESIDENT):
        raise UnacceptableKey("The endorsement key is not fixed to the TPM that made it.")
    if not public.has(Attribute.RESTRICTED | Attribute.DECRYPT) or public.attributes & Attribute.SIGN:
        raise UnacceptableKey("The endorsement key is not a restricted decryption key.")
    if public.symmetric not in _PROTECTIONS:
        raise UnacceptableKey("The endorsement key does not protect with AES-128 or AES-256 in CFB mode.")
    return public.symmetric


def parse_certificate(der: bytes) -> x509.Certificate:
    """Parse an X.509 certificate as TPMs and their makers really write it, or raise ParseError.

    Two habits are forgiven: padding after the certificate (NV indexes are larger than what they hold), which is cut,
    and SETs out of order (Nuvoton), which are sorted. Everything that verification reads later is
    read once here, so that no malformed extension surprises it.
    """
    return _parse(der).certificate


def certificate_key(certificate: x509.Certificate) -> object:
    """Return the certificate's key; STM marks RSA keys as RSAES-OAEP, which says nothing else about the key."""
    try:
        return certificate.public_key()
    except UnsupportedAlgorithm:
        fields = list(read_elements(read_element(certificate.tbs_certificate_bytes).value))
        first = 1 if fields[0].tag == VERSION else 0
        algorithm, key = islice(read_elements(fields[first + 5].value), 2)
        if not algorithm.value.startswith(_RSAES_OAEP):
            raise
        length = len(_RSA_ENCRYPTION) + len(key.raw)
        header = bytes((SEQUENCE, 0x82)) + length.to_bytes(2, "big")
        return serialization.load_der_public_key(header + _RSA_ENCRYPTION + key.raw)


def certificate_names(certificate: x509.Certificate) -> tuple[str, str]:
    """Return subject and issuer as text (RFC 4514); names longer than X.520 allows are taken as they are."""
    with _quiet():
        return certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string()


def tpm_maker(certificate: x509.Certificate) -> tuple[str, str, str]:
    """Return what an EK certificate says of its TPM: manufacturer, model and version, "" for what is absent."""
    with _quiet():
        manufacturer, model, version = (_tpm_attribute(certificate, oid) for oid in (_MANUFACTURER, _MODEL, _VERSION))
    return manufacturer, model, version


def verify_endorsement(
    certificate: bytes, ek: TpmPublic, *, authorities: Sequence[x509.Certificate], now: datetime
) -> Endorsement:
    """Return what the maker vouches for when `certificate` is for `ek` and chains to a root among `authorities`.

    Raises EndorsementMismatch for the certificate of another TPM, EndorsementUntrusted when no trusted maker is at
    the end of the chain (an operator may still add it), and EndorsementRefused for whatever can never become right.
    """
    signed = _parse(certificate)
    leaf = signed.certificate
    if certificate_key(leaf) != ek.key:
        raise EndorsementMismatch("The EK certificate is for another key than the TPM's endorsement key.")
    with _quiet():
        _require_leaf(leaf, now)
        root = _climb(signed, authorities, now, depth=0)
        issuer = leaf.issuer.rfc4514_string()
    manufacturer, model, version = tpm_maker(leaf)
    return Endorsement(
        fingerprint=hashlib.sha256(read_element(certificate).raw).hexdigest(),
        manufacturer=manufacturer,
        model=model,
        version=version,
        issuer=issuer,
        root_fingerprint=root.fingerprint(hashes.SHA256()).hex(),
        not_after=leaf.not_valid_after_utc,
        serial=f"{leaf.serial_number:x}",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Python warns about names longer than X.520 allows, which makers write; the operator can do nothing about it."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _parse(der: bytes) -> _Signed:
    if len(der) > CERTIFICATE_LIMIT:
        raise TooLarge(f"The certificate has {len(der)} bytes; at most {CERTIFICATE_LIMIT} are accepted.")
    body, canonical = _canonical(der)
    try:
        with _quiet():
            certificate = x509.load_der_x509_certificate(canonical)
            _touch(certificate)
    except _BROKEN as error:
        raise ParseError(f"The certificate is malformed: {error}.") from error
    return _Signed(certificate, body)


def _touch(certificate: x509.Certificate) -> None:
    """Have everything parsed that `cryptography` parses only when it is asked for."""
    _ = certificate.extensions, certificate.subject, certificate.issuer
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    certificate_key(certificate)


def _canonical(der: bytes) -> tuple[bytes, bytes]:
    """Return the signed part as it came and the whole certificate with its SETs in order."""
    outer = read_element(der)
    parts = list(islice(read_elements(outer.value), 3))
    if outer.tag != SEQUENCE or not parts or parts[0].tag != SEQUENCE:
        raise ParseError("This is not an X.509 certificate.")
    body = parts[0]
    return body.raw, outer.raw.replace(body.raw, sort_sets(body), 1)


def _climb(signed: _Signed, authorities: Sequence[x509.Certificate], now: datetime, *, depth: int) -> x509.Certificate:
    """Return the root that `signed` chains to; `depth` is the number of authorities already below.

    A root is a self-issued authority. Its own signature proves nothing, an operator's having put it there does.
    """
    certificate = signed.certificate
    refusal: EndorsementRefused = EndorsementUntrusted(
        f"No trusted authority named “{certificate.issuer.rfc4514_string()}” has signed it."
    )
    if depth >= _LONGEST_CHAIN:
        _refuse("The chain is too long.")
    for authority in authorities:
        if authority.subject != certificate.issuer or not _may_have_signed(authority, certificate):
            continue
        try:
            _require_authority(authority, now, depth)
            _require_signature(signed, authority, leaf=depth == 0)
            if authority.subject == authority.issuer:
                return authority
            above = _Signed(authority, authority.tbs_certificate_bytes)
            return _climb(above, authorities, now, depth=depth + 1)
        except EndorsementRefused as error:
            refusal = error
    raise refusal


def _may_have_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Tell authorities of one name apart by their key identifiers, where both certificates have one."""
    named, own = _extension(certificate, x509.AuthorityKeyIdentifier), _extension(authority, x509.SubjectKeyIdentifier)
    if named is None or named.key_identifier is None or own is None:
        return True
    return named.key_identifier == own.digest


def _require_leaf(leaf: x509.Certificate, now: datetime) -> None:
    _require_valid(leaf, "EK certificate", now)
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is None or EK_CERTIFICATE not in purposes:
        _refuse("The certificate does not say that it is an EK certificate (2.23.133.8.1).")
    constraints = _extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        _refuse("The EK certificate says that it is an authority.")
    usage = _extension(leaf, x509.KeyUsage)
    if usage is not None and not (usage.key_encipherment or usage.key_agreement):
        _refuse("The EK certificate is not for encryption.")


def _require_authority(authority: x509.Certificate, now: datetime, depth: int) -> None:
    name = f"certificate of the authority “{authority.subject.rfc4514_string()}”"
    _require_valid(authority, name, now)
    constraints = _extension(authority, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        _refuse(f"The {name} does not say that it is an authority.")
    if constraints.path_length is not None and constraints.path_length < depth:
        _refuse(f"The {name} allows {constraints.path_length} authorities below it, there are {depth}.")
    usage = _extension(authority, x509.KeyUsage)
    if usage is None or not usage.key_cert_sign:
        _refuse(f"The {name} is not for signing certificates.")


def _require_valid(certificate: x509.Certificate, name: str, now: datetime) -> None:
    if now < certificate.not_valid_before_utc:
        _refuse(f"The {name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d}.")
    if now > certificate.not_valid_after_utc:
        _refuse(f"The {name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}.")
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            _refuse(f"The {name} has the critical extension {extension.oid.dotted_string}, which is not understood.")


def _require_signature(signed: _Signed, authority: x509.Certificate, *, leaf: bool) -> None:
    certificate, key = signed.certificate, certificate_key(authority)
    try:
        algorithm = certificate.signature_hash_algorithm
        if not isinstance(algorithm, _GOOD_HASHES if leaf else _AUTHORITY_HASHES):
            _refuse("A certificate of the chain is signed with a hash that is no longer safe.")
        scheme = certificate.signature_algorithm_parameters
        if isinstance(key, rsa.RSAPublicKey) and isinstance(scheme, padding.PKCS1v15 | padding.PSS):
            key.verify(certificate.signature, signed.body, scheme, algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(scheme, ec.ECDSA):
            key.verify(certificate.signature, signed.body, scheme)
        else:
            _refuse("A certificate of the chain is signed with another algorithm than its authority's key.")
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
        raise EndorsementRefused("A certificate of the chain is not signed by the authority that it names.") from error


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    return next((entry.value for entry in certificate.extensions if isinstance(entry.value, kind)), None)


def _tpm_attribute(leaf: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    """Read one attribute of the SAN's directoryName (TCG EK Credential Profile, 3.1.2)."""
    names = _extension(leaf, x509.SubjectAlternativeName)
    directories = names.get_values_for_type(x509.DirectoryName) if names is not None else []
    found = (attribute.value for directory in directories for attribute in directory.get_attributes_for_oid(oid))
    value = next(found, "")
    return value if isinstance(value, str) else value.hex()


def _refuse(sentence: str) -> NoReturn:
    raise EndorsementRefused(sentence)
