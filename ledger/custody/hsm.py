"""Keys that rest in a PKCS#11 token: made there, used there, and never seen by this service."""

import hashlib
import secrets
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from ledger.core.token_key import TokenKey, point_of
from ledger.custody.errors import CannotMove, NotSealedHere
from ledger.custody.root import TOKEN, derivation, open_key
from ledger.custody.token import ID_SIZE, Token, TokenAddress

_REMEMBERED: Final = 4096
_LAST_BLOCK: Final = b"\x01"  # of HKDF-Expand for 32 bytes (RFC 5869, 2.3), which is one HMAC


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
        return TOKEN + key_id.hex().encode(), self._key(key_id, purpose).public_key()

    def open(self, sealed: bytes, purpose: str) -> ec.EllipticCurvePrivateKey:
        if not self.rests(sealed):
            return open_key(sealed, purpose, self.derive)
        return self._key(_key_id(sealed), purpose)

    def _key(self, key_id: bytes, purpose: str) -> TokenKey:
        label = _label(purpose)
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), self.token.point(key_id, label))
        return TokenKey(self.token, key_id, label, public=public, stays=_stays)

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
        key_id = hashlib.sha256(point_of(private.public_key())).digest()[:ID_SIZE]
        secret = private.private_numbers().private_value.to_bytes(32, "big")
        self.token.destroy(key_id, _label(purpose))
        self.token.admit(key_id, _label(purpose), secret=secret, point=point_of(private.public_key()))
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


def _stays() -> CannotMove:
    return CannotMove("The key rests in a token and does not leave it.")
