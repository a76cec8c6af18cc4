"""The volume signature catalog: what is on a template disk, under which name and version, signed by who made it.

A tenant reads one, tries the template out, and names signer, name and version in its shielding data. A host hashes the
disk that it is given before it opens any secret for it, so nothing on the fabric can put another disk in its place.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from kps.core import jose
from kps.core.guardian import GuardianKeys
from kps.core.volume import Volume, document_of, parse_volume
from kps.errors import CatalogRefused, MalformedDocument

CATALOG_LIMIT: Final = 96 * 1024
_TYPE: Final = "guardhouse-volume-catalog/v1"
_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){0,3}", re.ASCII)
_NUMBERS: Final = 4
_LATEST: Final = 2**37  # seconds; in the year 6325, which a calendar still has


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """One to four numbers; those that are not written are 0, so 1.2 and 1.2.0 are one version."""

    numbers: tuple[int, ...]
    text: str = field(compare=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Catalog:
    """What a signer says of a disk. Only `signer` proves anything of who that is; the name is what it calls itself."""

    name: str
    version: Version
    volume: Volume
    signer: ec.EllipticCurvePublicKey
    signer_name: str
    signed_at: datetime

    @property
    def thumbprint(self) -> str:
        """The JWK thumbprint (RFC 7638) of the signer's key: what shielding data names, and people compare."""
        return jose.thumbprint(self.signer)


def parse_version(value: object) -> Version:
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        raise MalformedDocument("A version is one to four whole numbers with dots between them, like 12.1.0.")
    numbers = [int(number) for number in value.split(".")]
    return Version((*numbers, *[0] * (_NUMBERS - len(numbers))), value)


def build_catalog(keys: GuardianKeys, volume: Volume, *, name: str, version: Version, now: datetime) -> str:
    """Return the signed catalog of a volume (compact JWS, ES256)."""
    public = keys.signing.public_key()
    payload = {
        "type": _TYPE,
        "name": jose.text(name, what="A template's name"),
        "version": str(version),
        "signer": {"name": keys.name, "signing": jose.jwk(public)},
        "signed_at": int(now.timestamp()),
        "volume": document_of(volume),
    }
    return jose.sign(payload, keys.signing, kid=jose.thumbprint(public))


def parse_catalog(token: object) -> Catalog:
    """Return the catalog that the key which it names has signed. Whose key that is, its thumbprint has to show.

    Raises `MalformedDocument` or `CatalogRefused`.
    """
    unverified = jose.parse_jws(token, limit=CATALOG_LIMIT)
    names = {"type", "name", "version", "signer", "signed_at", "volume"}
    said = jose.members(unverified.untrusted_payload, names, what="A volume signature catalog")
    if said["type"] != _TYPE:
        raise MalformedDocument("This is not a volume signature catalog of a version known here.")
    signer = jose.members(said["signer"], {"name", "signing"}, what="A catalog's signer")
    key = jose.parse_public_key(signer["signing"])
    catalog = Catalog(
        name=jose.text(said["name"], what="A template's name"),
        version=parse_version(said["version"]),
        volume=parse_volume(said["volume"]),
        signer=key,
        signer_name=jose.text(signer["name"], what="A signer's name"),
        signed_at=_moment(said["signed_at"]),
    )
    if unverified.kid != catalog.thumbprint or not jose.holds(unverified, key):
        raise CatalogRefused("The catalog was altered, or another key than the one that it names has signed it.")
    return catalog


def _moment(value: object) -> datetime:
    return datetime.fromtimestamp(jose.whole_number(value, what="The time of a catalog", most=_LATEST), tz=UTC)
