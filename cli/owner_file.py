"""The owner's key file: both private keys under a passphrase (JWE, PBES2), the card beside them in the open."""

import json
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey

from guardedhost.files import write_new
from kps.core import jose
from kps.core.guardian import Guardian, GuardianKeys, parse_card
from kps.errors import MalformedDocument, SecretsRefused

SHORTEST_PASSPHRASE: Final = 12
_ALGORITHMS: Final = ["PBES2-HS512+A256KW", "A256GCM"]
_ROUNDS: Final = 300_000  # the most that the JOSE library accepts when it reads
_LIMIT: Final = 16 * 1024


def new_keys(name: str) -> GuardianKeys:
    return GuardianKeys(name, ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1()))


def write_owner(path: Path, keys: GuardianKeys, passphrase: str) -> None:
    """Write the file for its owner's eyes only. A file that is there already is never replaced."""
    private = {"signing": _exported(keys.signing), "encryption": _exported(keys.encryption)}
    header = {"alg": _ALGORITHMS[0], "enc": _ALGORITHMS[1], "p2c": _ROUNDS}
    token = jwe.encrypt_compact(
        header, jose.canonical(private), OctKey.import_key(passphrase.encode()), algorithms=_ALGORITHMS
    )
    document = {"version": 1, "owner": keys.guardian.card, "keys": token}
    write_new(path, json.dumps(document, indent=1).encode())


def read_card(path: Path) -> Guardian:
    """Return whose file this says it is; no passphrase is needed and nothing is proved."""
    return parse_card(parse_owner_file(path.read_bytes())["owner"])


def read_owner(path: Path, passphrase: str) -> GuardianKeys:
    """Return the owner's keys, which must be those of the card beside them."""
    fields = parse_owner_file(path.read_bytes())
    card = parse_card(fields["owner"])
    if not isinstance(fields["keys"], str):
        raise MalformedDocument("The owner's key file holds no keys.")
    try:
        opened = jwe.decrypt_compact(
            fields["keys"], OctKey.import_key(passphrase.encode()), algorithms=_ALGORITHMS
        ).plaintext
    except (JoseError, InvalidTag, ValueError, AssertionError) as error:
        raise SecretsRefused("The owner's key file does not open with this passphrase.") from error
    private = jose.members(jose.read_json(opened or b"", limit=_LIMIT), {"signing", "encryption"}, what="The key file")
    keys = GuardianKeys(card.name, _imported(private["signing"]), _imported(private["encryption"]))
    if keys.guardian.fingerprint != card.fingerprint:
        raise SecretsRefused("The card in the owner's key file is not that of the keys in it.")
    return keys


def parse_owner_file(content: bytes) -> jose.Json:
    """The members of the file: whose it is in the open, and the keys that only the passphrase opens."""
    return jose.members(
        jose.read_json(content, limit=_LIMIT), {"version", "owner", "keys"}, what="The owner's key file"
    )


def _exported(key: ec.EllipticCurvePrivateKey) -> dict[str, object]:
    return dict(ECKey.import_key(key).as_dict(private=True))


def _imported(value: object) -> ec.EllipticCurvePrivateKey:
    private = ECKey.import_key(jose.members(value, {"kty", "crv", "x", "y", "d"}, what="A private key")).private_key
    if private is None:
        raise MalformedDocument("The owner's key file holds no private keys.")
    return private
