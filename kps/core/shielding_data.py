"""The shielding data file: what a tenant prepares once, and any number of its machines are made from.

Its first line is the head. `signed` is what everybody may read (JWS by the owner, over the digests of the rest);
`protector` is a key protector with the statement that binds each machine made from the file. What only that protector's
key opens follows as a stream of sealed pieces (`kps.core.sealed_stream`). Each machine gets a protector of its own: see
`kps.core.chain.make_machine`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import BinaryIO, Final
from uuid import UUID

from kps.core import jose, sealed_stream
from kps.core.catalog import Catalog, Version, parse_version
from kps.core.chain import Statement, VerifiedChain, sign_statement
from kps.core.guardian import Guardian, GuardianKeys
from kps.core.protector import PROTECTOR_LIMIT, VerifiedProtector, open_protector, verify_protector, wrap_again
from kps.core.shielding_content import Content, build_content, parse_content
from kps.core.substitution import MOST_NAMES, is_name
from kps.errors import (
    MalformedDocument,
    MalformedShieldingData,
    SecretsRefused,
    ShieldingDataRefused,
    TemplateNotAllowed,
)

MOST_VOLUMES: Final = 16
EQUALS: Final = "equals"
AT_LEAST: Final = "at-least"
RULES: Final = (EQUALS, AT_LEAST)
_TYPE: Final = "guardhouse-shielding-data/v1"
_SIGNED_LIMIT: Final = 32 * 1024
HEAD_LIMIT: Final = PROTECTOR_LIMIT + _SIGNED_LIMIT + 1024  # bytes
SHIELDING_DATA_LIMIT: Final = HEAD_LIMIT + sealed_stream.MOST_PIECES * (sealed_stream.PIECE_LIMIT + 1)
LONGEST_DESCRIPTION: Final = 500
_LATEST: Final = 2**37


@dataclass(frozen=True, slots=True)
class VolumeQualifier:
    """A template disk that the owner accepts: by the signer's key, its name, and a version or the versions from one."""

    signer: str  # the thumbprint of its key
    name: str
    rule: str
    version: Version

    def __str__(self) -> str:
        return f"{self.name}, version {self.version}{' or later' if self.rule == AT_LEAST else ''}"

    def against(self, catalog: Catalog) -> str | None:
        """Return why a template is not this one; None when it is."""
        if catalog.name != self.name:
            return f"The shielding data accepts {self}; this template is {catalog.name}."
        if catalog.thumbprint != self.signer:
            return (
                f"The shielding data accepts {self.name} as signed by {self.signer}, and this one was signed by"
                f" {catalog.thumbprint} ({catalog.signer_name})."
            )
        holds = catalog.version >= self.version if self.rule == AT_LEAST else catalog.version == self.version
        return None if holds else f"The shielding data accepts {self}; this is version {catalog.version}."


@dataclass(frozen=True, slots=True)
class Label:
    """What a file says of itself in the open: for whoever keeps it, and for whoever makes machines from it."""

    name: str
    description: str
    volumes: tuple[VolumeQualifier, ...]
    asks_for: frozenset[str]


@dataclass(frozen=True, slots=True)
class ShieldingData:
    """The head of a file as its owner has signed it. Who the owner is, is for the caller to find out.

    `pieces` are the digests of what follows it.
    """

    label: Label
    made_at: datetime
    protector: VerifiedProtector
    pieces: tuple[str, ...] = field(repr=False)
    document: jose.Json = field(repr=False)

    @property
    def id(self) -> UUID:
        return self.protector.id

    @property
    def owner(self) -> Guardian:
        return self.protector.owner

    @property
    def level(self) -> str:
        return self.protector.level

    @property
    def signed(self) -> str:
        """Return what the owner has signed of the file, which no later statement changes."""
        return str(self.document["signed"])

    @property
    def head(self) -> bytes:
        """Return the first line of the file."""
        return _line(self.document)

    @property
    def digest(self) -> str:
        """Return SHA-256 over the first line of the file, which names all that follows, in hexadecimal."""
        return hashlib.sha256(self.head).hexdigest()


def seal_content(content: Content, key: bytes, *, of: UUID) -> Iterator[str]:
    """Yield the pieces that follow the head of a file, each a line. Raises `MalformedShieldingData`."""
    return sealed_stream.sealed(build_content(content), key, of=of)


def build_head(
    owner: GuardianKeys, statement: Statement, pieces: Sequence[str], *, label: Label, key: bytes, now: datetime
) -> bytes:
    """Return the first line of a new file whose `pieces`, by their digests, are sealed under `key`.

    The owner and the statement's guardians find the key in it. Raises `MalformedShieldingData`.
    """
    chain = sign_statement(replace(statement, makes_machines=True), owner)
    payload = {
        "type": _TYPE,
        "id": str(statement.id),
        "name": label.name,
        "description": label.description,
        "volumes": [
            {"signer": each.signer, "name": each.name, "rule": each.rule, "version": str(each.version)}
            for each in label.volumes
        ],
        "asks_for": sorted(label.asks_for),
        "made": int(now.timestamp()),
        "pieces": list(pieces),
    }
    document = {
        "signed": jose.sign(payload, owner.signing, kid=jose.thumbprint(owner.guardian.signing)),
        "protector": wrap_again(chain, roll=0, key=key, signer=owner.signing),
    }
    head = _line(document)
    parse_head(head)
    return head


def restated(data: ShieldingData, chain: VerifiedChain, owner: GuardianKeys) -> bytes:
    """Return the head of the file under a newer statement, in which its key is wrapped for the new parties.

    What the owner has signed of the file binds the protector by its id alone, so a file need not be made anew to be
    granted to another fabric. Raises `ShieldingDataRefused` for a chain that is not the file's.
    """
    if chain.subject != data.protector.subject:
        raise ShieldingDataRefused("This statement is about another key protector than that of the shielding data.")
    key = open_protector(data.protector, owner.encryption)
    protector = wrap_again(chain, roll=0, key=key, signer=owner.signing)
    head = _line(data.document | {"protector": protector})
    parse_head(head)
    return head


def verify_shielding_data(file: BinaryIO) -> ShieldingData:
    """Return what the owner has signed, after all of the file was held against it; no more than a piece is in memory.

    No key is needed for that. Raises what `read_shielding_data` and `sealed_pieces` raise.
    """
    data = read_shielding_data(file)
    for _ in sealed_pieces(data, file):
        pass
    return data


def read_shielding_data(file: BinaryIO) -> ShieldingData:
    """Return what the owner has signed in the first line of a file, which is then at its first piece.

    Raises `MalformedShieldingData`, `ShieldingDataRefused` or what `verify_protector` raises.
    """
    return parse_head(file.readline(HEAD_LIMIT + 1))


def sealed_pieces(data: ShieldingData, file: BinaryIO) -> Iterator[str]:
    """Yield what follows the head in a file, piece by piece, each when it is as the owner has signed it.

    Raises `ShieldingDataRefused` at the first that is not, when one is missing, and when more follows.
    """
    return sealed_stream.verified(file, data.pieces)


def parse_head(line: bytes) -> ShieldingData:
    try:
        if not line.endswith(b"\n"):
            raise MalformedDocument(f"Shielding data begins with a whole line of at most {HEAD_LIMIT} bytes.")
        return _verify(jose.read_json(line, limit=HEAD_LIMIT))
    except MalformedShieldingData:
        raise
    except MalformedDocument as error:
        raise MalformedShieldingData(str(error)) from error


def _line(document: jose.Json) -> bytes:
    return jose.canonical(document) + b"\n"


def _verify(head: jose.Json) -> ShieldingData:
    document = jose.members(head, {"signed", "protector"}, what="The head of a shielding data file")
    unverified = jose.parse_jws(document["signed"], limit=_SIGNED_LIMIT)
    protector = verify_protector(document["protector"])
    owner = protector.owner
    if not protector.chain.statement.makes_machines:
        raise ShieldingDataRefused("The key protector in this file is that of a machine, not of shielding data.")
    if unverified.kid != jose.thumbprint(owner.signing) or not jose.holds(unverified, owner.signing):
        raise ShieldingDataRefused(f"The file was altered, or another key than that of {owner.name} signed it.")
    names = {"type", "id", "name", "description", "volumes", "asks_for", "made", "pieces"}
    said = jose.members(unverified.untrusted_payload, names, what="What the owner has signed")
    if said["type"] != _TYPE:
        raise MalformedDocument("This is not a shielding data file of a version known here.")
    if said["id"] != str(protector.id):
        raise ShieldingDataRefused("The parts of this file were not put together by its owner.")
    made = jose.whole_number(said["made"], what="The time of shielding data", most=_LATEST)
    pieces = sealed_stream.parse_digests(said["pieces"])
    return ShieldingData(_label(said), datetime.fromtimestamp(made, tz=UTC), protector, pieces, document)


def _label(said: jose.Json) -> Label:
    description = said["description"]
    if description != "":
        jose.text(description, what="The description of shielding data", longest=LONGEST_DESCRIPTION)
    if not isinstance(said["volumes"], list) or not 0 < len(said["volumes"]) <= MOST_VOLUMES:
        raise MalformedDocument(f"Shielding data names 1 to {MOST_VOLUMES} template disks.")
    names = said["asks_for"]
    if not isinstance(names, list) or len(names) > MOST_NAMES:
        raise MalformedDocument(f"Shielding data asks for at most {MOST_NAMES} values.")
    if not all(isinstance(name, str) and is_name(name) for name in names) or len(set(names)) != len(names):
        raise MalformedDocument("Shielding data asks for a value of a kind that is not known here, or twice.")
    return Label(
        name=jose.text(said["name"], what="The name of shielding data"),
        description=description,
        volumes=tuple(_volume(each) for each in said["volumes"]),
        asks_for=frozenset(names),
    )


def _volume(value: object) -> VolumeQualifier:
    fields = jose.members(value, {"signer", "name", "rule", "version"}, what="A template disk in shielding data")
    jose.from_b64u(fields["signer"], size=range(32, 33))
    if fields["rule"] not in RULES:
        raise MalformedDocument(f"The rule of a template's version is one of {', '.join(RULES)}.")
    name = jose.text(fields["name"], what="A template's name")
    return VolumeQualifier(fields["signer"], name, fields["rule"], parse_version(fields["version"]))


def reasons_against(data: ShieldingData, catalog: Catalog) -> tuple[str, ...]:
    """Return why no machine can be made of this template with this file: one sentence for each disk that it names."""
    against = [each.against(catalog) for each in data.label.volumes]
    return () if None in against else tuple(why for why in against if why is not None)


def require_applicable(data: ShieldingData, catalog: Catalog) -> None:
    if against := reasons_against(data, catalog):
        raise TemplateNotAllowed(" ".join(against))


def open_content(data: ShieldingData, pieces: Iterable[str], key: bytes) -> Content:
    """Return what the pieces of a file (`sealed_pieces`) keep from everybody who has not its protector's key."""
    content = parse_content(sealed_stream.opened(pieces, key, of=data.id))
    if content.asks_for != data.label.asks_for:
        raise SecretsRefused("The content of the shielding data asks for other values than the file says.")
    return content


def qualifier(signer: str, name: str, rule: str, version: str) -> VolumeQualifier:
    """Return a qualifier as a tenant writes it down; raises `MalformedShieldingData`."""
    try:
        return _volume({"signer": signer, "name": name, "rule": rule, "version": version})
    except MalformedDocument as error:
        raise MalformedShieldingData(str(error)) from error
