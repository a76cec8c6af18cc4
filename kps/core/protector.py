"""The key protector: a VM's transport key, for its owner and the guardians whom the owner's chain of grants reaches.

A JSON document that the fabric keeps and cannot change: `chain` is the owner's statement (id, level) followed by
grants, each signed by the owner or by a guardian granted before; `wrapped` is the key for exactly those; `seal` binds
the two together for one roll. Every start rolls the key: a new `wrapped` and `seal` over the same chain.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec

from kps.core import jose, wrapped
from kps.core.guardian import Guardian, GuardianKeys, parse_card
from kps.errors import (
    MalformedDocument,
    MalformedProtector,
    ProtectorRecipients,
    ProtectorSeal,
    ProtectorSignature,
    ProtectorStranger,
)

PROTECTOR_LIMIT: Final = 64 * 1024
MOST_GUARDIANS: Final = 16
MOST_ROLLS: Final = 2**53
SHIELDED: Final = "shielded"
ENCRYPTION_SUPPORTED: Final = "encryption-supported"
LEVELS: Final = (SHIELDED, ENCRYPTION_SUPPORTED)
_JWS_LIMIT: Final = 4 * 1024
_ROOT: Final = "guardhouse-protector/v1"
_GRANT: Final = "guardhouse-grant/v1"
_SEAL: Final = "guardhouse-seal/v1"


@dataclass(frozen=True, slots=True)
class UnverifiedProtector:
    """A key protector that has been read: the right shape, from anybody."""

    untrusted_id: UUID
    chain: tuple[jose.Unverified, ...]
    wrapped: jose.Json
    seal: jose.Unverified


@dataclass(frozen=True, slots=True)
class VerifiedProtector:
    """What the owner has signed, and for whom the key is wrapped: exactly the owner and `guardians`."""

    id: UUID
    level: str
    owner: Guardian
    guardians: tuple[Guardian, ...]
    roll: int
    chain: tuple[str, ...] = field(repr=False)
    wrapped: jose.Json = field(repr=False)

    @property
    def parties(self) -> tuple[Guardian, ...]:
        return (self.owner, *self.guardians)

    @property
    def subject(self) -> str:
        return subject_of(self.owner.fingerprint, self.id)


@dataclass(frozen=True, slots=True)
class _Statement:
    """The owner's first word."""

    id: UUID
    level: str
    owner: Guardian


def subject_of(owner_fingerprint: str, protector_id: UUID) -> str:
    """Return how the ledger names a key protector: by its owner too, since anybody can sign the id of another's."""
    return f"protector:{owner_fingerprint}/{protector_id}"


def create_protector(
    owner: GuardianKeys, guardians: Sequence[Guardian], *, protector_id: UUID, level: str, key: bytes, now: datetime
) -> jose.Json:
    """Return a new key protector at roll 0, in which the owner grants each of `guardians`."""
    if level not in LEVELS or len(guardians) > MOST_GUARDIANS:
        raise ValueError("a known level and at most 16 guardians are needed")
    me, kid = owner.guardian, jose.thumbprint(owner.signing.public_key())
    root: dict[str, object] = {
        "type": _ROOT,
        "id": str(protector_id),
        "level": level,
        "owner": me.card,
        "created": int(now.timestamp()),
    }
    grants: list[dict[str, object]] = [
        {"type": _GRANT, "id": str(protector_id), "guardian": guardian.card, "parent": me.fingerprint}
        for guardian in guardians
    ]
    chain = [jose.sign(link, owner.signing, kid=kid) for link in (root, *grants)]
    return _sealed(protector_id, chain, [me, *guardians], roll=0, key=key, signer=owner.signing)


def roll_protector(protector: VerifiedProtector, *, key: bytes, signer: ec.EllipticCurvePrivateKey) -> jose.Json:
    """Return the same protector, same chain, for the next start: another key, sealed by one of its guardians."""
    return _sealed(protector.id, protector.chain, protector.parties, roll=protector.roll + 1, key=key, signer=signer)


def _sealed(
    protector_id: UUID,
    chain: Sequence[str],
    parties: Sequence[Guardian],
    *,
    roll: int,
    key: bytes,
    signer: ec.EllipticCurvePrivateKey,
) -> jose.Json:
    message = wrapped.encrypt(key, [party.encryption for party in parties])
    payload = {
        "type": _SEAL,
        "id": str(protector_id),
        "roll": roll,
        "chain_sha256": _digest(chain),
        "wrapped_sha256": wrapped.digest(message),
    }
    seal = jose.sign(payload, signer, kid=jose.thumbprint(signer.public_key()))
    return {"version": 1, "id": str(protector_id), "chain": list(chain), "wrapped": message, "seal": seal}


def parse_protector(document: object) -> UnverifiedProtector:
    """Read a key protector: text, bytes or an object that was JSON. Raises `MalformedProtector` and nothing else."""
    try:
        return _read(document)
    except MalformedDocument as error:
        raise MalformedProtector(str(error)) from error


def _read(document: object) -> UnverifiedProtector:
    if isinstance(document, str | bytes):
        document = jose.read_json(document, limit=PROTECTOR_LIMIT)
    fields = jose.members(document, {"version", "id", "chain", "wrapped", "seal"}, what="A key protector")
    chain = fields["chain"]
    if fields["version"] != 1 or not isinstance(chain, list) or not 0 < len(chain) <= 1 + MOST_GUARDIANS:
        raise MalformedDocument(f"A key protector is of version 1 and has at most {MOST_GUARDIANS} guardians.")
    protector = UnverifiedProtector(
        untrusted_id=jose.uuid(fields["id"], what="The id of a key protector"),
        chain=tuple(jose.parse_jws(link, limit=_JWS_LIMIT) for link in chain),
        wrapped=wrapped.parse_wrapped(fields["wrapped"]),
        seal=jose.parse_jws(fields["seal"], limit=_JWS_LIMIT),
    )
    if len(jose.canonical(fields)) > PROTECTOR_LIMIT:
        raise MalformedDocument(f"A key protector is larger than {PROTECTOR_LIMIT} bytes.")
    return protector


def verify_protector(document: object) -> VerifiedProtector:
    """Return what the owner has signed, after every signature, recipient and hash was checked.

    Who the owner is, and whether this fabric is among the guardians, is for the caller to decide.
    """
    protector = parse_protector(document)
    try:
        return _verify(protector)
    except MalformedDocument as error:  # in what a link of the chain says
        raise MalformedProtector(str(error)) from error


def _verify(protector: UnverifiedProtector) -> VerifiedProtector:
    statement = _verify_root(protector)
    guardians = _verify_grants(protector, statement)
    parties = (statement.owner, *guardians)
    recipients = wrapped.recipients_of(protector.wrapped)
    if sorted(recipients) != sorted(jose.thumbprint(party.encryption) for party in parties):
        raise ProtectorRecipients("The key is wrapped to others than exactly the owner and the guardians.")
    return VerifiedProtector(
        id=statement.id,
        level=statement.level,
        owner=statement.owner,
        guardians=guardians,
        roll=_verify_seal(protector, parties),
        chain=tuple(link.token for link in protector.chain),
        wrapped=protector.wrapped,
    )


def _verify_root(protector: UnverifiedProtector) -> _Statement:
    link = protector.chain[0]
    names = {"type", "id", "level", "owner", "created"}
    said = jose.members(link.untrusted_payload, names, what="The owner's statement")
    if said["type"] != _ROOT or said["level"] not in LEVELS:
        raise MalformedDocument("The chain does not begin with an owner's statement and a level known here.")
    jose.whole_number(said["created"], what="The time of the owner's statement", most=2**40)
    owner = parse_card(said["owner"])
    _require_signature(link, owner, "The owner's statement of id and level")
    _require_id(said["id"], protector)
    return _Statement(protector.untrusted_id, said["level"], owner)


def _verify_grants(protector: UnverifiedProtector, statement: _Statement) -> tuple[Guardian, ...]:
    """Walk the grants in order: each is signed by a party that the chain has reached before it."""
    parties = [statement.owner]
    reached = {statement.owner.fingerprint: statement.owner}
    for link in protector.chain[1:]:
        said = jose.members(link.untrusted_payload, {"type", "id", "guardian", "parent"}, what="A grant")
        if said["type"] != _GRANT or not isinstance(said["parent"], str):
            raise MalformedDocument("A link of the chain is not a grant.")
        parent = reached.get(said["parent"])
        if parent is None:
            raise ProtectorStranger("A guardian was added by somebody whom the owner's chain does not reach.")
        guardian = parse_card(said["guardian"])
        _require_signature(link, parent, f"The grant for {guardian.name}")
        _require_id(said["id"], protector)
        if any(_share_a_key(guardian, party) for party in parties):
            raise ProtectorStranger(f"The grant for {guardian.name} names a key that the chain has already.")
        parties.append(guardian)
        reached[guardian.fingerprint] = guardian
    return tuple(parties[1:])


def _verify_seal(protector: UnverifiedProtector, parties: Sequence[Guardian]) -> int:
    names = {"type", "id", "roll", "chain_sha256", "wrapped_sha256"}
    said = jose.members(protector.seal.untrusted_payload, names, what="The seal")
    roll = jose.whole_number(said["roll"], what="The roll of a key protector", most=MOST_ROLLS)
    if said["type"] != _SEAL:
        raise MalformedDocument("The seal is not a seal.")
    may_seal = parties[:1] if roll == 0 else parties  # the first key is the owner's own
    sealer = next((party for party in may_seal if jose.thumbprint(party.signing) == protector.seal.kid), None)
    if sealer is None:
        raise ProtectorSeal("The key was sealed by somebody who may not seal it.")
    if not jose.holds(protector.seal, sealer.signing):
        raise ProtectorSeal(f"The seal of {sealer.name} does not hold.")
    covered = (str(protector.untrusted_id), _digest([link.token for link in protector.chain]))
    if (said["id"], said["chain_sha256"]) != covered or said["wrapped_sha256"] != wrapped.digest(protector.wrapped):
        raise ProtectorSeal("The seal is not over this chain and this key.")
    return roll


def _require_signature(link: jose.Unverified, signer: Guardian, what: str) -> None:
    if link.kid != jose.thumbprint(signer.signing) or not jose.holds(link, signer.signing):
        raise ProtectorSignature(f"{what} was altered, or another key than that of {signer.name} signed it.")


def _require_id(said: object, protector: UnverifiedProtector) -> None:
    if said != str(protector.untrusted_id):
        raise ProtectorSignature("A link of the chain was signed for another key protector.")


def _share_a_key(one: Guardian, other: Guardian) -> bool:
    keys = (other.signing, other.encryption)
    return one.signing in keys or one.encryption in keys


def _digest(chain: Sequence[str]) -> str:
    return hashlib.sha256(jose.canonical(list(chain))).hexdigest()


def open_protector(protector: VerifiedProtector, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the transport key by the encryption key of one of the protector's parties."""
    return wrapped.decrypt(protector.wrapped, key)
