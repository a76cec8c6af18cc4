"""`guardhouse tenant owner`: make the owner's key, keep it, and have it back when it is lost."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from cli import care
from cli.drill import open_vm
from cli.guardians import same_fingerprint
from cli.owner_file import change_passphrase, read_card, read_owner, read_owner_secret, write_owner
from cli.owner_secret import OwnerSecret, new_secret
from cli.passphrase import new_passphrase_file, passphrase_file, passphrase_from
from cli.plain import plainly
from cli.recovery import SHARES, Share, combine, recover, split
from cli.sheets import gather, require_terminal, show_sheets, write_sheets
from kps.core import jose
from kps.core.guardian import Guardian
from kps.errors import MalformedDocument

C = TypeVar("C", bound=Callable[..., Any])

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_vm = click.Path(exists=True, path_type=Path)
_new = click.Path(path_type=Path)
_owner_file = click.argument("path", metavar="OWNER.key", type=_file)
_record = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the record of splits and drills is kept.",
)


def _shares(command: C) -> C:
    """What commands that take shares share."""
    share = click.option(
        "--share", "paths", type=_file, multiple=True, help="A file with one share. Without, type them."
    )
    told = click.option("--fingerprint", help="The owner's, when it is not on the shares.")
    return share(told(command))


@click.group()
def owner() -> None:
    """The owner's key pair: the root of every key protector it makes."""


@owner.command("new")
@click.option("--name", required=True)
@click.option("--out", type=_new, required=True)
@passphrase_file
@plainly
def owner_new(name: str, out: Path, passphrase_file: Path | None) -> None:
    """Make an owner's keys and keep them in a file under a passphrase."""
    jose.text(name, what="The owner's name")
    passphrase = passphrase_from(passphrase_file, new=True)
    made = new_secret(name)
    write_owner(out, made, passphrase)
    click.echo(f"Wrote {out}. Keep it and its passphrase: without them nobody can grant your VMs to another fabric.")
    show_guardian(made.keys.guardian)
    click.echo(f"Now make recovery shares: `guardhouse tenant owner split {out}`.")


@owner.command("show")
@_owner_file
@_record
@plainly
def owner_show(path: Path, folder: Path | None) -> None:
    """Show name and fingerprint in an owner's key file, its recovery shares and the last drill."""
    card = read_card(path)
    show_guardian(card)
    try:
        lines = care.describe(care.load(folder or care.default_folder(), card.fingerprint))
    except MalformedDocument as error:
        lines = [f"WARNING: the record of splits and drills is damaged. {error}"]
    for line in lines:
        click.echo(f"  {line}")


@owner.command("passphrase")
@_owner_file
@passphrase_file
@new_passphrase_file
@plainly
def owner_passphrase(path: Path, passphrase_file: Path | None, new_passphrase_file: Path | None) -> None:
    """Put the owner's keys under another passphrase. Copies of the file keep the old one."""
    old = passphrase_from(passphrase_file, new=False)
    read_owner(path, old)
    change_passphrase(path, old, passphrase_from(new_passphrase_file, new=True, what="New passphrase"))
    click.echo(f"{path} opens with the new passphrase. Copies of it that were made before still open with the old one.")


@owner.command("split")
@_owner_file
@click.option("--shares", type=click.IntRange(SHARES[0], SHARES[-1]), required=True, help="How many to make.")
@click.option("--threshold", type=click.IntRange(SHARES[0], SHARES[-1]), required=True, help="How many recover.")
@click.option("--out", type=_new, help="Write them into this new folder. Without it they are shown, one at a time.")
@passphrase_file
@_record
@plainly
def owner_split(
    path: Path, shares: int, threshold: int, out: Path | None, passphrase_file: Path | None, folder: Path | None
) -> None:
    """Make recovery shares: sheets of words, so many of which together are the owner, without file or passphrase."""
    if threshold > shares:
        raise click.UsageError("No more shares can be needed than are made.")
    if out is None:
        require_terminal()
    kept = read_owner_secret(path, passphrase_from(passphrase_file, new=False))
    made, now = split(kept, shares=shares, needed=threshold), datetime.now(UTC)
    if out is None:
        show_sheets(made, made=now.date())
    else:
        write_sheets(out, made, made=now.date())
        click.echo(f"Wrote {shares} shares to {out}. Together they are the owner: part them, and leave no copy here.")
    act = care.Split(int(now.timestamp()), made[0].set_name, shares, threshold)
    care.add(folder or care.default_folder(), kept.keys.guardian.fingerprint, act)
    click.echo(
        f"Any {threshold} of the {shares} shares of the set “{made[0].set_name}” recover {kept.name}. "
        "Sets made before still do too: destroy them if they are not wanted.\n"
        "Try it now: `guardhouse tenant owner drill`."
    )


@owner.command("recover")
@_shares
@click.option("--name", help="The owner's, when it is not on the shares.")
@click.option("--out", type=_new, required=True, help="The owner's key file to write.")
@passphrase_file
@plainly
def owner_recover(
    paths: tuple[Path, ...], fingerprint: str | None, name: str | None, out: Path, passphrase_file: Path | None
) -> None:
    """Make the owner's key file again out of recovery shares, under a new passphrase."""
    found = _recovered(gather(paths), told=fingerprint, name=name)
    passphrase = passphrase_from(passphrase_file, new=True)
    write_owner(out, found, passphrase)
    show_guardian(read_owner(out, passphrase).guardian)
    click.echo(f"Wrote {out}.")


@owner.command("drill")
@_shares
@click.option("--owner", "owner_path", type=_file, help="An owner's key file, to compare with; it is not opened.")
@click.option("--vm", "vms", type=_vm, multiple=True, help="A VM to open: its bundle, state file or key protector.")
@_record
@plainly
def owner_drill(
    paths: tuple[Path, ...],
    fingerprint: str | None,
    owner_path: Path | None,
    vms: tuple[Path, ...],
    folder: Path | None,
) -> None:
    """Try the recovery with the shares in hand: in memory, and nothing is written but that it was done."""
    if owner_path is not None and fingerprint is None:
        fingerprint = read_card(owner_path).fingerprint
    shares = gather(paths)
    keys = _recovered(shares, told=fingerprint, name="drill").keys
    for vm in vms:
        click.echo(f"Opened {vm}, key protector {open_vm(vm, keys)}.")
    numbers = tuple(sorted({share.number for share in shares}))
    now = int(datetime.now(UTC).timestamp())
    act = care.Drill(now, shares[0].set_name, numbers, len(vms))
    care.add(folder or care.default_folder(), keys.guardian.fingerprint, act)
    click.echo(f"The shares {', '.join(map(str, numbers))} recover the owner {keys.guardian.fingerprint}.")
    if not vms:
        click.echo("No VM was opened. Next time give one with --vm, best out of a backup.")


def _recovered(shares: Sequence[Share], *, told: str | None, name: str | None) -> OwnerSecret:
    """Return the owner with the fingerprint that was told or is on the shares, or that a person says is right."""
    name = name or next((share.untrusted_owner for share in shares if share.untrusted_owner), None)
    if name is None:
        raise click.UsageError("No name is on these shares. Say with --name what the owner is to be called.")
    jose.text(name, what="The owner's name")
    expected = same_fingerprint(told) if told is not None else _written_on(shares)
    if expected is None:
        expected = OwnerSecret(name, combine(shares)).keys.guardian.fingerprint
        click.confirm(f"Is {expected} the fingerprint on your papers?", abort=True)
    return recover(shares, name=name, fingerprint=expected)


def _written_on(shares: Sequence[Share]) -> str | None:
    return next((share.untrusted_fingerprint for share in shares if share.untrusted_fingerprint), None)


def show_guardian(found: Guardian) -> None:
    click.echo(f"  {found.name}\n  fingerprint {found.fingerprint}")
