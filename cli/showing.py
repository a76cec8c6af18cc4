"""`guardhouse tenant protector show`: what an owner has said about a VM, in plain words."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from cli.backup import states_of
from cli.chains import Fabric, ask, read_chain
from cli.grants import fabric_options
from cli.passphrase import opened_owner, passphrase_file
from cli.plain import plainly
from cli.shield_file import found_in
from kps.core import jose
from kps.core.chain import ENCRYPTION_SUPPORTED, SHIELDED, VerifiedChain
from kps.core.guardian import Guardian, GuardianKeys
from kps.core.protector import PROTECTOR_LIMIT, VerifiedProtector, verify_protector
from kps.core.release_policy import in_words

LEVELS: Final = {
    SHIELDED: "shielded: the fabric's people see neither its disk, its memory on the way, nor its console.",
    ENCRYPTION_SUPPORTED: "encryption-supported: disk and virtual TPM are closed to the fabric's people, its console"
    " is not.",
}
_vm = click.Path(exists=True, path_type=Path)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def protector() -> None:
    """The key protectors of your VMs."""


@protector.command("show")
@click.argument("vm", metavar="VM", type=_vm)
@click.option("--owner", "owner_path", type=_file, help="The owner's key file, to ask fabrics with.")
@fabric_options
@passphrase_file
@plainly
def show(vm: Path, owner_path: Path | None, fabrics: tuple[Fabric, ...], passphrase_file: Path | None) -> None:
    """Verify a VM's key protector, and say what its owner has signed.

    VM is its bundle, a state file, a file with its chain, or a shielding data file. With --fabric: what that fabric
    goes by, too.
    """
    if fabrics and owner_path is None:
        raise click.UsageError("A fabric tells only the owner: give --owner too.")
    chain = read_chain(vm)
    for line in (*described(chain), *_key(vm)):
        click.echo(line)
    if owner_path is None or not fabrics:
        return
    owner = opened_owner(owner_path, passphrase_file)
    for fabric in fabrics:
        click.echo(_compared(chain, fabric, owner))


def described(chain: VerifiedChain) -> Iterator[str]:
    statement = chain.statement
    made = datetime.fromtimestamp(statement.made_at, UTC)
    yield f"Key protector {statement.id}"
    yield f"Owner {statement.owner.name}, fingerprint {statement.owner.fingerprint}"
    yield f"Statement {statement.serial}, signed {made:%Y-%m-%d %H:%M} UTC. Every signature holds."
    if statement.makes_machines:
        yield "It is shielding data. What follows is about the machines that are made from it by this statement."
    yield f"It is {LEVELS[statement.level]}"
    yield "It may run on:" if chain.guardians else "No fabric may run it."
    placed = {new.fingerprint: old.fingerprint for old, new in chain.successions}
    yield from (f"- {each.name}, fingerprint {each.fingerprint}{_placed(each, placed)}" for each in chain.guardians)
    yield "When its key may be released:"
    yield from (f"- {sentence}" for sentence in in_words(statement.policy))


def _placed(guardian: Guardian, placed: Mapping[str, str]) -> str:
    """Say of keys that the owner has not signed how they came in the place of those that he has."""
    before = placed.get(guardian.fingerprint)
    return "" if before is None else f"; its keys {before} have put these in their place"


def _key(vm: Path) -> Iterator[str]:
    """Say which start the key in a file is for; a chain's own file has no key."""
    protector = _protector(states_of(vm)[0] if vm.is_dir() else vm)
    if protector is not None:
        yield f"Its key is wrapped for exactly these and the owner. {_starts(protector.roll)}"


def _protector(path: Path) -> VerifiedProtector | None:
    shield = found_in(path)
    if shield is not None:
        return shield.data.protector
    document = jose.read_json(path.read_bytes(), limit=2 * PROTECTOR_LIMIT)
    return None if document.keys() == {"chain"} else verify_protector(document.get("protector", document))


def _starts(roll: int) -> str:
    return "Nobody has started it yet." if roll == 0 else f"It was changed {roll} times, with each start and grant."


def _compared(chain: VerifiedChain, fabric: Fabric, owner: GuardianKeys) -> str:
    answer = ask(fabric, owner, chain.statement.id, now=datetime.now(UTC))
    if answer is None:
        return f"{fabric.url} knows no such key protector of yours."
    found, held = answer
    serial, ours = found.chain.statement.serial, chain.statement.serial
    if found.chain.statement_sha256 == chain.statement_sha256:
        said = "goes by this statement"
    elif serial > ours:
        said = f"goes by statement {serial}, which is newer"
    else:
        said = f"goes by statement {serial}, and not by this one: `guardhouse tenant bring`"
    denied = " It denies every start of this VM." if held.denied else ""
    waiting = f" {len(held.waiting)} starts wait for your approval." if held.waiting else ""
    return f"{fabric.url} {said}.{denied}{waiting}"
