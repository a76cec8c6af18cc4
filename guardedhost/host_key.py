"""Host-key mode on the host: a key that says which machine this is, and one that keys of VMs are wrapped to.

Both lie in files that root can read and copy; no TPM guards them and nothing binds them to what was booted. Where a
host has a TPM that the portal knows, TPM mode proves more.
"""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from attestation.core.possession import SigningKey
from guardedhost import files
from guardedhost.errors import AgentError, StoreDamaged

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label=None)
_TRANSPORT_BITS = 2048


def host_key(folder: Path) -> SigningKey:
    """Return this host's key, made when it is first asked for: P-256, or what the operator has put there."""
    path = folder / "host-key.pem"
    if not path.exists():
        files.write_new(path, private_pem(ec.generate_private_key(ec.SECP256R1())))
    return kept_host_key(folder)


def kept_host_key(folder: Path) -> SigningKey:
    """Return this host's key, which has to be there."""
    path = folder / "host-key.pem"
    if not path.exists():
        raise StoreDamaged(f"{path} is gone, and the portal knows this host by it.")
    key = read_private(path.read_bytes(), what=str(path))
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise StoreDamaged(f"{path} holds a key of a kind that no portal takes.")
    return key


def new_transport_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, _TRANSPORT_BITS)


def public_spki(key: SigningKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: SigningKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_private(pem: bytes, *, what: str) -> object:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StoreDamaged(f"{what} holds no private key that can be read.") from error


def decrypt(pem: bytes, ciphertext: bytes) -> bytes:
    """RSA-OAEP-256 by a transport key of this host."""
    key = read_private(pem, what="The transport key")
    if not isinstance(key, rsa.RSAPrivateKey):
        raise StoreDamaged("The transport key is not an RSA key.")
    try:
        return key.decrypt(ciphertext, _OAEP)
    except ValueError as error:
        raise AgentError("A key from the portal is not for this host’s transport key.") from error
