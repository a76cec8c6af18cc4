"""A VM's own secrets, sealed under its transport key: they travel with the VM and open only after a release."""

import re
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from kps.core import jose
from kps.errors import MalformedDocument, SecretsRefused

_ALGORITHMS: Final = ["dir", "A256GCM"]
_LIMIT: Final = 4 * 1024
_VTPM_KEY: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PASSPHRASE: Final = re.compile(r"[A-Za-z0-9+/=_-]{22,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class VmSecrets:
    """`vtpm_key`: 64 hexadecimal digits for swtpm. `disk_passphrase`: text, because QEMU's LUKS wants valid UTF-8."""

    vtpm_key: str = field(repr=False)
    disk_passphrase: str = field(repr=False)


def seal_secrets(secrets: VmSecrets, key: bytes, *, protector_id: UUID, roll: int) -> str:
    """Return the secrets as a compact JWE (`dir`, A256GCM), bound to one protector and one roll by its header."""
    header = {"alg": "dir", "enc": "A256GCM", "kid": _kid(protector_id, roll)}
    payload = {"vtpm_key": secrets.vtpm_key, "disk_passphrase": secrets.disk_passphrase}
    return jwe.encrypt_compact(header, jose.canonical(payload), OctKey.import_key(key), algorithms=_ALGORITHMS)


def open_secrets(token: object, key: bytes, *, protector_id: UUID, roll: int) -> VmSecrets:
    """Return the secrets that were sealed for this protector at this roll, and no others."""
    if not isinstance(token, str) or len(token) > _LIMIT or token.count(".") != 4:
        raise MalformedDocument("The sealed secrets are not a compact JWE.")
    first = token.split(".", 1)[0]
    header = jose.members(jose.read_json(jose.from_b64u(first), limit=512), {"alg", "enc", "kid"}, what="Their header")
    if header["kid"] != _kid(protector_id, roll):
        raise SecretsRefused("These secrets were sealed for another key protector or another start.")
    try:
        opened = jwe.decrypt_compact(token, OctKey.import_key(key), algorithms=_ALGORITHMS).plaintext
    except (JoseError, InvalidTag, ValueError) as error:
        raise SecretsRefused("The sealed secrets do not open under the released key.") from error
    return _read(opened or b"")


def _read(content: bytes) -> VmSecrets:
    fields = jose.members(jose.read_json(content, limit=_LIMIT), {"vtpm_key", "disk_passphrase"}, what="The secrets")
    vtpm_key, passphrase = fields["vtpm_key"], fields["disk_passphrase"]
    if not isinstance(vtpm_key, str) or not _VTPM_KEY.fullmatch(vtpm_key):
        raise MalformedDocument("The key of the virtual TPM is not 64 hexadecimal digits.")
    if not isinstance(passphrase, str) or not _PASSPHRASE.fullmatch(passphrase):
        raise MalformedDocument("The passphrase of the disk is not base64 text.")
    return VmSecrets(vtpm_key, passphrase)


def _kid(protector_id: UUID, roll: int) -> str:
    return f"{protector_id}/{roll}"
