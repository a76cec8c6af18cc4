"""Endorsements: the TPM maker's word, in an X.509 certificate, that an endorsement key lives in a genuine TPM.

The chain is checked here after RFC 5280, section 6.1, and not by a TLS library's verifier: EK certificates name no
host, have an empty subject, carry the key purpose of the TCG EK Credential Profile, and makers' encoders have bugs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from attestation.core.authority import EK_CERTIFICATE, Authority, Reason, why_intolerable, why_invalid, why_unfit
from attestation.core.certificate_reader import (
    ReadCertificate,
    Tolerance,
    certificate_key,
    find_extension,
    issuer_address,
    quiet,
    read_certificate,
)
from attestation.core.tpm import ALG_AES, ALG_CFB, RESIDENT, Attribute, Symmetric, TpmPublic
from attestation.errors import (
    EndorsementMismatch,
    EndorsementNotTolerated,
    EndorsementRefused,
    EndorsementUntrusted,
    UnacceptableKey,
)

LONGEST_CHAIN: Final = 6

_MANUFACTURER: Final = x509.ObjectIdentifier("2.23.133.2.1")
_MODEL: Final = x509.ObjectIdentifier("2.23.133.2.2")
_VERSION: Final = x509.ObjectIdentifier("2.23.133.2.3")
_PROTECTIONS: Final = (Symmetric(ALG_AES, 128, ALG_CFB), Symmetric(ALG_AES, 256, ALG_CFB))
_GOOD_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
# An operator chose the authorities byte by byte, so a collision in one gains nothing; makers' old ones have SHA-1.
_AUTHORITY_HASHES: Final = (*_GOOD_HASHES, hashes.SHA1)


@dataclass(frozen=True, slots=True)
class Endorsement:
    """What a verified EK certificate says. The strings are the maker's; absent ones are empty.

    `chain` holds the fingerprints of the authorities above it, the root last; `tolerances` what had to be forgiven in
    the whole chain.
    """

    fingerprint: str
    manufacturer: str
    model: str
    version: str
    issuer: str
    chain: tuple[str, ...]
    tolerances: tuple[str, ...]
    not_after: datetime
    serial: str

    @property
    def root_fingerprint(self) -> str:
        return self.chain[-1]


def require_ek(public: TpmPublic) -> Symmetric:
    """Return how an endorsement key protects; refuse any key but a TPM-resident storage key, which alone activates."""
    if not public.has(RESIDENT):
        raise UnacceptableKey("The endorsement key is not fixed to the TPM that made it.")
    if not public.has(Attribute.RESTRICTED | Attribute.DECRYPT) or public.attributes & Attribute.SIGN:
        raise UnacceptableKey("The endorsement key is not a restricted decryption key.")
    if public.symmetric not in _PROTECTIONS:
        raise UnacceptableKey("The endorsement key does not protect with AES-128 or AES-256 in CFB mode.")
    return public.symmetric


def tpm_maker(certificate: x509.Certificate) -> tuple[str, str, str]:
    """Return what an EK certificate says of its TPM: manufacturer, model and version, "" for what is absent."""
    with quiet():
        manufacturer, model, version = (_tpm_attribute(certificate, oid) for oid in (_MANUFACTURER, _MODEL, _VERSION))
    return manufacturer, model, version


def verify_endorsement(
    certificate: bytes, ek: TpmPublic, *, authorities: Sequence[Authority], now: datetime
) -> Endorsement:
    """Return what the maker vouches for when `certificate` is for `ek` and chains to a root among `authorities`.

    Raises EndorsementMismatch for the certificate of another TPM, EndorsementUntrusted when no trusted maker is at
    the end of the chain or a certificate needs an exception that its maker has not been given (an operator may still
    do either), and EndorsementRefused for whatever can never become right.
    """
    read = read_certificate(certificate)
    leaf = read.certificate
    if certificate_key(leaf) != ek.key:
        raise EndorsementMismatch("The EK certificate is for another key than the TPM's endorsement key.")
    with quiet():
        _require_leaf(leaf, now)
        chain = _climb(read, authorities, now)
        issuer = leaf.issuer.rfc4514_string()
    manufacturer, model, version = tpm_maker(leaf)
    needed = read.tolerances.union(*(authority.read.tolerances for authority in chain))
    return Endorsement(
        fingerprint=read.fingerprint,
        manufacturer=manufacturer,
        model=model,
        version=version,
        issuer=issuer,
        chain=tuple(authority.read.fingerprint for authority in chain),
        tolerances=tuple(sorted(needed)),
        not_after=leaf.not_valid_after_utc,
        serial=f"{leaf.serial_number:x}",
    )


def chain_above(authority: Authority, *, authorities: Sequence[Authority], now: datetime) -> tuple[Authority, ...]:
    """Return the chain from an authority's issuer to its root, none for a root, or raise as for an EK certificate."""
    if authority.is_root:
        return ()
    with quiet():
        return _climb(authority.read, authorities, now, below=1)


def _climb(
    read: ReadCertificate, authorities: Sequence[Authority], now: datetime, *, below: int = 0
) -> tuple[Authority, ...]:
    """Return the authorities above `read`, the root last; `below` is the number of authorities already below.

    A root is a self-issued authority. Its own signature proves nothing, an operator's having put it there does.
    What an operator could still change is told rather than what can never become right.
    """
    if below >= LONGEST_CHAIN:
        _refuse("The chain is too long.")
    refusals: list[EndorsementRefused] = []
    for authority in authorities:
        if not _may_have_signed(authority.certificate, read.certificate):
            continue
        try:
            _require_signature(read, authority.certificate, leaf=not below)
            _require_authority(authority, now, below=below)
            if not below:
                _require_tolerated(read.tolerances, authority.tolerated)
            above = () if authority.is_root else _climb(authority.read, authorities, now, below=below + 1)
            return (authority, *above)
        except EndorsementRefused as error:
            refusals.append(error)
    if not refusals:
        raise _untrusted(read.certificate, leaf=not below)
    raise next((error for error in refusals if isinstance(error, EndorsementUntrusted)), refusals[0])


def _untrusted(certificate: x509.Certificate, *, leaf: bool) -> EndorsementUntrusted:
    """Name the authority that is missing and where its certificate should be, for a person to look at it."""
    whose = "the EK certificate" if leaf else f"“{certificate.subject.rfc4514_string()}”"
    sentence = f"No trusted authority named “{certificate.issuer.rfc4514_string()}” has signed {whose}."
    address = issuer_address(certificate)
    where = f" That authority’s certificate should be at {address}; import it if you trust its maker."
    return EndorsementUntrusted(sentence + where if address else sentence)


def _may_have_signed(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Find an authority by its name, and tell those of one name apart by key identifiers, where both have one."""
    if authority.subject != certificate.issuer:
        return False
    named, own = (
        find_extension(certificate, x509.AuthorityKeyIdentifier),
        find_extension(authority, x509.SubjectKeyIdentifier),
    )
    if named is None or named.key_identifier is None or own is None:
        return True
    return named.key_identifier == own.digest


def _require_leaf(leaf: x509.Certificate, now: datetime) -> None:
    if unfit := why_invalid(leaf, "EK certificate", now):
        _refuse(unfit.sentence)
    purposes = find_extension(leaf, x509.ExtendedKeyUsage)
    if purposes is None or EK_CERTIFICATE not in purposes:
        _refuse("The certificate does not say that it is an EK certificate (2.23.133.8.1).")
    constraints = find_extension(leaf, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        _refuse("The EK certificate says that it is an authority.")
    usage = find_extension(leaf, x509.KeyUsage)
    if usage is not None and not (usage.key_encipherment or usage.key_agreement):
        _refuse("The EK certificate is not for encryption.")


def _require_authority(authority: Authority, now: datetime, *, below: int) -> None:
    unfit = why_unfit(authority, below=below, now=now)
    if unfit is not None and unfit.reason is Reason.NOT_TOLERATED:
        raise EndorsementNotTolerated(unfit.sentence)
    if unfit is not None:
        _refuse(unfit.sentence)


def _require_tolerated(needed: frozenset[Tolerance], tolerated: frozenset[Tolerance]) -> None:
    """Hold the EK certificate to what its issuer's maker may need; the issuer has signed it by now."""
    if unfit := why_intolerable(needed, tolerated, "EK certificate"):
        raise EndorsementNotTolerated(unfit.sentence)


def _require_signature(signed: ReadCertificate, authority: x509.Certificate, *, leaf: bool) -> None:
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


def _tpm_attribute(leaf: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    """Read one attribute of the SAN's directoryName (TCG EK Credential Profile, 3.1.2)."""
    names = find_extension(leaf, x509.SubjectAlternativeName)
    directories = names.get_values_for_type(x509.DirectoryName) if names is not None else []
    found = (attribute.value for directory in directories for attribute in directory.get_attributes_for_oid(oid))
    value = next(found, "")
    return value if isinstance(value, str) else value.hex()


def _refuse(sentence: str) -> NoReturn:
    raise EndorsementRefused(sentence)
