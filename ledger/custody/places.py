"""Where roots lie on this node, and how one is put there so that a power cut at any moment leaves one that opens."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from django.conf import settings

from ledger.custody.choice import token_address
from ledger.custody.errors import CannotMove, CustodyMissing, CustodyUnavailable
from ledger.custody.file import read_root, sync_folder, write_over
from ledger.custody.recovery import new_share, unwrap_root, wrap_root
from ledger.custody.token import Token
from ledger.custody.tpm import read_sealed, seal, unseal, write_sealed

Pcrs = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlainPlace:
    """A file that holds the root as it is."""

    path: Path

    def read(self, path: Path) -> bytes:
        return read_root(path)

    def write(self, path: Path, root: bytes) -> str:
        write_over(path, root)
        return ""


@dataclass(frozen=True, slots=True)
class SealedPlace:
    """A file that holds the root as this node's TPM has sealed it, and as the recovery share opens it."""

    path: Path
    tcti: str
    pcrs: Pcrs

    def read(self, path: Path) -> bytes:
        return unseal(read_sealed(path), self.tcti)

    def write(self, path: Path, root: bytes) -> str:
        """Seal a root to what the PCRs are now, with a new share, and see that the TPM gives it out."""
        share = new_share()
        self._seal(path, root, self.pcrs, wrap_root(root, share))
        return share

    def recover(self, share: str) -> bytes:
        """Return the root by its share, whatever the TPM says."""
        return unwrap_root(read_sealed(self.path).recovery, share)

    def seal_again(self, root: bytes) -> Pcrs:
        """Seal the same root to this TPM and what its PCRs are now; the share stays the same."""
        self._seal(self.path, root, self.pcrs, read_sealed(self.path).recovery)
        return self.pcrs

    def share_again(self) -> str:
        """Replace the share, which needs the boot state that the root is sealed to."""
        sealed, share = read_sealed(self.path), new_share()
        write_sealed(self.path, replace(sealed, recovery=wrap_root(unseal(sealed, self.tcti), share)))
        return share

    def _seal(self, path: Path, root: bytes, pcrs: Pcrs, recovery: str) -> None:
        sealed = seal(root, tcti=self.tcti, pcrs=pcrs, recovery=recovery)
        if unseal(sealed, self.tcti) != root:
            raise CustodyUnavailable("The TPM does not give out what it has sealed just now. Nothing was changed.")
        write_sealed(path, sealed)


Place = PlainPlace | SealedPlace


def sealed_place() -> SealedPlace:
    return SealedPlace(settings.CUSTODY_SEALED_FILE, settings.CUSTODY_TCTI, tuple(settings.CUSTODY_PCRS))


def place(name: str) -> Place:
    """Return where this node has its root. A token has none: its root is inside. Raises `CannotMove` for it."""
    if name not in _PLACES:
        raise CannotMove(
            "The root key is inside the token and does not leave it. Back the token up, or copy it, as its maker says."
        )
    return _PLACES[name]()


_PLACES: Final[Mapping[str, Callable[[], Place]]] = {
    "insecure-file": lambda: PlainPlace(settings.CUSTODY_FILE),
    "tpm": sealed_place,
}


def token() -> Token:
    """Return the token that the settings name. Raises `CustodyMissing` when they name none."""
    address = token_address()
    if not address.label:
        raise CustodyMissing(
            "No token is set: GUARDHOUSE_CUSTODY_PKCS11_MODULE, GUARDHOUSE_CUSTODY_TOKEN and"
            " GUARDHOUSE_CUSTODY_PIN_FILE say which one, and belong together."
        )
    return Token(address)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold what only one command of this node may do at a time: of two, one would take the other's root away."""
    path = settings.CUSTODY_FILE.with_name("custody.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CannotMove("Another command is at this node's custody. Let it end first.") from error
        yield


# A root that is to replace another waits beside it until the keys that it opens are in the database.


def waiting(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def replaced(path: Path) -> Path:
    return path.with_name(f"{path.name}.before")


def sweep(path: Path) -> None:
    """Remove what a killed command has written of a root that did not come to wait."""
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink()


def put_in_place(path: Path) -> Path | None:
    """Let the root that waits take its place. The one before is kept beside it; return where, if there was one."""
    kept = None
    if path.exists() and path.read_bytes() != waiting(path).read_bytes():
        kept = replaced(path)
        with contextlib.suppress(FileNotFoundError):
            kept.unlink()
        os.link(path, kept)
    waiting(path).replace(path)
    sync_folder(path)
    return kept
