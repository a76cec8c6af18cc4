"""The signatures that a TPM makes over its own statements (TCG "Trusted Platform Module Library", part 2, 11.3)."""

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from attestation.core.reader import Reader
from attestation.core.tpm import (
    ALG_ECDSA,
    ALG_NULL,
    ALG_RSASSA,
    HASHES,
    LARGEST_RSA,
    SIGNING_SCHEMES,
    KeyKind,
    TpmPublic,
)
from attestation.errors import BadSignature


def verify_signature(public: TpmPublic, message: bytes, signature: bytes) -> None:
    """Verify a TPMT_SIGNATURE (part 2, 11.3.4) of RSASSA, RSAPSS or ECDSA with SHA-256 or better.

    The scheme must be the key's own, so that nobody chooses a weaker one in the signature.
    """
    reader = Reader(signature, what="TPMT_SIGNATURE")
    scheme, hash_algorithm = reader.u16(), reader.u16()
    if scheme not in SIGNING_SCHEMES:
        raise reader.error(f"signature scheme {scheme:#06x} is not RSASSA, RSAPSS or ECDSA")
    if hash_algorithm not in HASHES:
        raise reader.error(f"hash {hash_algorithm:#06x} is not SHA-256, SHA-384 or SHA-512")
    parts = [reader.sized(LARGEST_RSA) for _ in range(2 if scheme == ALG_ECDSA else 1)]
    reader.finish()
    if public.scheme != ALG_NULL and (scheme, hash_algorithm) != (public.scheme, public.scheme_hash):
        raise BadSignature("The signature uses another scheme than its key.")
    if (scheme == ALG_ECDSA) != (public.kind is KeyKind.ECC):
        raise BadSignature("The signature is of another kind than its key.")
    try:
        _verify(public.key, message, scheme, HASHES[hash_algorithm], parts)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError) as error:
        raise BadSignature("The signature does not verify with the host's key.") from error


def _verify(
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    message: bytes,
    scheme: int,
    algorithm: hashes.HashAlgorithm,
    parts: list[bytes],
) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        r, s = (int.from_bytes(part, "big") for part in parts)
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(algorithm))
    elif scheme == ALG_RSASSA:
        key.verify(parts[0], message, padding.PKCS1v15(), algorithm)
    else:
        # TPMs differ in the salt: the digest's length in FIPS mode, else as much as fits (part 1, B.7).
        key.verify(parts[0], message, padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO), algorithm)
