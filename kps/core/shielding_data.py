"""The shielding data file: what a tenant prepares once, and any number of its machines are made from.

`signed` is what everybody may read (JWS by the owner, over the digest of the rest); `protector` is a key protector with
the statement that binds each machine made from the file; `content` is what only that protector's key opens (JWE). Each
machine gets a protector of its own: see `kps.core.chain.make_machine`.
"""

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from kps.core import jose
from kps.core.catalog import Catalog, Version, parse_version
from kps.core.chain import Statement, VerifiedChain, sign_statement
from kps.core.guardian import Guardian, GuardianKeys
from kps.core.protector import VerifiedProtector, open_protector, verify_protector, wrap_again
from kps.core.shielding_content import CONTENT_LIMIT, Content, build_content, parse_content
from kps.core.substitution import MOST_NAMES, is_name
from kps.errors import (
    MalformedDocument,
    MalformedShieldingData,
    SecretsRefused,
    ShieldingDataRefused,
    TemplateNotAllowed,
)

SHIELDING_DATA_LIMIT: Final = 2 * 1024 * 1024
MOST_VOLUMES: Final = 16
EQUALS: Final = "equals"
AT_LEAST: Final = "at-least"
RULES: Final = (EQUALS, AT_LEAST)
_TYPE: Final = "guardhouse-shielding-data/v1"
_SIGNED_LIMIT: Final = 32 * 1024
_TOKEN_LIMIT: Final = CONTENT_LIMIT * 4 // 3 + 1024
LONGEST_DESCRIPTION: Final = 500
_LATEST: Final = 2**37
_ALGORITHMS: Final = ["dir", "A256GCM"]


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
    """A file as its owner has signed it. Who the owner is, is for the caller to find out."""

    label: Label
    made_at: datetime
    protector: VerifiedProtector
    content: str = field(repr=False)
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
    def digest(self) -> str:
        """Return SHA-256 over the file as `build` writes it, in hexadecimal."""
        return hashlib.sha256(jose.canonical(self.document)).hexdigest()


def build_shielding_data(
    owner: GuardianKeys, statement: Statement, content: Content, *, label: Label, key: bytes, now: datetime
) -> bytes:
    """Return a new file: the content sealed under `key`, which the owner and the statement's guardians find in it."""
    label = replace(label, asks_for=content.asks_for)
    sealed = _seal(build_content(content), key, statement.id)
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
        "content_sha256": _digest(sealed),
    }
    document = {
        "signed": jose.sign(payload, owner.signing, kid=jose.thumbprint(owner.guardian.signing)),
        "protector": wrap_again(chain, roll=0, key=key, signer=owner.signing),
        "content": sealed,
    }
    file = jose.canonical(document)
    verify_shielding_data(file)
    return file


def restated(data: ShieldingData, chain: VerifiedChain, owner: GuardianKeys) -> bytes:
    """Return the file under a newer statement: what is sealed and signed stays, its key is wrapped for the new parties.

    What the owner has signed of the file binds the protector by its id alone, so a file need not be made anew to be
    granted to another fabric. Raises `ShieldingDataRefused` for a chain that is not the file's.
    """
    if chain.subject != data.protector.subject:
        raise ShieldingDataRefused("This statement is about another key protector than that of the shielding data.")
    key = open_protector(data.protector, owner.encryption)
    protector = wrap_again(chain, roll=0, key=key, signer=owner.signing)
    file = jose.canonical(data.document | {"protector": protector})
    verify_shielding_data(file)
    return file


def verify_shielding_data(data: bytes | str) -> ShieldingData:
    """Return what the owner has signed, after every signature and digest was checked. No key is needed for that.

    Raises `MalformedShieldingData`, `ShieldingDataRefused` or what `verify_protector` raises.
    """
    try:
        return _verify(jose.read_json(data, limit=SHIELDING_DATA_LIMIT))
    except MalformedShieldingData:
        raise
    except MalformedDocument as error:
        raise MalformedShieldingData(str(error)) from error


def _verify(file: jose.Json) -> ShieldingData:
    document = jose.members(file, {"signed", "protector", "content"}, what="A shielding data file")
    unverified = jose.parse_jws(document["signed"], limit=_SIGNED_LIMIT)
    content = _token(document["content"])
    protector = verify_protector(document["protector"])
    owner = protector.owner
    if not protector.chain.statement.makes_machines:
        raise ShieldingDataRefused("The key protector in this file is that of a machine, not of shielding data.")
    if unverified.kid != jose.thumbprint(owner.signing) or not jose.holds(unverified, owner.signing):
        raise ShieldingDataRefused(f"The file was altered, or another key than that of {owner.name} signed it.")
    names = {"type", "id", "name", "description", "volumes", "asks_for", "made", "content_sha256"}
    said = jose.members(unverified.untrusted_payload, names, what="What the owner has signed")
    if said["type"] != _TYPE:
        raise MalformedDocument("This is not a shielding data file of a version known here.")
    if said["id"] != str(protector.id) or said["content_sha256"] != _digest(content):
        raise ShieldingDataRefused("The parts of this file were not put together by its owner.")
    made = jose.whole_number(said["made"], what="The time of shielding data", most=_LATEST)
    return ShieldingData(_label(said), datetime.fromtimestamp(made, tz=UTC), protector, content, document)


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


def _token(value: object) -> str:
    if not isinstance(value, str) or len(value) > _TOKEN_LIMIT or value.count(".") != 4:
        raise MalformedDocument("The content of shielding data is not a compact JWE.")
    return value


def reasons_against(data: ShieldingData, catalog: Catalog) -> tuple[str, ...]:
    """Return why no machine can be made of this template with this file: one sentence for each disk that it names."""
    against = [each.against(catalog) for each in data.label.volumes]
    return () if None in against else tuple(why for why in against if why is not None)


def require_applicable(data: ShieldingData, catalog: Catalog) -> None:
    if against := reasons_against(data, catalog):
        raise TemplateNotAllowed(" ".join(against))


def open_content(data: ShieldingData, key: bytes) -> Content:
    """Return what the file keeps from everybody who has not its protector's key."""
    first = data.content.split(".", 1)[0]
    header = jose.members(jose.read_json(jose.from_b64u(first), limit=512), {"alg", "enc", "kid"}, what="Its header")
    if header["kid"] != str(data.id):
        raise SecretsRefused("The content was sealed for another shielding data file.")
    try:
        opened = jwe.decrypt_compact(data.content, OctKey.import_key(key), registry=_registry()).plaintext
    except (JoseError, InvalidTag, ValueError) as error:
        raise SecretsRefused("The content of the shielding data does not open under this key.") from error
    content = parse_content(opened or b"")
    if content.asks_for != data.label.asks_for:
        raise SecretsRefused("The content of the shielding data asks for other values than the file says.")
    return content


def _seal(content: bytes, key: bytes, of: UUID) -> str:
    header = {"alg": "dir", "enc": "A256GCM", "kid": str(of)}
    return jwe.encrypt_compact(header, content, OctKey.import_key(key), registry=_registry())


def _registry() -> jwe.JWERegistry:
    registry = jwe.JWERegistry(algorithms=_ALGORITHMS)
    registry.max_ciphertext_length = _TOKEN_LIMIT
    return registry


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def qualifier(signer: str, name: str, rule: str, version: str) -> VolumeQualifier:
    """Return a qualifier as a tenant writes it down; raises `MalformedShieldingData`."""
    try:
        return _volume({"signer": signer, "name": name, "rule": rule, "version": version})
    except MalformedDocument as error:
        raise MalformedShieldingData(str(error)) from error
