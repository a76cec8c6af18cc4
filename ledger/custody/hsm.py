"""Keys that rest in a PKCS#11 token: made there, used there, and never seen by this service."""

import hashlib
import secrets
from functools import lru_cache
from typing import Any, Final, NoReturn

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from ledger.custody.errors import CannotMove, NotSealedHere
from ledger.custody.root import TOKEN, derivation, open_key
from ledger.custody.token import ID_SIZE, Token, TokenAddress

_REMEMBERED: Final = 4096
_LAST_BLOCK: Final = b"\x01"  # of HKDF-Expand for 32 bytes (RFC 5869, 2.3), which is one HMAC


class TokenKey(ec.EllipticCurvePrivateKey):
    """A private key of a token, in the ordinary interface, so that the JOSE and X.509 libraries use it as any other."""

    def __init__(self, token: Token, key_id: bytes, label: str) -> None:
        self._token, self._id, self._label = token, key_id, label
        self._public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), token.point(key_id, label))

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        if peer_public_key.curve.name != self.curve.name:
            raise ValueError("the peer's key is on another curve")
        return self._token.agree(self._id, self._label, _point(peer_public_key))

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        digest = _digest(bytes(data), signature_algorithm.algorithm)
        raw = self._token.sign(self._id, self._label, digest)
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        return ec.SECP256R1()

    @property
    def key_size(self) -> int:
        return self.curve.key_size

    def private_numbers(self) -> NoReturn:
        raise CannotMove("The key rests in a token and does not leave it.")

    def private_bytes(self, *_: object, **__: object) -> NoReturn:
        raise CannotMove("The key rests in a token and does not leave it.")

    def __copy__(self) -> "TokenKey":
        return self

    def __deepcopy__(self, memo: object) -> "TokenKey":
        return self


class TokenCustody:
    """What is sealed only says which key of the token it is; the key's label says what it is for.

    Keys on their way from another custody open as well, once the root they were sealed under is in the token.
    """

    name = "pkcs11"
    secure = True

    def __init__(self, address: TokenAddress) -> None:
        self.token = Token(address)
        self._derived = lru_cache(maxsize=_REMEMBERED)(self._ask)

    def generate(self, purpose: str) -> tuple[bytes, ec.EllipticCurvePublicKey]:
        key_id = secrets.token_bytes(ID_SIZE)
        self.token.generate(key_id, _label(purpose))
        return TOKEN + key_id.hex().encode(), TokenKey(self.token, key_id, _label(purpose)).public_key()

    def open(self, sealed: bytes, purpose: str) -> ec.EllipticCurvePrivateKey:
        if not self.rests(sealed):
            return open_key(sealed, purpose, self.derive)
        return TokenKey(self.token, _key_id(sealed), _label(purpose))

    def derive(self, purpose: str, context: bytes) -> bytes:
        """The same as under a root that was moved here: HKDF-Expand, whose one HMAC the token computes.

        What was asked for lately is remembered: a host's requests are all under one secret, and the token is slow.
        """
        return self._derived(purpose, context)

    def _ask(self, purpose: str, context: bytes) -> bytes:
        return self.token.hmac(derivation(purpose, context) + _LAST_BLOCK)

    def rests(self, sealed: bytes) -> bool:
        return sealed.startswith(TOKEN)

    def admit(self, private: ec.EllipticCurvePrivateKey, purpose: str) -> bytes:
        """Take a key into the token. It was outside before; only one that is made here never was.

        Its id is made of its public half, so that a move which was killed and is done again leaves no second copy.
        """
        key_id = hashlib.sha256(_point(private.public_key())).digest()[:ID_SIZE]
        secret = private.private_numbers().private_value.to_bytes(32, "big")
        self.token.destroy(key_id, _label(purpose))
        self.token.admit(key_id, _label(purpose), secret=secret, point=_point(private.public_key()))
        return TOKEN + key_id.hex().encode()

    def discard(self, sealed: bytes, purpose: str) -> None:
        """Remove a key."""
        self.token.destroy(_key_id(sealed), _label(purpose))


def _label(purpose: str) -> str:
    return f"guardhouse {purpose}"


def _key_id(sealed: bytes) -> bytes:
    try:
        key_id = bytes.fromhex(sealed.removeprefix(TOKEN).decode("ascii"))
    except ValueError as error:
        raise NotSealedHere("The row does not say which key of the token it is about.") from error
    if len(key_id) != ID_SIZE or not sealed.startswith(TOKEN):
        raise NotSealedHere("The row does not say which key of the token it is about.")
    return key_id


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def _digest(data: bytes, algorithm: Prehashed | hashes.HashAlgorithm) -> bytes:
    if isinstance(algorithm, Prehashed):
        return data
    hashing = hashes.Hash(algorithm)
    hashing.update(data)
    return hashing.finalize()
