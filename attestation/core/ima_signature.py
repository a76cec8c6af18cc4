"""Verifies the signature that an ima-sig entry carries: security.ima in its version 2 form, as evmctl writes it.

struct signature_v2_hdr (security/integrity/integrity.h): type 3, version 2, hash algorithm, key id (32 bits), size of
the signature (16 bits), both big-endian, signature. It is made over the digest of the file, which the entry states.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from attestation.core.certificate_reader import certificate_names, parse_certificate
from attestation.errors import ParseError

_HEADER: Final = Struct(">BBBIH")
_XATTR_DIGSIG: Final = 3
_VERSION: Final = 2
_SMALLEST_RSA: Final = 2048
_LONGEST: Final = 1024
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

# enum hash_algo of the kernel. SHA-1 is missing on purpose: who can make it collide can move a signature.
_HASHES: Final[dict[int, tuple[str, hashes.HashAlgorithm]]] = {
    4: ("sha256", hashes.SHA256()),
    5: ("sha384", hashes.SHA384()),
    6: ("sha512", hashes.SHA512()),
    7: ("sha224", hashes.SHA224()),
}


@dataclass(frozen=True, slots=True)
class ImaSignature:
    """A signature as the entry carries it, unverified."""

    algorithm: int
    key_id: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class ImaSigner:
    """A certificate whose key may sign files. `key_ids` is how signatures refer to it: a hint, never a proof."""

    fingerprint: str
    subject: str
    key_ids: frozenset[int]
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey


def parse_signer(der: bytes) -> ImaSigner:
    """Read a signing certificate, or raise ParseError. Like the kernel's keyring it asks for no date: files stay."""
    certificate = parse_certificate(der)
    try:
        key = certificate.public_key()
        key_ids = frozenset(_key_ids(certificate))
    except (ValueError, UnsupportedAlgorithm):
        raise ParseError("The IMA signing certificate's key cannot be read.") from None
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) or not _strong(key):
        raise ParseError("The IMA signing certificate's key is neither RSA of 2048 bits nor on a NIST curve.")
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
    return ImaSigner(fingerprint, certificate_names(certificate)[0], key_ids, key)


def parse_signature(data: bytes) -> ImaSignature:
    """Read security.ima, version 2; every other form is refused, a bare hash (type 1 and 4) among them."""
    if not _HEADER.size < len(data) <= _LONGEST:
        raise ParseError(f"The IMA signature has {len(data)} bytes at byte 0.")
    kind, version, algorithm, key_id, size = _HEADER.unpack_from(data)
    if (kind, version) != (_XATTR_DIGSIG, _VERSION):
        raise ParseError(f"The IMA signature at byte 0 is of type {kind}, version {version}.")
    if size != len(data) - _HEADER.size:
        raise ParseError(f"The IMA signature at byte 7 claims {size} bytes.")
    return ImaSignature(algorithm, key_id, data[_HEADER.size :])


def signed_by(signature: ImaSignature, signer: ImaSigner, *, algorithm: str, digest: bytes) -> bool:
    """Tell whether the signer signed this file digest; the digest's algorithm is the signature's, or it did not."""
    name, hash_algorithm = _HASHES.get(signature.algorithm, ("", hashes.SHA256()))
    if name != algorithm or len(digest) != hash_algorithm.digest_size:
        return False
    try:
        if isinstance(signer.key, rsa.RSAPublicKey):
            signer.key.verify(signature.signature, digest, padding.PKCS1v15(), Prehashed(hash_algorithm))
        else:
            signer.key.verify(signature.signature, digest, ec.ECDSA(Prehashed(hash_algorithm)))
    except InvalidSignature:
        return False
    return True


def _strong(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= _SMALLEST_RSA
    return isinstance(key.curve, _CURVES)


def _key_ids(certificate: x509.Certificate) -> Iterator[int]:
    """The last four bytes of the key identifier that the certificate states, and of the one computed from its key."""
    yield _last_four(x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest)
    for extension in certificate.extensions:
        if isinstance(extension.value, x509.SubjectKeyIdentifier):
            yield _last_four(extension.value.digest)


def _last_four(identifier: bytes) -> int:
    return int.from_bytes(identifier[-4:], "big")
