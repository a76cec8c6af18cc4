"""A 32-byte transport key in a JWE for several recipients (RFC 7516, 7.2.1): the owner and each guardian."""

import hashlib
from collections.abc import Sequence
from typing import Any, Final, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwe
from joserfc.errors import JoseError

from attestation.core.base64url import to_b64u
from kps.core import jose
from kps.errors import MalformedDocument, ProtectorUnopened

KEY_SIZE: Final = 32
MOST_RECIPIENTS: Final = 17  # the owner and 16 guardians
_ALGORITHM: Final = "ECDH-ES+A256KW"
_PROTECTED: Final = {"enc": "A256GCM", "typ": "guardhouse-transport-key+jwe"}
_ENCODED: Final = to_b64u(b'{"enc":"A256GCM","typ":"guardhouse-transport-key+jwe"}')
_SIZES: Final = {"iv": range(12, 13), "ciphertext": range(KEY_SIZE, KEY_SIZE + 1), "tag": range(16, 17)}
_REGISTRY: Final = jwe.JWERegistry(algorithms=[_ALGORITHM, _PROTECTED["enc"]], max_recipients=MOST_RECIPIENTS)
_ENCRYPTED_KEY: Final = range(40, 41)  # AES key wrap of 32 bytes (RFC 3394)


def encrypt(key: bytes, recipients: Sequence[ec.EllipticCurvePublicKey]) -> jose.Json:
    """Return the JWE in which each recipient finds `key`."""
    if len(key) != KEY_SIZE:
        raise ValueError("a transport key has 32 bytes")
    message = jwe.GeneralJSONEncryption(dict(_PROTECTED), key)
    for recipient in recipients:
        message.add_recipient({"alg": _ALGORITHM, "kid": jose.thumbprint(recipient)}, jose.public_key(recipient))
    return cast(jose.Json, jwe.encrypt_json(message, None, registry=_REGISTRY))


def parse_wrapped(value: object) -> jose.Json:
    """Return `value` when it has the exact shape that `encrypt` makes; nothing of it is verified."""
    wrapped = jose.members(value, {"protected", "recipients", *_SIZES}, what="The wrapped key")
    if wrapped["protected"] != _ENCODED:
        raise MalformedDocument("The wrapped key has another header than this version knows.")
    for name, size in _SIZES.items():
        jose.from_b64u(wrapped[name], size=size)
    recipients = wrapped["recipients"]
    if not isinstance(recipients, list) or not 0 < len(recipients) <= MOST_RECIPIENTS:
        raise MalformedDocument(f"The wrapped key does not have 1 to {MOST_RECIPIENTS} recipients.")
    for recipient in recipients:
        _check_recipient(recipient)
    return wrapped


def _check_recipient(value: object) -> None:
    recipient = jose.members(value, {"header", "encrypted_key"}, what="A recipient")
    header = jose.members(recipient["header"], {"alg", "kid", "epk"}, what="A recipient's header")
    if header["alg"] != _ALGORITHM:
        raise MalformedDocument(f"A recipient uses another algorithm than {_ALGORITHM}.")
    jose.from_b64u(header["kid"], size=range(32, 33))
    jose.parse_public_key(header["epk"])
    jose.from_b64u(recipient["encrypted_key"], size=_ENCRYPTED_KEY)


def recipients_of(wrapped: jose.Json) -> list[str]:
    """Return the key thumbprints of the recipients, in order."""
    return [recipient["header"]["kid"] for recipient in wrapped["recipients"]]


def digest(wrapped: jose.Json) -> str:
    """Return what a seal covers, in hexadecimal."""
    return hashlib.sha256(jose.canonical(wrapped)).hexdigest()


def decrypt(wrapped: jose.Json, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the transport key by way of this recipient's own part; the others' are not looked at."""
    mine = jose.thumbprint(key.public_key())
    part = next((part for part in wrapped["recipients"] if part["header"]["kid"] == mine), None)
    if part is None:
        raise ProtectorUnopened("The key is not wrapped for this guardian.")
    flattened: Any = {name: wrapped[name] for name in ("protected", *_SIZES)} | part
    try:
        opened = jwe.decrypt_json(flattened, jose.private_key(key), registry=_REGISTRY).plaintext
    except (JoseError, InvalidTag, ValueError) as error:
        raise ProtectorUnopened("The wrapped key does not open with this guardian's key.") from error
    if opened is None or len(opened) != KEY_SIZE:
        raise ProtectorUnopened("What is wrapped is not a transport key.")
    return opened
