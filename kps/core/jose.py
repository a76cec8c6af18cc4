"""Strict JSON and JOSE (RFC 7515 to 7518, 7638) as kps uses them: few algorithms, named at every call, bounded first.

The JOSE library does the cryptography. Whatever it would parse is read here before, so that its input has one shape.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey

from attestation.core import base64url
from kps.errors import MalformedDocument

_HEADER_LIMIT: Final = 512
# Public keys are known by their points: a release meets a handful of them thirty times, and the next one of the VM too.
MOST_KEYS: Final = 4096

Json = dict[str, Any]
SigningKey = ec.EllipticCurvePrivateKey | bytes
VerifyingKey = ec.EllipticCurvePublicKey | bytes


def from_b64u(value: object, *, size: range | None = None) -> bytes:
    """Return the bytes of a binary field, which is base64url written the one way; `size` is in bytes."""
    if not isinstance(value, str):
        raise MalformedDocument("A binary field is not text.")
    try:
        data = base64url.from_b64u(value)
    except ValueError as error:
        raise MalformedDocument("A binary field is not base64url without padding.") from error
    if size is not None and len(data) not in size:
        raise MalformedDocument("A binary field has the wrong size.")
    return data


def canonical(value: object) -> bytes:
    """Return the one byte string that stands for a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def read_json(data: str | bytes, *, limit: int) -> Json:
    """Return the JSON object in at most `limit` bytes: no repeated member, no fraction, no NaN."""
    if len(data) > limit:
        raise MalformedDocument(f"A document is larger than {limit} bytes.")
    try:
        value = json.loads(
            data, object_pairs_hook=_without_repetition, parse_float=_no_number, parse_constant=_no_number
        )
    except (ValueError, RecursionError) as error:
        raise MalformedDocument("A document is not JSON as it is used here.") from error
    if not isinstance(value, dict):
        raise MalformedDocument("A document is not a JSON object.")
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> Json:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is repeated")
    return members


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no whole number")


def members(value: object, names: set[str], *, what: str) -> Json:
    """Return `value` when it is an object with exactly these members."""
    if not isinstance(value, dict) or set(value) != names:
        raise MalformedDocument(f"{what} does not have exactly the members {', '.join(sorted(names))}.")
    return value


def text(value: object, *, what: str, longest: int = 64) -> str:
    """Return `value` when it is a short line that can be shown to people."""
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise MalformedDocument(f"{what} is not a line of 1 to {longest} printable characters.")
    return value


def whole_number(value: object, *, what: str, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise MalformedDocument(f"{what} is not a whole number from 0 to {most}.")
    return value


def uuid(value: object, *, what: str) -> UUID:
    """Return the UUID that `value` is, written the one way: with dashes, in small letters."""
    try:
        found = UUID(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or str(found) != value:
        raise MalformedDocument(f"{what} is not a UUID.")
    return found


def jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """Return a P-256 public key as a JWK with its required members only (RFC 7518, 6.2)."""
    return _jwk(_point(key))


def _jwk(point: bytes) -> dict[str, str]:
    return {"kty": "EC", "crv": "P-256", "x": base64url.to_b64u(point[1:33]), "y": base64url.to_b64u(point[33:])}


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the JWK thumbprint (RFC 7638, SHA-256, base64url)."""
    return _thumbprint(_point(key))


@lru_cache(maxsize=MOST_KEYS)
def _thumbprint(point: bytes) -> str:
    return base64url.to_b64u(hashlib.sha256(canonical(_jwk(point))).digest())


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def parse_public_key(value: object) -> ec.EllipticCurvePublicKey:
    """Return the P-256 point that a JWK names; it must lie on the curve and be written the one way."""
    fields = members(value, {"kty", "crv", "x", "y"}, what="A public key")
    if fields["kty"] != "EC" or fields["crv"] != "P-256":
        raise MalformedDocument("A public key is not an EC key on P-256.")
    x, y = fields["x"], fields["y"]
    if not isinstance(x, str) or not isinstance(y, str):
        raise MalformedDocument("A public key is not written as text.")
    return _public_key(x, y)


@lru_cache(maxsize=MOST_KEYS)
def _public_key(x: str, y: str) -> ec.EllipticCurvePublicKey:
    point = b"".join(from_b64u(each, size=range(32, 33)) for each in (x, y))
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)
    except ValueError as error:
        raise MalformedDocument("A public key is not a point on P-256.") from error


@dataclass(frozen=True, slots=True)
class Unverified:
    """A compact JWS that has been read and not yet verified: anybody may have written it."""

    token: str
    kid: str
    untrusted_payload: Json


_ALLOWED: Final = {name: jws.JWSRegistry(algorithms=[name]) for name in ("ES256", "HS256")}


def sign(payload: Mapping[str, object], key: SigningKey, *, kid: str) -> str:
    """Return a compact JWS: ES256 by a private key, HS256 by a shared secret."""
    algorithm = _algorithm(key)
    header = {"alg": algorithm, "kid": kid}
    return jws.serialize_compact(header, canonical(payload), _imported(key), registry=_ALLOWED[algorithm])


def parse_jws(token: object, *, limit: int) -> Unverified:
    """Read a compact JWS of ours: exactly `alg` and `kid` in its header, a JSON object in its payload."""
    if not isinstance(token, str) or len(token) > limit or token.count(".") != 2:
        raise MalformedDocument(f"This is not a compact JWS of at most {limit} characters.")
    first, second, third = token.split(".")
    header = members(read_json(from_b64u(first), limit=_HEADER_LIMIT), {"alg", "kid"}, what="The header of a JWS")
    from_b64u(third, size=range(32, 65))
    if header["alg"] not in ("ES256", "HS256"):
        raise MalformedDocument("A JWS uses another algorithm than ES256 and HS256.")
    payload = read_json(from_b64u(second), limit=limit)
    return Unverified(token, text(header["kid"], what="The key id of a JWS"), payload)


def holds(unverified: Unverified, key: VerifyingKey) -> bool:
    """Say whether this key, by the one algorithm of its kind, has signed the token (RFC 8725, 3.1)."""
    try:
        jws.deserialize_compact(unverified.token, _imported(key), registry=_ALLOWED[_algorithm(key)])
    except (JoseError, ValueError):
        return False
    return True


def _algorithm(key: SigningKey | VerifyingKey) -> str:
    return "HS256" if isinstance(key, bytes) else "ES256"


def _imported(key: SigningKey | VerifyingKey) -> ECKey | OctKey:
    if isinstance(key, bytes):
        return OctKey.import_key(key)
    return private_key(key) if isinstance(key, ec.EllipticCurvePrivateKey) else public_key(key)


def public_key(key: ec.EllipticCurvePublicKey) -> ECKey:
    """Return a public key as the JOSE library uses it."""
    return _described(_point(key))


@lru_cache(maxsize=MOST_KEYS)
def _described(point: bytes) -> ECKey:
    return ECKey.import_key({**_jwk(point)})


def private_key(key: ec.EllipticCurvePrivateKey) -> ECKey:
    """Return a private key as the JOSE library uses it, described by its public half alone.

    Otherwise the library would read the private number to describe it, and a token gives none.
    """
    return ECKey(key, jwk(key.public_key()))
