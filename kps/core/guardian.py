"""Guardians: whoever may open a key protector. A card names one by its two public keys.

A guardian that changes its keys gets another card and another fingerprint. The keys before sign that card too (a
succession), so that whoever has compared a fingerprint once can follow.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from kps.core import jose
from kps.errors import GuardianRefused, MalformedDocument

METADATA_LIMIT: Final = 64 * 1024
MOST_PAIRS: Final = 16
_METADATA: Final = "guardhouse-guardian/v1"
_SUCCESSION: Final = "guardhouse-succession/v1"
_SUCCESSION_LIMIT: Final = 4 * 1024
_LATEST: Final = 2**40


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
        return _fingerprint(jose.thumbprint(self.signing), jose.thumbprint(self.encryption))


@lru_cache(maxsize=jose.MOST_KEYS)
def _fingerprint(*thumbprints: str) -> str:
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


@dataclass(frozen=True, slots=True)
class Succession:
    """The word of the keys `before` that `after` are the same guardian's."""

    before: Guardian
    after: Guardian


def sign_succession(before: GuardianKeys, after: Guardian, *, now: datetime) -> str:
    """Return the succession, signed by the keys before (JWS)."""
    payload = {
        "type": _SUCCESSION,
        "before": before.guardian.card,
        "after": after.card,
        "signed_at": int(now.timestamp()),
    }
    return jose.sign(payload, before.signing, kid=jose.thumbprint(before.signing.public_key()))


def verify_succession(token: object) -> Succession:
    """Return what the keys before have signed. Whose they are, only a fingerprint that was compared can say."""
    unverified = jose.parse_jws(token, limit=_SUCCESSION_LIMIT)
    names = {"type", "before", "after", "signed_at"}
    said = jose.members(unverified.untrusted_payload, names, what="A succession")
    if said["type"] != _SUCCESSION:
        raise MalformedDocument("This is not a succession of a version known here.")
    jose.whole_number(said["signed_at"], what="The time of a succession", most=_LATEST)
    before, after = parse_card(said["before"]), parse_card(said["after"])
    if unverified.kid != jose.thumbprint(before.signing) or not jose.holds(unverified, before.signing):
        raise GuardianRefused(f"The succession to {after.name} is not signed by the keys that it succeeds.")
    return Succession(before, after)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a guardian says of itself: the keys in use, `others` that open key protectors too, and how it got here."""

    guardian: Guardian
    others: tuple[Guardian, ...]
    successions: tuple[Succession, ...]

    def follows(self, known: Collection[str]) -> Guardian | None:
        """Return the newest of the `known` fingerprints' guardians whose own keys lead, step by step, to this one."""
        reached = self.guardian.fingerprint
        for step in reversed(self.successions):
            if step.after.fingerprint != reached:
                continue  # what comes after the keys in use: a pair that is only being prepared
            if step.before.fingerprint in known:
                return step.before
            reached = step.before.fingerprint
        return None


def build_metadata(
    keys: GuardianKeys, *, now: datetime, others: Sequence[Guardian] = (), successions: Sequence[str] = ()
) -> str:
    """Return the signed document that a tenant imports (JWS, RFC 7515). The successions come oldest first."""
    guardian = keys.guardian
    payload = {
        "type": _METADATA,
        "card": guardian.card,
        "others": [other.card for other in others],
        "successions": list(successions),
        "issued_at": int(now.timestamp()),
    }
    return jose.sign(payload, keys.signing, kid=jose.thumbprint(guardian.signing))


def parse_metadata(token: object) -> Guardian:
    """Return the guardian that has signed this metadata itself; see `verify_metadata`."""
    return verify_metadata(token).guardian


def verify_metadata(token: object) -> Metadata:
    """Return what a guardian has signed of itself, after every signature in it was checked.

    That proves possession of the signing key and nothing about who it is: compare the fingerprint by another way, or
    ask `follows` whether one that was compared before leads here.
    """
    unverified = jose.parse_jws(token, limit=METADATA_LIMIT)
    names = {"type", "card", "others", "successions", "issued_at"}
    payload = jose.members(unverified.untrusted_payload, names, what="Guardian metadata")
    if payload["type"] != _METADATA:
        raise MalformedDocument("This is not guardian metadata of a version known here.")
    jose.whole_number(payload["issued_at"], what="The time of guardian metadata", most=_LATEST)
    guardian = parse_card(payload["card"])
    if unverified.kid != jose.thumbprint(guardian.signing) or not jose.holds(unverified, guardian.signing):
        raise GuardianRefused("The guardian's metadata is not signed by the key that it names.")
    others = tuple(parse_card(other) for other in _listed(payload["others"], what="The other keys of a guardian"))
    if len({each.fingerprint for each in (guardian, *others)}) != 1 + len(others):
        raise MalformedDocument("Guardian metadata names the same keys twice.")
    return Metadata(guardian, others, _successions(payload["successions"], guardian))


def _successions(value: object, guardian: Guardian) -> tuple[Succession, ...]:
    """Return the line of successions: each begins where the one before it ends, and the keys in use are on it."""
    line = tuple(verify_succession(token) for token in _listed(value, what="The successions of a guardian"))
    if any(earlier.after.fingerprint != later.before.fingerprint for earlier, later in pairwise(line)):
        raise MalformedDocument("The successions of a guardian do not follow one another.")
    if line and guardian.fingerprint not in {each.fingerprint for step in line for each in (step.before, step.after)}:
        raise MalformedDocument("The successions of a guardian do not reach the keys that it uses.")
    return line


def _listed(value: object, *, what: str) -> list[object]:
    if not isinstance(value, list) or len(value) > MOST_PAIRS:
        raise MalformedDocument(f"{what} are not a list of at most {MOST_PAIRS}.")
    return value
