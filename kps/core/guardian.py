"""Guardians: whoever may open a key protector. A card names one by its two public keys."""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from kps.core import jose
from kps.errors import GuardianRefused, MalformedDocument

METADATA_LIMIT: Final = 16 * 1024
_METADATA: Final = "guardhouse-guardian/v1"


@dataclass(frozen=True, slots=True)
class Guardian:
    """A party by its public keys: `signing` (ES256) and `encryption` (ECDH-ES). The name is what it calls itself."""

    name: str
    signing: ec.EllipticCurvePublicKey
    encryption: ec.EllipticCurvePublicKey

    @property
    def card(self) -> dict[str, object]:
        return {"name": self.name, "signing": jose.jwk(self.signing), "encryption": jose.jwk(self.encryption)}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over both thumbprints (RFC 7638): what two people read to each other. The name is not in it."""
        thumbprints = [jose.thumbprint(self.signing), jose.thumbprint(self.encryption)]
        return hashlib.sha256(jose.canonical(thumbprints)).hexdigest()


@dataclass(frozen=True, slots=True)
class GuardianKeys:
    """The private side of a guardian or an owner."""

    name: str
    signing: ec.EllipticCurvePrivateKey = field(repr=False)
    encryption: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def guardian(self) -> Guardian:
        return Guardian(self.name, self.signing.public_key(), self.encryption.public_key())


def parse_card(value: object) -> Guardian:
    """Return the guardian that a card describes; nothing says yet that it is anybody's."""
    card = jose.members(value, {"name", "signing", "encryption"}, what="A guardian's card")
    guardian = Guardian(
        name=jose.text(card["name"], what="A guardian's name"),
        signing=jose.parse_public_key(card["signing"]),
        encryption=jose.parse_public_key(card["encryption"]),
    )
    if guardian.signing == guardian.encryption:
        raise MalformedDocument("A guardian uses one key for signing and encryption.")
    return guardian


def build_metadata(keys: GuardianKeys, *, now: datetime) -> str:
    """Return the signed card that a tenant imports (JWS, RFC 7515)."""
    guardian = keys.guardian
    payload = {"type": _METADATA, "card": guardian.card, "issued_at": int(now.timestamp())}
    return jose.sign(payload, keys.signing, kid=jose.thumbprint(guardian.signing))


def parse_metadata(token: object) -> Guardian:
    """Return the guardian that has signed this metadata itself.

    That proves possession of the signing key and nothing about who it is: compare the fingerprint by another way.
    """
    unverified = jose.parse_jws(token, limit=METADATA_LIMIT)
    payload = jose.members(unverified.untrusted_payload, {"type", "card", "issued_at"}, what="Guardian metadata")
    if payload["type"] != _METADATA:
        raise MalformedDocument("This is not guardian metadata of a version known here.")
    jose.whole_number(payload["issued_at"], what="The time of guardian metadata", most=2**40)
    guardian = parse_card(payload["card"])
    if unverified.kid != jose.thumbprint(guardian.signing) or not jose.holds(unverified, guardian.signing):
        raise GuardianRefused("The guardian's metadata is not signed by the key that it names.")
    return guardian
