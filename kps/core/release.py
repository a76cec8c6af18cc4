"""The rules of release: may this fabric give this protector's key to a host that has just proved itself?"""

from collections.abc import Collection

from kps.core.guardian import Guardian
from kps.core.protector import VerifiedProtector
from kps.errors import GuardianNotNamed, ProtectorDenied


def permit(protector: VerifiedProtector, *, ours: Collection[str], denied: bool) -> Guardian:
    """Return as which of its guardians this fabric may act; raise when it may not.

    `ours` are the fingerprints of this fabric's guardians; `denied` is what people here have decided about this
    owner's protector.
    The host's side (certificate, approval, policy) is attestation's to say and has been said before.
    """
    mine = next((guardian for guardian in protector.guardians if guardian.fingerprint in ours), None)
    if mine is None:
        raise GuardianNotNamed(f"The owner {protector.owner.name} has not named this fabric as a guardian of this VM.")
    if denied:
        raise ProtectorDenied("This fabric has denied all releases under this key protector.")
    return mine
