"""A private key that rests in a token, in the ordinary interface: the JOSE and X.509 libraries use it as any other.

Tokens sign digests and agree on secrets; what they are asked for, and how a session is kept, is the caller's.
"""

from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature


class Uses(Protocol):
    """What a token does with the key of an id and a label; points are uncompressed (SEC 1, 2.3.3)."""

    def agree(self, key_id: bytes, label: str, point: bytes) -> bytes:
        """Return the shared x coordinate (ECDH)."""

    def sign(self, key_id: bytes, label: str, digest: bytes) -> bytes:
        """Return r and s, one after the other."""


class TokenKey(ec.EllipticCurvePrivateKey):
    """A P-256 key; `stays` makes the refusal to whoever would take it out."""

    def __init__(
        self,
        token: Uses,
        key_id: bytes,
        label: str,
        *,
        public: ec.EllipticCurvePublicKey,
        stays: Callable[[], Exception],
    ) -> None:
        self._token, self._id, self._label = token, key_id, label
        self._public, self._stays = public, stays

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        if peer_public_key.curve.name != self.curve.name:
            raise ValueError("the peer's key is on another curve")
        return self._token.agree(self._id, self._label, point_of(peer_public_key))

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        raw = self._token.sign(self._id, self._label, _digest(bytes(data), signature_algorithm.algorithm))
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
        raise self._stays()

    def private_bytes(self, *_: object, **__: object) -> NoReturn:
        raise self._stays()

    def __copy__(self) -> "TokenKey":
        return self

    def __deepcopy__(self, memo: object) -> "TokenKey":
        return self


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key's point, uncompressed."""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def _digest(data: bytes, algorithm: Prehashed | hashes.HashAlgorithm) -> bytes:
    if isinstance(algorithm, Prehashed):
        return data
    hashing = hashes.Hash(algorithm)
    hashing.update(data)
    return hashing.finalize()
