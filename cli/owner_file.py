"""The owner's key file: the owner's secret under a passphrase (JWE, PBES2), the card beside it in the open.

Where the keys are in a token, the file says in which, and holds nothing secret.
"""

import json
import re
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from attestation.core.base64url import to_b64u
from cli.owner_secret import SECRET_SIZE, OwnerSecret, new_secret
from cli.token import ID_SIZE, Place
from guardedhost.files import write_atomically, write_new
from kps.core import jose
from kps.core.guardian import Guardian, GuardianKeys, parse_card
from kps.errors import MalformedDocument, SecretsRefused

SHORTEST_PASSPHRASE: Final = 12
_ALGORITHMS: Final = ["PBES2-HS512+A256KW", "A256GCM"]
_ROUNDS: Final = 300_000  # the most that the JOSE library accepts when it reads
_LIMIT: Final = 16 * 1024
_LABEL: Final = 32  # what PKCS #11 has room for
_ID: Final = re.compile(rf"[0-9a-f]{{{2 * ID_SIZE}}}")


def new_keys(name: str) -> GuardianKeys:
    return new_secret(name).keys


def write_owner(path: Path, owner: OwnerSecret, passphrase: str) -> None:
    """Write the file for its owner's eyes only. A file that is there already is never replaced."""
    write_new(path, _sealed(owner, passphrase))


def write_place(path: Path, owner: Guardian, place: Place) -> None:
    """Write the file of an owner whose keys are in a token. A file that is there already is never replaced."""
    write_new(path, _document(owner, {"token": place.token, "id": place.key_id.hex()}))


def change_passphrase(path: Path, old: str, new: str) -> None:
    """Put the same owner under another passphrase: after any crash the file opens with the old or the new one."""
    path = path.resolve()  # a link stays a link
    write_atomically(path, _sealed(read_owner_secret(path, old), new))


def _sealed(owner: OwnerSecret, passphrase: str) -> bytes:
    header = {"alg": _ALGORITHMS[0], "enc": _ALGORITHMS[1], "p2c": _ROUNDS}
    content = jose.canonical({"secret": to_b64u(owner.secret)})
    token = jwe.encrypt_compact(header, content, OctKey.import_key(passphrase.encode()), algorithms=_ALGORITHMS)
    return _document(owner.keys.guardian, token)


def _document(owner: Guardian, keys: object) -> bytes:
    return json.dumps({"version": 1, "owner": owner.card, "keys": keys}, indent=1).encode()


def read_card(path: Path) -> Guardian:
    """Return whose file this says it is; no passphrase is needed and nothing is proved."""
    return parse_card(parse_owner_file(path.read_bytes())["owner"])


def read_place(path: Path) -> Place | None:
    """Return where the keys are when they are in a token."""
    return place_of(parse_owner_file(path.read_bytes()))


def place_of(fields: jose.Json) -> Place | None:
    if not isinstance(fields["keys"], dict):
        return None
    said = jose.members(fields["keys"], {"token", "id"}, what="Where the owner's keys are")
    label = jose.text(said["token"], what="The label of a token", longest=_LABEL)
    key_id = jose.text(said["id"], what="The id of keys in a token", longest=2 * ID_SIZE)
    if not _ID.fullmatch(key_id):
        raise MalformedDocument(f"The id of keys in a token is not {ID_SIZE} bytes in hexadecimal.")
    return Place(label, bytes.fromhex(key_id))


def read_owner(path: Path, passphrase: str) -> GuardianKeys:
    """Return the owner's keys, which must be those of the card beside them."""
    return read_owner_secret(path, passphrase).keys


def read_owner_secret(path: Path, passphrase: str) -> OwnerSecret:
    fields = parse_owner_file(path.read_bytes())
    card, place = parse_card(fields["owner"]), place_of(fields)
    if place is not None:
        raise SecretsRefused(f"The owner's keys are in the token {place.token}, and do not leave it.")
    owner = OwnerSecret(card.name, _opened(fields["keys"], passphrase))
    if owner.keys.guardian.fingerprint != card.fingerprint:
        raise SecretsRefused("The card in the owner's key file is not that of the keys in it.")
    return owner


def _opened(token: object, passphrase: str) -> bytes:
    if not isinstance(token, str):
        raise MalformedDocument("The owner's key file holds no keys.")
    try:
        opened = jwe.decrypt_compact(token, OctKey.import_key(passphrase.encode()), algorithms=_ALGORITHMS).plaintext
    except (JoseError, InvalidTag, ValueError, AssertionError) as error:
        raise SecretsRefused("The owner's key file does not open with this passphrase.") from error
    content = jose.members(jose.read_json(opened or b"", limit=_LIMIT), {"secret"}, what="The key file")
    return jose.from_b64u(content["secret"], size=range(SECRET_SIZE, SECRET_SIZE + 1))


def parse_owner_file(content: bytes) -> jose.Json:
    """The members of the file: whose it is in the open, and the keys, which a passphrase opens, or where they are."""
    read = jose.read_json(content, limit=_LIMIT)
    fields = jose.members(read, {"version", "owner", "keys"}, what="The owner's key file")
    place_of(fields)
    return fields
