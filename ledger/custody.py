"""Custody of this service's own private keys, behind one small interface.

A key is kept as a *sealed* byte string in its database row, so that creating a key and recording it share a
transaction; what opens it is custody's business. `insecure-file` (the embedded default) opens it with a key in a
file that root on this node can read. Sealing to a TPM and PKCS#11 tokens take the same three verbs.
"""

import os
import secrets
from functools import cache
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

KEY_SIZE = 32
NONCE_SIZE = 12


class Custody(Protocol):
    """Where private keys rest."""

    name: str
    secure: bool

    def generate(self, purpose: str) -> tuple[bytes, ec.EllipticCurvePublicKey]:
        """Make a P-256 key for one purpose; return it sealed, and its public half."""

    def open(self, sealed: bytes, purpose: str) -> ec.EllipticCurvePrivateKey:
        """Return the private key, usable through the ordinary `cryptography` interface. Raises `InvalidTag`."""

    def derive(self, purpose: str, context: bytes) -> bytes:
        """Return 32 bytes that only this custody can make again for this purpose and context."""


class InsecureFileCustody:
    """Seals with AES-256-GCM under a key in a file: safe against a stolen database, not against root on this node."""

    name = "insecure-file"
    secure = False

    def __init__(self, path: Path) -> None:
        self._key = _read_or_create(path)

    def generate(self, purpose: str) -> tuple[bytes, ec.EllipticCurvePublicKey]:
        private = ec.generate_private_key(ec.SECP256R1())
        plain = private.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        nonce = secrets.token_bytes(NONCE_SIZE)
        sealing = AESGCM(self.derive("seal", purpose.encode()))
        return nonce + sealing.encrypt(nonce, plain, purpose.encode()), private.public_key()

    def open(self, sealed: bytes, purpose: str) -> ec.EllipticCurvePrivateKey:
        sealing = AESGCM(self.derive("seal", purpose.encode()))
        plain = sealing.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], purpose.encode())
        private = serialization.load_der_private_key(plain, password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise TypeError("custody holds elliptic curve keys only")
        return private

    def derive(self, purpose: str, context: bytes) -> bytes:
        info = b"guardhouse custody v1\x00" + purpose.encode() + b"\x00" + context
        return HKDF(algorithm=hashes.SHA256(), length=KEY_SIZE, salt=None, info=info).derive(self._key)


def _read_or_create(path: Path) -> bytes:
    """Return the file's 32 bytes, making the file once, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    if not path.exists():
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_SIZE))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # of two nodes that start at once, one wins and both read the winner's
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    key = path.read_bytes()
    if len(key) != KEY_SIZE:
        raise ImproperlyConfigured(f"The custody file {path} holds {len(key)} bytes instead of {KEY_SIZE}.")
    return key


@cache
def _insecure_file(path: Path) -> InsecureFileCustody:
    return InsecureFileCustody(path)


def custody() -> Custody:
    """Return the custody that the settings name."""
    return {"insecure-file": _insecure_file}[settings.CUSTODY](settings.CUSTODY_FILE)
