"""Which custody the settings name; opened once in a process."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings

from ledger.custody.file import InsecureFileCustody
from ledger.custody.hsm import TokenCustody
from ledger.custody.interface import Custody
from ledger.custody.token import TokenAddress
from ledger.custody.tpm import TpmCustody


@cache
def _insecure_file(path: Path) -> InsecureFileCustody:
    return InsecureFileCustody(path)


@cache
def _tpm(path: Path, tcti: str) -> TpmCustody:
    return TpmCustody(path, tcti)


@cache
def _token(address: TokenAddress) -> TokenCustody:
    return TokenCustody(address)


_CHOICES: Final[Mapping[str, Callable[[], Custody]]] = {
    "insecure-file": lambda: _insecure_file(settings.CUSTODY_FILE),
    "tpm": lambda: _tpm(settings.CUSTODY_SEALED_FILE, settings.CUSTODY_TCTI),
    "pkcs11": lambda: _token(token_address()),
}
NAMES: Final = tuple(_CHOICES)


class LeavingToken:
    """The custody in use, and a token whose keys it cannot take over: they open there until they are in use no more."""

    def __init__(self, chosen: Custody, token: TokenCustody) -> None:
        self.name, self.secure = chosen.name, chosen.secure
        self.chosen, self.token = chosen, token
        self.generate, self.derive = chosen.generate, chosen.derive
        self.admit = chosen.admit

    def rests(self, sealed: bytes) -> bool:
        return self.token.rests(sealed) or self.chosen.rests(sealed)

    def open(self, sealed: bytes, purpose: str) -> ec.EllipticCurvePrivateKey:
        holder = self.token if self.token.rests(sealed) else self.chosen
        return holder.open(sealed, purpose)


def custody() -> Custody:
    """Return the custody that the settings name. Raises `CustodyUnavailable` when it does not open."""
    chosen = custody_called(settings.CUSTODY)
    if settings.CUSTODY != "pkcs11" and settings.CUSTODY_TOKEN:
        return LeavingToken(chosen, _token(token_address()))
    return chosen


def custody_called(name: str) -> Custody:
    """Return a custody by its name, whether or not it is the one in use."""
    return _CHOICES[name]()


def token_address() -> TokenAddress:
    return TokenAddress(settings.CUSTODY_PKCS11_MODULE, settings.CUSTODY_TOKEN, settings.CUSTODY_TOKEN_PIN)


def is_secure() -> bool:
    """Say whether the settings name a custody that root on this node cannot simply read; nothing is opened for it."""
    return bool(settings.CUSTODY != "insecure-file")


def forget() -> None:
    """Have the custody opened anew: it has moved, or its files have changed."""
    for opened in (_insecure_file, _tpm, _token):
        opened.cache_clear()
