"""The newest word of an owner on one VM: looked up in its bundle and at fabrics, kept, and brought to them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import click

from attestation.errors import Refusal
from cli.backup import states_of
from cli.shield_file import beginning_of, found_in
from guardedhost.client import Client
from guardedhost.errors import AgentError, Refused
from guardedhost.files import write_new
from guardedhost.wire import Held
from kps.core import jose
from kps.core.chain import CHAIN_LIMIT, VerifiedChain, parse_chain, verify_chain
from kps.core.guardian import GuardianKeys
from kps.core.owner_message import Question, build_question
from kps.core.protector import PROTECTOR_LIMIT, verify_protector
from kps.errors import MalformedProtector, OwnerMessageRefused

_LIMIT: Final = 2 * PROTECTOR_LIMIT


class ChainUnclear(Refusal):
    """Which statement of the owner's is the newest cannot be said."""

    code = "chain_unclear"
    status = 409


@dataclass(frozen=True, slots=True)
class Fabric:
    """A fabric by the address of its portal."""

    url: str
    client: Client = field(repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """A chain of the owner's, and where it was."""

    chain: VerifiedChain
    where: str


def read_chain(path: Path) -> VerifiedChain:
    """Return the chain in a VM's bundle, a state file, a bare key protector, shielding data or a chain's own file."""
    file = states_of(path)[0] if path.is_dir() else path
    shielding = found_in(file)
    if shielding is not None:
        return shielding.data.protector.chain
    document = jose.read_json(beginning_of(file, limit=_LIMIT), limit=_LIMIT)
    if document.keys() == {"chain"}:
        return verify_chain([link.token for link in parse_chain(document)])
    return verify_protector(document.get("protector", document)).chain


def write_chain(path: Path, chain: VerifiedChain) -> None:
    """Write a chain as `read_chain` reads it. What is there already is never replaced."""
    write_new(path, jose.canonical(chain.document) + b"\n")


def ask(fabric: Fabric, owner: GuardianKeys, protector: UUID, *, now: datetime) -> tuple[Found, Held] | None:
    """Return what a fabric has of this owner's key protector; None when it says that it has nothing.

    What it answers is the owner's own signature or nothing. That it answers the newest, nothing proves.
    """
    question = build_question(Question(owner.guardian, protector, int(now.timestamp())), owner)
    try:
        held = fabric.client.protector(question)
    except Refused as error:
        if error.code != OwnerMessageRefused.code:
            raise
        return None
    if not isinstance(held.links, list) or len(jose.canonical(held.links)) > CHAIN_LIMIT:
        raise MalformedProtector(f"What {fabric.url} answers is larger than a chain can be.")
    chain = verify_chain(held.links)
    _require_same(chain, owner, protector, where=fabric.url)
    return Found(chain, fabric.url), held


def newest(
    owner: GuardianKeys, fabrics: Sequence[Fabric], *, vm: Path | None, protector: UUID | None, now: datetime
) -> VerifiedChain:
    """Return the owner's newest chain among those in a VM's files and at these fabrics."""
    found = []
    if vm is not None:
        found.append(Found(read_chain(vm), str(vm)))
        protector = protector or found[0].chain.statement.id
        _require_same(found[0].chain, owner, protector, where=str(vm))
    if protector is None:
        raise click.UsageError("Say which VM: its bundle, or --id with --fabric.")
    found += _at(fabrics, owner, protector, now=now)
    if not found:
        raise ChainUnclear("None of these fabrics knows this key protector of yours.")
    return _newest_of(found)


def _at(fabrics: Sequence[Fabric], owner: GuardianKeys, protector: UUID, *, now: datetime) -> Iterator[Found]:
    for fabric in fabrics:
        answer = ask(fabric, owner, protector, now=now)
        if answer is None:
            click.echo(f"{fabric.url} knows no such key protector of yours yet.")
        else:
            yield answer[0]


def _newest_of(found: Sequence[Found]) -> VerifiedChain:
    """Return the chain of the highest serial, with as many successions as any has that begins like it."""
    best = max(found, key=lambda each: (each.chain.statement.serial, len(each.chain.links)))
    rival = next((each for each in found if _rivals(each.chain, best.chain)), None)
    if rival is not None:
        raise ChainUnclear(
            f"You have signed two different statements {best.chain.statement.serial}: one is in {best.where}, the other"
            f" in {rival.where}. Give only the one of the two that is to count; the next statement ends both."
        )
    return best.chain


def _rivals(one: VerifiedChain, other: VerifiedChain) -> bool:
    same_serial = one.statement.serial == other.statement.serial
    return same_serial and one.statement_sha256 != other.statement_sha256


def _require_same(chain: VerifiedChain, owner: GuardianKeys, protector: UUID, *, where: str) -> None:
    found = chain.statement
    if found.owner.fingerprint != owner.guardian.fingerprint:
        raise OwnerMessageRefused(f"What is in {where} is of another owner: {found.owner.name}.")
    if found.id != protector:
        raise OwnerMessageRefused(f"What is in {where} is about another key protector: {found.id}.")


def bring(chain: VerifiedChain, fabrics: Sequence[Fabric]) -> bool:
    """Bring a chain to fabrics, and say of each how that went; False when one did not take it."""
    taken = [_brought(chain, fabric) for fabric in fabrics]  # each is tried, whatever the others did
    return all(taken)


def _brought(chain: VerifiedChain, fabric: Fabric) -> bool:
    try:
        serial = fabric.client.bring(chain.links)
    except AgentError as error:
        if isinstance(error, Refused) and error.code == "chain_unknown":
            click.echo(_unknown(fabric, chain))
            return True
        click.echo(f"{fabric.url} has NOT taken it: {error}", err=True)
        return False
    click.echo(f"{fabric.url}: statement {serial} is in force.")
    return True


def _unknown(fabric: Fabric, chain: VerifiedChain) -> str:
    if chain.statement.makes_machines:
        return f"{fabric.url} does not know this shielding data yet. Uploading the file there brings it."
    return f"{fabric.url} does not know this VM yet. Its first start there, or registering it, brings it."
