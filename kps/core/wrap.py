"""What a release gives: the key of this start and the key of the next, for one TPM in one boot state."""

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from attestation.core.base64url import to_b64u
from attestation.core.handover import wrap_to_transport_key
from kps.core import jose
from kps.core.chain import LEVELS
from kps.core.protector import MOST_ROLLS
from kps.errors import MalformedDocument

_LIMIT: Final = 1024
_KEY: Final = range(32, 33)


@dataclass(frozen=True, slots=True)
class ReleasedKeys:
    """`ingress` opens the VM's secrets as they lie; they are to be sealed under `egress` for `roll`.

    The level is the one that the owner has signed: the host obeys it and nothing that lies beside the disk.
    """

    protector: UUID
    level: str
    roll: int
    ingress: bytes = field(repr=False)
    egress: bytes = field(repr=False)


def wrap(keys: ReleasedKeys, *, transport_spki: bytes) -> str:
    """Return the keys as a compact JWE (RSA-OAEP-256, A256GCM) to the certificate's transport key."""
    payload = {
        "ingress": to_b64u(keys.ingress),
        "egress": to_b64u(keys.egress),
        "level": keys.level,
        "protector": str(keys.protector),
        "roll": keys.roll,
    }
    return wrap_to_transport_key(jose.canonical(payload), transport_spki)


def parse_released(content: bytes) -> ReleasedKeys:
    """Read what the transport key has opened; for the agent."""
    names = {"ingress", "egress", "level", "protector", "roll"}
    fields = jose.members(jose.read_json(content, limit=_LIMIT), names, what="The released keys")
    if fields["level"] not in LEVELS:
        raise MalformedDocument("The released keys name a level that is not known here.")
    return ReleasedKeys(
        protector=jose.uuid(fields["protector"], what="The key protector of the released keys"),
        level=fields["level"],
        roll=jose.whole_number(fields["roll"], what="The roll", most=MOST_ROLLS + 1),
        ingress=jose.from_b64u(fields["ingress"], size=_KEY),
        egress=jose.from_b64u(fields["egress"], size=_KEY),
    )
