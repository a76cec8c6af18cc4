"""Hands a secret to a transport key: only the TPM that holds it, in the boot state it is bound to, can read it."""

from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives import serialization
from joserfc import jwe
from joserfc.jwk import RSAKey

ALGORITHMS = ["RSA-OAEP-256", "A256GCM"]
MOST_KEYS: Final = 4096  # a host has one for each boot, and gets something at each attestation and each start of a VM


def wrap_to_transport_key(secret: bytes, spki: bytes) -> str:
    """Return `secret` as a compact JWE (RFC 7516) to an RSA public key given as DER SubjectPublicKeyInfo."""
    header = {"alg": "RSA-OAEP-256", "enc": "A256GCM"}
    return jwe.encrypt_compact(header, secret, _recipient(spki), algorithms=ALGORITHMS)


@lru_cache(maxsize=MOST_KEYS)
def _recipient(spki: bytes) -> RSAKey:
    pem = serialization.load_der_public_key(spki).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return RSAKey.import_key(pem)
