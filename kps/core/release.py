"""The rules of release: may this fabric give this protector's key to a host that has just proved itself?"""

from collections.abc import Collection
from dataclasses import dataclass

from kps.core.guardian import Guardian
from kps.core.protector import VerifiedProtector
from kps.errors import GuardianNotNamed, ProtectorDenied, ProtectorStranger


@dataclass(frozen=True, slots=True)
class Standing:
    """What this fabric remembers of a protector id."""

    owner_fingerprint: str
    denied: bool


def permit(protector: VerifiedProtector, *, ours: Collection[str], standing: Standing) -> Guardian:
    """Return as which of its guardians this fabric may act; raise when it may not.

    `ours` are the fingerprints of this fabric's guardians.
    The host's side (certificate, approval, policy) is attestation's to say and has been said before.
    """
    mine = next((guardian for guardian in protector.guardians if guardian.fingerprint in ours), None)
    if mine is None:
        raise GuardianNotNamed(f"The owner {protector.owner.name} has not named this fabric as a guardian of this VM.")
    if standing.owner_fingerprint != protector.owner.fingerprint:
        raise ProtectorStranger("This id belongs to the key protector of another owner.")
    if standing.denied:
        raise ProtectorDenied("This fabric has denied all releases under this key protector.")
    return mine
