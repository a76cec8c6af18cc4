"""The chain of a key protector: the owner's statement, and the successions that it allows.

The owner says everything under one signature: which protector, at which level, for which guardians, under which
release policy, and as the how-manieth word (`serial`). A change is a new statement with the next serial, and needs no
key. Guardians add nothing but their own successor: new keys of the same fabric, in the place of the old ones, and only
where the owner's policy allows it. A succession names the statement that it belongs to, so that none outlives it.

The statement of a shielding data file speaks for machines that are not there yet: a guardian whom it names makes one by
a link that is nothing but its birth, with an id that nobody can choose.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec

from attestation.core.base64url import to_b64u
from kps.core import jose
from kps.core.guardian import Guardian, GuardianKeys, parse_card
from kps.core.release_policy import ReleasePolicy, parse_policy
from kps.errors import (
    MalformedDocument,
    MalformedProtector,
    ProtectorSignature,
    ProtectorStranger,
    SuccessionNotAllowed,
)

CHAIN_LIMIT: Final = 64 * 1024
MOST_GUARDIANS: Final = 16
MOST_SUCCESSIONS: Final = 16
MOST_SERIALS: Final = 2**31 - 1
SHIELDED: Final = "shielded"
ENCRYPTION_SUPPORTED: Final = "encryption-supported"
LEVELS: Final = (SHIELDED, ENCRYPTION_SUPPORTED)
_STATEMENT_LIMIT: Final = 32 * 1024
_SUCCESSION_LIMIT: Final = 4 * 1024
_STATEMENT: Final = "guardhouse-protector/v1"
_SHIELDING: Final = "guardhouse-shielding-statement/v1"
_SUCCESSION: Final = "guardhouse-replacement/v1"
_MACHINE: Final = "guardhouse-machine/v1"
_NONCE: Final = range(16, 33)
_LATEST: Final = 2**40


@dataclass(frozen=True, slots=True)
class Statement:
    """What the owner says about a key protector; with `makes_machines` about each that its guardians will make."""

    id: UUID
    serial: int
    level: str
    owner: Guardian
    guardians: tuple[Guardian, ...]
    policy: ReleasePolicy
    made_at: int
    makes_machines: bool = False


@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """The owner's statement as its owner signed it, and the guardians as they are by now.

    A machine that was made from shielding data has that file's statement with its own id; `made_from` is the file's and
    `maker` the guardian who signed its birth. `successions` are who has put whom in its own place, in their order:
    whether these keys were still in the right hands then, no signature says.
    """

    statement: Statement
    guardians: tuple[Guardian, ...]
    links: tuple[str, ...] = field(repr=False)
    made_from: UUID | None = None
    maker: Guardian | None = None
    successions: tuple[tuple[Guardian, Guardian], ...] = ()

    @property
    def parties(self) -> tuple[Guardian, ...]:
        return (self.statement.owner, *self.guardians)

    @property
    def subject(self) -> str:
        return subject_of(self.statement.owner.fingerprint, self.statement.id)

    @property
    def statement_sha256(self) -> str:
        """Return what stands for the owner's word, whatever successions follow it."""
        return statement_digest(*self.word)

    @property
    def word(self) -> tuple[str, ...]:
        """Return the links that say what binds: the statement, and the birth of a machine that was made from it."""
        return self.links[: 1 if self.made_from is None else 2]

    @property
    def document(self) -> jose.Json:
        """Return the chain as a file or a message carries it."""
        return {"chain": list(self.links)}


def subject_of(owner_fingerprint: str, protector_id: UUID) -> str:
    """Return how the ledger names a key protector: by its owner too, since anybody can sign the id of another's."""
    return f"protector:{owner_fingerprint}/{protector_id}"


def statement_digest(*word: str) -> str:
    return hashlib.sha256("\n".join(word).encode()).hexdigest()


def sign_statement(statement: Statement, owner: GuardianKeys) -> VerifiedChain:
    """Return the chain that begins with this statement; nothing is signed that `verify_chain` would refuse."""
    if statement.owner != owner.guardian:
        raise ValueError("an owner signs its own statements")
    payload = {
        "type": _SHIELDING if statement.makes_machines else _STATEMENT,
        "id": str(statement.id),
        "serial": statement.serial,
        "level": statement.level,
        "owner": statement.owner.card,
        "guardians": [guardian.card for guardian in statement.guardians],
        "policy": statement.policy.document,
        "created": statement.made_at,
    }
    return verify_chain([jose.sign(payload, owner.signing, kid=jose.thumbprint(statement.owner.signing))])


def new_statement(
    owner: Guardian,
    guardians: Sequence[Guardian],
    *,
    protector_id: UUID,
    level: str,
    policy: ReleasePolicy,
    now: datetime,
) -> Statement:
    """Return an owner's first word about a key protector."""
    return Statement(protector_id, 0, level, owner, tuple(guardians), policy, int(now.timestamp()))


def make_machine(chain: VerifiedChain, maker: GuardianKeys, *, nonce: bytes, now: datetime) -> VerifiedChain:
    """Return the chain of a new machine, which a guardian makes under the statement of shielding data."""
    payload = {
        "type": _MACHINE,
        "statement": statement_digest(chain.links[0]),
        "guardian": maker.guardian.fingerprint,
        "nonce": to_b64u(nonce),
        "made": int(now.timestamp()),
    }
    link = jose.sign(payload, maker.signing, kid=jose.thumbprint(maker.guardian.signing))
    return verify_chain([chain.links[0], link])


def next_statement(
    chain: VerifiedChain,
    *,
    guardians: Sequence[Guardian] | None = None,
    level: str | None = None,
    policy: ReleasePolicy | None = None,
    now: datetime,
) -> Statement:
    """Return the owner's next word, which says again what is not to be another: the guardians as they are by now."""
    return replace(
        chain.statement,
        serial=chain.statement.serial + 1,
        guardians=chain.guardians if guardians is None else tuple(guardians),
        level=level or chain.statement.level,
        policy=chain.statement.policy if policy is None else policy,
        made_at=int(now.timestamp()),
    )


def succeed(chain: VerifiedChain, old: GuardianKeys, new: Guardian) -> VerifiedChain:
    """Return the chain in which a guardian has put its new keys in the place of its old ones."""
    payload = {
        "type": _SUCCESSION,
        "statement": chain.statement_sha256,
        "from": old.guardian.fingerprint,
        "guardian": new.card,
    }
    link = jose.sign(payload, old.signing, kid=jose.thumbprint(old.guardian.signing))
    return verify_chain([*chain.links, link])


def parse_chain(document: object) -> tuple[jose.Unverified, ...]:
    """Read a chain as a file or a message carries it: text, bytes or an object that was JSON.

    Raises `MalformedProtector` and nothing else; who has signed it is not looked at.
    """
    try:
        if isinstance(document, str | bytes):
            document = jose.read_json(document, limit=CHAIN_LIMIT)
        return parse_links(jose.members(document, {"chain"}, what="A chain's file")["chain"])
    except MalformedDocument as error:
        raise MalformedProtector(str(error)) from error


def parse_links(links: object) -> tuple[jose.Unverified, ...]:
    """Read the links of a chain; who has signed them is not looked at."""
    if not isinstance(links, Sequence) or isinstance(links, str) or not 0 < len(links) <= 1 + MOST_SUCCESSIONS:
        raise MalformedDocument(f"A chain is an owner's statement and at most {MOST_SUCCESSIONS} successions.")
    limits = (_STATEMENT_LIMIT, *(_SUCCESSION_LIMIT for _ in links[1:]))
    return tuple(jose.parse_jws(link, limit=limit) for link, limit in zip(links, limits, strict=True))


def verify_chain(links: object) -> VerifiedChain:
    """Return what the owner has signed, after every signature in the chain was checked.

    Who the owner is, and whether there is a newer chain, is for the caller to find out.
    """
    try:
        return verify_links(parse_links(links))
    except MalformedDocument as error:
        raise MalformedProtector(str(error)) from error


def verify_links(links: tuple[jose.Unverified, ...]) -> VerifiedChain:
    """Verify the links that `parse_links` has read."""
    statement, word = _verify_statement(links[0]), links[:1]
    made_from: UUID | None = None
    maker: Guardian | None = None
    if statement.makes_machines and len(links) > 1:
        word, made_from = links[:2], statement.id
        maker, statement = _verify_machine(links[1], statement, of=links[0])
    guardians, successions = list(statement.guardians), []
    used = [statement.owner, *guardians]
    digest = statement_digest(*(link.token for link in word))
    for link in links[len(word) :]:
        place, successor = _verify_succession(link, statement, guardians, digest=digest)
        _require_new_keys(successor, used)
        used.append(successor)
        successions.append((guardians[place], successor))
        guardians[place] = successor
    tokens = tuple(link.token for link in links)
    return VerifiedChain(statement, tuple(guardians), tokens, made_from, maker, tuple(successions))


def _verify_statement(link: jose.Unverified) -> Statement:
    names = {"type", "id", "serial", "level", "owner", "guardians", "policy", "created"}
    said = jose.members(link.untrusted_payload, names, what="The owner's statement")
    if said["type"] not in (_STATEMENT, _SHIELDING) or said["level"] not in LEVELS:
        raise MalformedDocument("The chain does not begin with an owner's statement and a level known here.")
    owner = parse_card(said["owner"])
    _require_signature(link, owner.signing, "The owner's statement", owner.name)
    if not isinstance(said["guardians"], list) or len(said["guardians"]) > MOST_GUARDIANS:
        raise MalformedDocument(f"An owner names at most {MOST_GUARDIANS} guardians.")
    parties = [owner]
    for card in said["guardians"]:
        guardian = parse_card(card)
        _require_new_keys(guardian, parties)
        parties.append(guardian)
    return Statement(
        id=jose.uuid(said["id"], what="The id of a key protector"),
        serial=jose.whole_number(said["serial"], what="The serial of the owner's statement", most=MOST_SERIALS),
        level=said["level"],
        owner=owner,
        guardians=tuple(parties[1:]),
        policy=parse_policy(said["policy"]),
        made_at=jose.whole_number(said["created"], what="The time of the owner's statement", most=_LATEST),
        makes_machines=said["type"] == _SHIELDING,
    )


def _verify_machine(link: jose.Unverified, statement: Statement, *, of: jose.Unverified) -> tuple[Guardian, Statement]:
    """Return who has made a machine, and the statement of shielding data as it stands for that.

    The machine's id is a hash over all that the guardian says of it. So no guardian can give a machine the id of
    another one, and put this statement in the place of what the owner has signed for that.
    """
    names = {"type", "statement", "guardian", "nonce", "made"}
    said = jose.members(link.untrusted_payload, names, what="The making of a machine")
    if said["type"] != _MACHINE:
        raise MalformedDocument("What follows the statement of shielding data is not the making of a machine.")
    maker = next((each for each in statement.guardians if each.fingerprint == said["guardian"]), None)
    if maker is None:
        raise ProtectorStranger("A machine was made by somebody whom the owner has not named.")
    _require_signature(link, maker.signing, f"The making of a machine by {maker.name}", maker.name)
    if said["statement"] != statement_digest(of.token):
        raise ProtectorSignature("A machine was made under another statement of the owner.")
    jose.from_b64u(said["nonce"], size=_NONCE)
    jose.whole_number(said["made"], what="The time at which a machine was made", most=_LATEST)
    return maker, replace(statement, id=_machine_id(said), makes_machines=False)


def _machine_id(said: jose.Json) -> UUID:
    """Return a UUID of version 8 (RFC 9562, 5.8): as much of the hash as one holds."""
    number = int.from_bytes(hashlib.sha256(jose.canonical(said)).digest()[:16])
    return UUID(int=number & ~(0xF000 << 64) & ~(0xC000 << 48) | 0x8000 << 64 | 0x8000 << 48)


def _verify_succession(
    link: jose.Unverified, statement: Statement, guardians: Sequence[Guardian], *, digest: str
) -> tuple[int, Guardian]:
    """Return whose place is taken, and by whom."""
    said = jose.members(link.untrusted_payload, {"type", "statement", "from", "guardian"}, what="A succession")
    if said["type"] != _SUCCESSION:
        raise MalformedDocument("A link of the chain is not a succession.")
    place = next((n for n, each in enumerate(guardians) if each.fingerprint == said["from"]), None)
    if place is None:
        raise ProtectorStranger("A guardian was added by somebody whom the owner's chain does not reach.")
    predecessor, successor = guardians[place], parse_card(said["guardian"])
    _require_signature(link, predecessor.signing, f"The succession of {predecessor.name}", predecessor.name)
    if said["statement"] != digest:
        raise ProtectorSignature("A succession was signed for another statement of the owner.")
    if not statement.policy.successors:
        raise SuccessionNotAllowed(f"The owner has not allowed {predecessor.name} to replace its keys by itself.")
    if successor.name != predecessor.name:
        raise ProtectorStranger(f"The successor of {predecessor.name} calls itself {successor.name}.")
    return place, successor


def _require_signature(link: jose.Unverified, key: ec.EllipticCurvePublicKey, what: str, signer: str) -> None:
    if link.kid != jose.thumbprint(key) or not jose.holds(link, key):
        raise ProtectorSignature(f"{what} was altered, or another key than that of {signer} signed it.")


def _require_new_keys(guardian: Guardian, parties: Sequence[Guardian]) -> None:
    known = [key for party in parties for key in (party.signing, party.encryption)]
    if guardian.signing in known or guardian.encryption in known:
        raise ProtectorStranger(f"What names {guardian.name} names a key that the chain has already.")
