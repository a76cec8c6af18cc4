"""Opens a compact JWE whose key is in the TPM: the content key is unwrapped there, the content here.

A JOSE library wants the private key itself, which no TPM gives out; so these are the four steps of RFC 7516, 5.2 that
are left, for the one pair of algorithms the portal uses.
"""

import json
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from attestation.core.base64url import from_b64u
from guardedhost.errors import AgentError

_HEADER = {"alg": "RSA-OAEP-256", "enc": "A256GCM"}
_CONTENT_KEY, _IV, _TAG = 32, 12, 16


class NotOpened(AgentError):
    """The token is not one for this key, or was altered on its way."""


def open_jwe(token: str, unwrap: Callable[[bytes], bytes]) -> bytes:
    """Return the content of `token`; `unwrap` is RSA-OAEP-256 by the TPM."""
    try:
        header, wrapped, iv, ciphertext, tag = token.split(".")
        parts = [from_b64u(part) for part in (header, wrapped, iv, ciphertext, tag)]
        algorithms = json.loads(parts[0])
    except (ValueError, RecursionError) as error:
        raise NotOpened("A key from the portal is not a compact JWE.") from error
    if not isinstance(algorithms, dict) or {k: v for k, v in algorithms.items() if k in ("alg", "enc")} != _HEADER:
        raise NotOpened("A key from the portal uses other algorithms than RSA-OAEP-256 and A256GCM.")
    if "crit" in algorithms or "zip" in algorithms or (len(parts[2]), len(parts[4])) != (_IV, _TAG):
        raise NotOpened("A key from the portal uses parts of JWE that this agent does not take.")
    content_key = unwrap(parts[1])
    if len(content_key) != _CONTENT_KEY:
        raise NotOpened("A key from the portal has a content key of the wrong size.")
    try:
        return AESGCM(content_key).decrypt(parts[2], parts[3] + parts[4], header.encode())
    except InvalidTag as error:
        raise NotOpened("A key from the portal was altered on its way.") from error
