"""Tokens that must not reach the TPM, or must not be believed after it."""

import json
import os

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from attestation.core.base64url import to_b64u
from guardedhost.jwe import NotOpened, open_jwe

KEY = os.urandom(32)
GOOD = {"alg": "RSA-OAEP-256", "enc": "A256GCM"}


def token(header: object, *, content: bytes = b"secret", iv: bytes = bytes(12), bound_to: object = None) -> str:
    head = to_b64u(json.dumps(header).encode())
    authenticated = head if bound_to is None else to_b64u(json.dumps(bound_to).encode())
    sealed = AESGCM(KEY).encrypt(iv, content, authenticated.encode())
    return ".".join((head, to_b64u(b"wrapped"), to_b64u(iv), to_b64u(sealed[:-16]), to_b64u(sealed[-16:])))


def never(wrapped: bytes) -> bytes:
    raise AssertionError("the TPM was asked")


def test_a_token_opens() -> None:
    assert open_jwe(token(GOOD), lambda wrapped: KEY if wrapped == b"wrapped" else b"") == b"secret"


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param("", id="empty"),
        pytest.param("a.b.c.d", id="four parts"),
        pytest.param(token(GOOD) + ".e", id="six parts"),
        pytest.param("!" + token(GOOD), id="not base64url"),
        pytest.param(token([]), id="header is no object"),
        pytest.param(to_b64u(b"[" * 100_000) + token(GOOD)[token(GOOD).index(".") :], id="header without a bottom"),
        pytest.param(token({**GOOD, "alg": "RSA-OAEP"}), id="SHA-1 OAEP"),
        pytest.param(token({**GOOD, "alg": "dir"}), id="no key wrapping"),
        pytest.param(token({**GOOD, "enc": "A128CBC-HS256"}), id="another cipher"),
        pytest.param(token({"alg": GOOD["alg"]}), id="no cipher"),
        pytest.param(token({**GOOD, "zip": "DEF"}), id="compressed"),
        pytest.param(token({**GOOD, "crit": ["x"], "x": 1}), id="critical extension"),
        pytest.param(token(GOOD, iv=bytes(16)), id="long initialisation vector"),
    ],
)
def test_a_token_of_another_form_never_reaches_the_tpm(bad: str) -> None:
    with pytest.raises(NotOpened):
        open_jwe(bad, never)


@pytest.mark.parametrize(
    ("sealed", "key"),
    [
        pytest.param(token(GOOD), bytes(32), id="another content key"),
        pytest.param(token(GOOD), KEY[:16], id="a content key for another cipher"),
        pytest.param(token(GOOD, bound_to={**GOOD, "kid": "x"}), KEY, id="header exchanged"),
    ],
)
def test_a_token_that_does_not_hold_is_refused(sealed: str, key: bytes) -> None:
    with pytest.raises(NotOpened):
        open_jwe(sealed, lambda wrapped: key)
