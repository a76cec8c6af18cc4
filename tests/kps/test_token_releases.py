"""Releases with the guardian's keys in a PKCS#11 token: the token is asked for what it alone can do, and no more."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger import log_key
from ledger.custody.choice import forget, token_address
from ledger.custody.token import Token
from tests.kps.conftest import Host
from tests.tokens import LABEL, MODULE, PIN, softhsm

Protect = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def token(tmp_path: Path, settings: Any) -> Iterator[None]:
    """Everything of this fabric begins in a token, before its other fixtures make any key."""
    with softhsm(tmp_path):
        settings.CUSTODY = "pkcs11"
        settings.CUSTODY_PKCS11_MODULE, settings.CUSTODY_TOKEN, settings.CUSTODY_TOKEN_PIN = MODULE, LABEL, PIN
        forget()
        log_key.forget()
        Token(token_address()).make_root(None)
        yield
    forget()
    log_key.forget()


def test_a_release_asks_the_token_for_an_agreement_and_a_signature(
    token: None, host: Host, protect: Protect, monkeypatch: pytest.MonkeyPatch
) -> None:
    protector = host.posts(host.asks(protect())).json()["key_protector"]
    asked: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(Token, name)

        def act(self: Token, *args: Any, **options: Any) -> Any:
            asked.append(name)
            return original(self, *args, **options)

        return act

    for name in ("hmac", "sign", "agree", "point", "generate", "admit", "destroy", "has_root"):
        monkeypatch.setattr(Token, name, counted(name))
    answer = host.posts(host.asks(protector))
    assert answer.status_code == 200, answer.json()
    assert asked == ["agree", "sign"]


def test_a_host_is_told_that_the_token_is_gone(host: Host, protect: Protect, settings: Any) -> None:
    protector = protect()
    settings.CUSTODY_TOKEN = "unplugged"
    forget()
    answer = host.posts(host.asks(protector))
    assert (answer.status_code, answer.json()["code"]) == (503, "custody_token_gone")
