"""The embedded default: the root in a file that this node's administrators can read."""

import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from ledger.custody.errors import CustodyMissing, CustodyUnavailable
from ledger.custody.root import KEY_SIZE, RootCustody


class InsecureFileCustody(RootCustody):
    """Seals with AES-256-GCM under a key in a file: safe against a stolen database, not against root on this node."""

    name = "insecure-file"
    secure = False

    def __init__(self, path: Path) -> None:
        super().__init__(read_or_create(path))


def read_or_create(path: Path) -> bytes:
    """Return the file's 32 bytes, making the file once, readable by its owner alone."""
    if not path.exists():
        write_once(path, secrets.token_bytes(KEY_SIZE))
    return read_root(path)


def read_root(path: Path) -> bytes:
    """Return the file's 32 bytes, and nothing that is shorter or longer."""
    try:
        key = path.read_bytes()
    except FileNotFoundError as error:
        raise CustodyMissing(f"{path} is not there. A node that joins others restores a backup.") from error
    except OSError as error:
        raise CustodyUnavailable(f"{path} cannot be read: {error.strerror}.") from error
    if len(key) != KEY_SIZE:
        raise ImproperlyConfigured(f"The custody file {path} holds {len(key)} bytes instead of {KEY_SIZE}.")
    return key


def write_once(path: Path, content: bytes) -> bool:
    """Write a file that its owner alone can read, all of it or none; False, with nothing done, when it is there.

    Of two nodes that start at once one wins, and both read the winner's.
    """
    fresh = _written_beside(path, content)
    try:
        os.link(fresh, path)
    except FileExistsError:
        return False
    finally:
        fresh.unlink()
    sync_folder(path)
    return True


def write_over(path: Path, content: bytes) -> None:
    """Replace a file, all of it or nothing."""
    _written_beside(path, content).replace(path)
    sync_folder(path)


def sync_folder(path: Path) -> None:
    """See that a file's name outlasts a power cut, not only its content."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _written_beside(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return fresh
