"""The key protector: a VM's transport key, for its owner and the guardians whom the owner's chain names.

A JSON document that the fabric keeps and cannot change: `chain` is what the owner has signed (`kps.core.chain`);
`wrapped` is the key for exactly its parties; `seal` binds the two together for one roll. Every start rolls the key: a
new `wrapped` and `seal`, over the same chain or over a newer one of the same owner's.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec

from kps.core import jose, wrapped
from kps.core.chain import (
    LEVELS,
    MOST_GUARDIANS,
    VerifiedChain,
    new_statement,
    parse_links,
    sign_statement,
    verify_links,
)
from kps.core.guardian import Guardian, GuardianKeys
from kps.core.release_policy import NO_POLICY, ReleasePolicy
from kps.errors import (
    MalformedDocument,
    MalformedProtector,
    ProtectorRecipients,
    ProtectorSeal,
    ProtectorSignature,
)

PROTECTOR_LIMIT: Final = 64 * 1024
MOST_ROLLS: Final = 2**53
_SEAL_LIMIT: Final = 4 * 1024
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
    """What the owner has signed, and for whom the key is wrapped: exactly the parties of the chain."""

    chain: VerifiedChain
    roll: int
    wrapped: jose.Json = field(repr=False)

    @property
    def id(self) -> UUID:
        return self.chain.statement.id

    @property
    def level(self) -> str:
        return self.chain.statement.level

    @property
    def owner(self) -> Guardian:
        return self.chain.statement.owner

    @property
    def guardians(self) -> tuple[Guardian, ...]:
        return self.chain.guardians

    @property
    def parties(self) -> tuple[Guardian, ...]:
        return self.chain.parties

    @property
    def subject(self) -> str:
        return self.chain.subject


def create_protector(
    owner: GuardianKeys,
    guardians: Sequence[Guardian],
    *,
    protector_id: UUID,
    level: str,
    key: bytes,
    now: datetime,
    policy: ReleasePolicy = NO_POLICY,
) -> jose.Json:
    """Return a new key protector at roll 0, in which the owner grants each of `guardians`."""
    if level not in LEVELS or len(guardians) > MOST_GUARDIANS:
        raise ValueError("a known level and at most 16 guardians are needed")
    statement = new_statement(owner.guardian, guardians, protector_id=protector_id, level=level, policy=policy, now=now)
    return wrap_again(sign_statement(statement, owner), roll=0, key=key, signer=owner.signing)


def roll_protector(
    protector: VerifiedProtector, chain: VerifiedChain, *, key: bytes, signer: ec.EllipticCurvePrivateKey
) -> jose.Json:
    """Return the protector for the next start: another key, for the parties of `chain`, sealed by one of them.

    That of shielding data does not go on by itself: what follows it is the protector of a machine made from it.
    """
    if chain.statement.owner != protector.owner or protector.id not in (chain.statement.id, chain.made_from):
        raise ValueError("a key protector goes on under a chain of its own owner's")
    if chain.statement.makes_machines:
        raise ValueError("the key protector of shielding data stays as it is")
    return wrap_again(chain, roll=protector.roll + 1, key=key, signer=signer)


def wrap_again(chain: VerifiedChain, *, roll: int, key: bytes, signer: ec.EllipticCurvePrivateKey) -> jose.Json:
    """Return a protector of this roll in which the parties of `chain` find `key`."""
    message = wrapped.encrypt(key, [party.encryption for party in chain.parties])
    payload = {
        "type": _SEAL,
        "id": str(chain.statement.id),
        "roll": roll,
        "chain_sha256": _digest(chain.links),
        "wrapped_sha256": wrapped.digest(message),
    }
    seal = jose.sign(payload, signer, kid=jose.thumbprint(signer.public_key()))
    return {
        "version": 1,
        "id": str(chain.statement.id),
        "chain": list(chain.links),
        "wrapped": message,
        "seal": seal,
    }


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
    if fields["version"] != 1:
        raise MalformedDocument("A key protector is of version 1.")
    protector = UnverifiedProtector(
        untrusted_id=jose.uuid(fields["id"], what="The id of a key protector"),
        chain=parse_links(fields["chain"]),
        wrapped=wrapped.parse_wrapped(fields["wrapped"]),
        seal=jose.parse_jws(fields["seal"], limit=_SEAL_LIMIT),
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
    chain = verify_links(protector.chain)
    if chain.statement.id != protector.untrusted_id:
        raise ProtectorSignature("The owner's statement was signed for another key protector.")
    recipients = wrapped.recipients_of(protector.wrapped)
    if sorted(recipients) != sorted(jose.thumbprint(party.encryption) for party in chain.parties):
        raise ProtectorRecipients("The key is wrapped to others than exactly the owner and the guardians.")
    return VerifiedProtector(chain=chain, roll=_verify_seal(protector, chain), wrapped=protector.wrapped)


def _verify_seal(protector: UnverifiedProtector, chain: VerifiedChain) -> int:
    names = {"type", "id", "roll", "chain_sha256", "wrapped_sha256"}
    said = jose.members(protector.seal.untrusted_payload, names, what="The seal")
    roll = jose.whole_number(said["roll"], what="The roll of a key protector", most=MOST_ROLLS)
    if said["type"] != _SEAL:
        raise MalformedDocument("The seal is not a seal.")
    may_seal = chain.parties[:1] if roll == 0 else chain.parties  # the first key is the owner's own
    sealer = next((party for party in may_seal if jose.thumbprint(party.signing) == protector.seal.kid), None)
    if sealer is None:
        raise ProtectorSeal("The key was sealed by somebody who may not seal it.")
    if not jose.holds(protector.seal, sealer.signing):
        raise ProtectorSeal(f"The seal of {sealer.name} does not hold.")
    covered = (str(protector.untrusted_id), _digest(chain.links))
    if (said["id"], said["chain_sha256"]) != covered or said["wrapped_sha256"] != wrapped.digest(protector.wrapped):
        raise ProtectorSeal("The seal is not over this chain and this key.")
    return roll


def _digest(chain: Sequence[str]) -> str:
    return hashlib.sha256(jose.canonical(list(chain))).hexdigest()


def open_protector(protector: VerifiedProtector, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the transport key by the encryption key of one of the protector's parties."""
    return wrapped.decrypt(protector.wrapped, key)
