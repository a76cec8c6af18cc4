"""The rules of release: may this fabric give this protector's key to a host that has just proved itself?"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kps.core.chain import VerifiedChain
from kps.core.guardian import Guardian
from kps.core.protector import VerifiedProtector
from kps.core.release_policy import Circumstances, ReleasePolicy, refusals
from kps.errors import (
    GuardianNotNamed,
    GuardianRevoked,
    ProtectorDenied,
    ProtectorNotRewrapped,
    ReleasePolicyRefused,
)


@dataclass(frozen=True, slots=True)
class Permit:
    """As which of its guardians this fabric opens the key as it lies, and as which it seals the next one."""

    opens: Guardian
    seals: Guardian


def permit(protector: VerifiedProtector, chain: VerifiedChain, *, ours: Collection[str], denied: bool) -> Permit:
    """Return as whom this fabric may act; raise when it may not.

    `chain` is the newest that the owner has signed, whichever the protector carries; `ours` are the fingerprints of
    this fabric's guardians; `denied` is what people here have decided about this owner's protector.
    The host's side (certificate, approval, policy) is attestation's to say and has been said before.
    """
    seals, opens = _mine(chain.guardians, ours), _mine(protector.guardians, ours)
    owner = chain.statement.owner.name
    if seals is None and opens is not None:
        raise GuardianRevoked(
            f"The owner {owner} has taken this VM from this fabric with statement {chain.statement.serial}."
        )
    if seals is None:
        raise GuardianNotNamed(f"The owner {owner} has not named this fabric as a guardian of this VM.")
    if denied:
        raise ProtectorDenied("This fabric has denied all releases under this key protector.")
    if opens is None:
        raise ProtectorNotRewrapped(
            f"The owner {owner} has named this fabric, and the key was wrapped before that. Start the VM once on a"
            " fabric that had it, or let the owner wrap the key again with `guardhouse tenant grant`."
        )
    return Permit(opens, seals)


def require_policy(policy: ReleasePolicy, found: Circumstances) -> None:
    """Raise the first of what speaks against a release, with all of it in its sentence."""
    against = refusals(policy, found)
    if against:
        raise _together(against)


def _together(against: Sequence[ReleasePolicyRefused]) -> ReleasePolicyRefused:
    return type(against[0])(" ".join(map(str, against)))


def _mine(guardians: Sequence[Guardian], ours: Collection[str]) -> Guardian | None:
    return next((guardian for guardian in guardians if guardian.fingerprint in ours), None)
