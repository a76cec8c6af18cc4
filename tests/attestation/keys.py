"""Keys of hosts without a TPM."""

from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from attestation.core.possession import SigningKey

TRANSPORT: Final = rsa.generate_private_key(65537, 2048)


def spki(key: SigningKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
