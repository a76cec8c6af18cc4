"""`guardhouse tenant approve`: the owner's yes to starts of a VM that wait for it, signed with the owner's key."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import click

from cli.chains import Fabric, ask, read_chain
from cli.grants import fabric_options, owner_option, vm_options
from cli.outcome import REFUSED
from cli.passphrase import opened_owner, passphrase_file
from cli.plain import plainly
from guardedhost.errors import AgentError
from guardedhost.wire import Waiting
from kps.core.guardian import GuardianKeys
from kps.core.owner_message import Approval, build_approval


@dataclass(frozen=True, slots=True)
class _Open:
    """A start that waits, at the fabric where it does."""

    fabric: Fabric
    waiting: Waiting


@click.command()
@vm_options
@owner_option
@fabric_options
@click.option("--request", "only", type=click.UUID, multiple=True, help="Of those that wait, only this one.")
@click.option("--yes", is_flag=True, help="Approve without asking about each.")
@passphrase_file
@plainly
def approve(
    vm: Path | None,
    protector: UUID | None,
    owner_path: Path,
    fabrics: tuple[Fabric, ...],
    only: tuple[UUID, ...],
    yes: bool,
    passphrase_file: Path | None,
) -> None:
    """List the starts of a VM that wait for its owner, and approve them.

    A yes is for this VM on that host, counts for half an hour and for one start.
    """
    if not fabrics or (vm is None) == (protector is None):
        raise click.UsageError("Give the VM, or its --id, and at least one --fabric.")
    identity = protector or chain_id_of(vm)
    owner = opened_owner(owner_path, passphrase_file)
    waiting = [each for each in _waiting(fabrics, owner, identity) if not only or each.waiting.id in only]
    if not waiting:
        click.echo("No start of it waits for its owner.")
        return
    for each in waiting:
        _show(each)
    chosen = _chosen(waiting, ask=None if yes else click.confirm)
    given = [_approved(each, owner, identity) for each in chosen]  # each is tried, whatever became of the others
    if not all(given):
        sys.exit(REFUSED)


def chain_id_of(vm: Path | None) -> UUID:
    if vm is None:
        raise click.UsageError("Say which VM: its bundle, or --id.")
    return read_chain(vm).statement.id


def _waiting(fabrics: Iterable[Fabric], owner: GuardianKeys, protector: UUID) -> Iterable[_Open]:
    for fabric in fabrics:
        answer = ask(fabric, owner, protector, now=datetime.now(UTC))
        if answer is None:
            click.echo(f"{fabric.url} knows no such key protector of yours.")
            continue
        _, held = answer
        if held.denied:
            click.echo(f"{fabric.url} denies every start of it, whatever you approve.")
        yield from (_Open(fabric, each) for each in held.waiting)


def _show(open_: _Open) -> None:
    waiting = open_.waiting
    click.echo(
        f"{waiting.vm} on host {waiting.host}, at {open_.fabric.url}\n"
        f"  request      {waiting.id}\n"
        f"  host         {waiting.attester}\n"
        f"  attestation  {waiting.attestation}: {waiting.mode} mode, policy v{waiting.policy_version},"
        f" {_clock(waiting.attested_at)}\n"
        f"  asked        {_clock(waiting.asked_at)}, last {_clock(waiting.asked_last)}"
    )


def _chosen(waiting: Iterable[_Open], *, ask: Callable[[str], bool] | None) -> list[_Open]:
    if ask is None:
        return list(waiting)
    return [each for each in waiting if ask(f"Approve {each.waiting.vm} on host {each.waiting.host}, once?")]


def _approved(open_: _Open, owner: GuardianKeys, protector: UUID) -> bool:
    waiting = open_.waiting
    said = Approval(
        request=waiting.id,
        protector=protector,
        attester=waiting.attester,
        owner_fingerprint=owner.guardian.fingerprint,
        at=int(datetime.now(UTC).timestamp()),
    )
    try:
        until = open_.fabric.client.approve(build_approval(said, owner))
    except AgentError as error:
        click.echo(f"{waiting.vm} on host {waiting.host} is NOT approved: {error}", err=True)
        return False
    click.echo(f"{waiting.vm} may start on host {waiting.host} once, until {_clock(until)}. Start it again there.")
    return True


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
