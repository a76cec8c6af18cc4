"""Keys under one root: 32 bytes from which whatever seals and derives is made.

How a node gets at the root is what its custody is about: out of a file, or out of its TPM. All nodes of a fabric have
the same one, so what one has sealed the others open, and moving the root moves everything.
"""

import secrets
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from ledger.custody.errors import NotSealedHere

KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12
Derive = Callable[[str, bytes], bytes]


def extracted(root: bytes) -> bytes:
    """Return the key that derives (HKDF-Extract, RFC 5869, 2.2): all that a token needs to derive the same."""
    return HKDF.extract(hashes.SHA256(), None, root)


def derivation(purpose: str, context: bytes) -> bytes:
    """Return what is derived over, the `info` of HKDF-Expand."""
    return b"guardhouse custody v1\x00" + purpose.encode() + b"\x00" + context


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def seal_key(private: ec.EllipticCurvePrivateKey, purpose: str, derive: Derive) -> bytes:
    """Return a private key as it rests in a row: AES-256-GCM under a key of its purpose."""
    plain = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    nonce = secrets.token_bytes(NONCE_SIZE)
    return nonce + AESGCM(derive("seal", purpose.encode())).encrypt(nonce, plain, purpose.encode())


def open_key(sealed: bytes, purpose: str, derive: Derive) -> ec.EllipticCurvePrivateKey:
    """Raises `NotSealedHere` for anything that was not sealed for this purpose under this root."""
    plain = opened_by(derive("seal", purpose.encode()), sealed, purpose.encode())
    private = serialization.load_der_private_key(plain, password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise TypeError("custody holds elliptic curve keys only")
    return private


def opened_by(key: bytes, sealed: bytes, about: bytes) -> bytes:
    """Return what was sealed under a derived key. Raises `NotSealedHere`, which is an `InvalidTag`."""
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], about)
    except (InvalidTag, ValueError) as error:
        raise NotSealedHere(
            "A key of this service does not open with the custody in use: it was sealed by another, or the keys have"
            " moved since this process was started. `manage.py custody show` says what opens what."
        ) from error


class RootCustody:
    """A custody that has its root in this process's memory."""

    name: str
    secure: bool

    def __init__(self, root: bytes) -> None:
        if len(root) != KEY_SIZE:
            raise ValueError(f"a root has {KEY_SIZE} bytes")
        self._deriving = extracted(root)

    def generate(self, purpose: str) -> tuple[bytes, ec.EllipticCurvePublicKey]:
        private = new_key()
        return seal_key(private, purpose, self.derive), private.public_key()

    def open(self, sealed: bytes, purpose: str) -> ec.EllipticCurvePrivateKey:
        return open_key(sealed, purpose, self.derive)

    def derive(self, purpose: str, context: bytes) -> bytes:
        info = derivation(purpose, context)
        return HKDFExpand(algorithm=hashes.SHA256(), length=KEY_SIZE, info=info).derive(self._deriving)

    def rests(self, sealed: bytes) -> bool:
        return not sealed.startswith(TOKEN)

    def admit(self, private: ec.EllipticCurvePrivateKey, purpose: str) -> bytes:
        return seal_key(private, purpose, self.derive)


TOKEN: Final = b"guardhouse-token-key/1:"  # what a sealed key begins with that rests in a token
