"""What brings a root back when a machine does not open it any more: a share on paper, or a backup under a passphrase.

The share is 32 random bytes that never lie on the machine; beside the sealed root lies the root encrypted to the
share. Neither is worth anything without the other.
"""

import base64
import hashlib
import re
import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from ledger.custody.errors import MalformedCustody, ShareRefused
from ledger.custody.root import KEY_SIZE

SHORTEST_PASSPHRASE: Final = 16
BACKUP_LIMIT: Final = 1024 * 1024
_SHARE: Final = ["dir", "A256GCM"]
_PASSPHRASE: Final = ["PBES2-HS512+A256KW", "A256GCM"]
_ROUNDS: Final = 300_000  # the most that the JOSE library accepts when it reads
_CHECK: Final = 3
_GROUP: Final = 7


def new_share() -> str:
    """Return a share as people write it down: eight groups of seven letters and digits, the last of them a check."""
    return _written(secrets.token_bytes(KEY_SIZE))


def wrap_root(root: bytes, share: str) -> str:
    """Return the root encrypted to a share (JWE, RFC 7516)."""
    header = {"alg": _SHARE[0], "enc": _SHARE[1], "typ": "guardhouse-root+jwe"}
    return jwe.encrypt_compact(header, root, OctKey.import_key(_read(share)), algorithms=_SHARE)


def unwrap_root(wrapped: str, share: str) -> bytes:
    """Return the root by its share. Raises `ShareRefused`."""
    root = _opened(wrapped, _read(share), _SHARE, "This is not the share that belongs to this root key.")
    if len(root) != KEY_SIZE:
        raise MalformedCustody("What the share opens is no root key.")
    return root


def lock(content: bytes, passphrase: str) -> bytes:
    """Return a backup's content under a passphrase."""
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise ShareRefused(f"The passphrase of a backup has at least {SHORTEST_PASSPHRASE} characters.")
    header = {"alg": _PASSPHRASE[0], "enc": _PASSPHRASE[1], "p2c": _ROUNDS, "typ": "guardhouse-custody-backup+jwe"}
    key = OctKey.import_key(passphrase.encode())
    return jwe.encrypt_compact(header, content, key, algorithms=_PASSPHRASE).encode() + b"\n"


def unlock(backup: bytes, passphrase: str) -> bytes:
    """Return what `lock` was given. Raises `MalformedCustody` for no backup, `ShareRefused` for a wrong passphrase."""
    if len(backup) > BACKUP_LIMIT:
        raise MalformedCustody(f"A backup has at most {BACKUP_LIMIT} bytes.")
    token = backup.decode("ascii", "replace").strip()
    refused = "The backup does not open: the passphrase is another one, or the file is damaged."
    if len(passphrase) < SHORTEST_PASSPHRASE:  # so no backup has it
        raise ShareRefused(refused)
    return _opened(token, passphrase.encode(), _PASSPHRASE, refused)


def _opened(token: str, key: bytes, algorithms: list[str], refused: str) -> bytes:
    if not re.fullmatch(r"[\w-]+(\.[\w-]*){4}", token, re.ASCII):
        raise MalformedCustody("This is no JWE, so nothing that custody has written, or only a part of it.")
    try:
        opened = jwe.decrypt_compact(token, OctKey.import_key(key), algorithms=algorithms).plaintext
    except (JoseError, InvalidTag, ValueError, AssertionError, TypeError) as error:
        raise ShareRefused(refused) from error
    if opened is None:
        raise ShareRefused(refused)
    return opened


def _written(share: bytes) -> str:
    text = base64.b32encode(share + _checksum(share)).decode()
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))


def _read(share: str) -> bytes:
    """Return the bytes of a share as somebody has typed it: in any case, with any dashes and spaces."""
    text = re.sub(r"[\s-]", "", share).upper().replace("0", "O").replace("1", "I").replace("8", "B")
    try:
        decoded = base64.b32decode(text)
    except ValueError as error:
        raise ShareRefused("A recovery share is eight groups of seven letters and digits.") from error
    key, check = decoded[:KEY_SIZE], decoded[KEY_SIZE:]
    if len(key) != KEY_SIZE or check != _checksum(key):
        raise ShareRefused("The recovery share is not complete, or a character of it is wrong.")
    return key


def _checksum(share: bytes) -> bytes:
    return hashlib.sha256(b"guardhouse recovery share\x00" + share).digest()[:_CHECK]
