"""Hosts that hold certificates go on, or attest anew, when this service's keys change their custody."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from ledger import log_key
from ledger.custody.choice import forget
from tests.kps.conftest import Host
from tests.tokens import LABEL, MODULE, PIN, softhsm

Protect = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def file(tmp_path: Path, settings: Any) -> Iterator[None]:
    """The fabric begins with its keys under a root in a file; a token is there, and empty."""
    with softhsm(tmp_path):
        settings.CUSTODY, settings.CUSTODY_FILE = "insecure-file", tmp_path / "custody.key"
        settings.CUSTODY_PKCS11_MODULE, settings.CUSTODY_TOKEN, settings.CUSTODY_TOKEN_PIN = MODULE, LABEL, PIN
        forget()
        log_key.forget()
        yield
    forget()
    log_key.forget()


def move(*words: str) -> None:
    call_command("custody", "move", *words, "--reason", "the node goes into production")


def test_a_host_gets_keys_by_the_certificate_of_before(host: Host, protect: Protect, settings: Any) -> None:
    protector = host.posts(host.asks(protect())).json()["key_protector"]
    move("pkcs11")
    protector = host.posts(host.asks(protector)).json()["key_protector"]  # by a process of before
    settings.CUSTODY = "pkcs11"
    forget()
    answer = host.posts(host.asks(protector))
    assert answer.status_code == 200, answer.json()
    assert host.opens(answer.json()["wrapped_keys"]).roll == 3


def test_under_a_new_root_its_requests_are_not_authentic(host: Host, protect: Protect) -> None:
    protector = protect()
    move("insecure-file", "--new-root")
    answer = host.posts(host.asks(protector))
    assert (answer.status_code, answer.json()["code"]) == (401, "release_request_refused")
