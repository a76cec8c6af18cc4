"""Which custody the settings name; opened once in a process."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from django.conf import settings

from ledger.custody.file import InsecureFileCustody
from ledger.custody.interface import Custody
from ledger.custody.tpm import TpmCustody


@cache
def _insecure_file(path: Path) -> InsecureFileCustody:
    return InsecureFileCustody(path)


@cache
def _tpm(path: Path, tcti: str) -> TpmCustody:
    return TpmCustody(path, tcti)


_CHOICES: Mapping[str, Callable[[], Custody]] = {
    "insecure-file": lambda: _insecure_file(settings.CUSTODY_FILE),
    "tpm": lambda: _tpm(settings.CUSTODY_SEALED_FILE, settings.CUSTODY_TCTI),
}
SECURE = frozenset(_CHOICES) - {"insecure-file"}


def custody() -> Custody:
    """Return the custody that the settings name. Raises `CustodyUnavailable` when it does not open."""
    return _CHOICES[settings.CUSTODY]()


def is_secure() -> bool:
    """Say whether the settings name a custody that root on this node cannot simply read; nothing is opened for it."""
    return settings.CUSTODY in SECURE
