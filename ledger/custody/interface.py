"""What custody promises, whatever holds the keys."""

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec


class Custody(Protocol):
    """Where private keys rest. A key is kept as a *sealed* byte string in its database row."""

    name: str
    secure: bool

    def generate(self, purpose: str) -> tuple[bytes, ec.EllipticCurvePublicKey]:
        """Make a P-256 key for one purpose; return it sealed, and its public half."""

    def open(self, sealed: bytes, purpose: str) -> ec.EllipticCurvePrivateKey:
        """Return the private key, usable through the ordinary `cryptography` interface.

        Raises `InvalidTag` when this is not what it has sealed for this purpose, and `CustodyUnavailable`.
        """

    def derive(self, purpose: str, context: bytes) -> bytes:
        """Return 32 bytes that only this custody can make again for this purpose and context."""

    def rests(self, sealed: bytes) -> bool:
        """Say whether a sealed key rests here for good, rather than being opened on its way from another custody."""

    def admit(self, private: ec.EllipticCurvePrivateKey, purpose: str) -> bytes:
        """Return a key that comes from another custody as it rests here. Twice the same key is no harm."""
