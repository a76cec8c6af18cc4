"""Hands a secret to a transport key: only the TPM that holds it, in the boot state it is bound to, can read it."""

from cryptography.hazmat.primitives import serialization
from joserfc import jwe
from joserfc.jwk import RSAKey

ALGORITHMS = ["RSA-OAEP-256", "A256GCM"]


def wrap_to_transport_key(secret: bytes, spki: bytes) -> str:
    """Return `secret` as a compact JWE (RFC 7516) to an RSA public key given as DER SubjectPublicKeyInfo."""
    pem = serialization.load_der_public_key(spki).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    header = {"alg": "RSA-OAEP-256", "enc": "A256GCM"}
    return jwe.encrypt_compact(header, secret, RSAKey.import_key(pem), algorithms=ALGORITHMS)
