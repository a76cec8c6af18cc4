"""`guardhouse tenant owner`: make the owner's key, keep it, and have it back when it is lost."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from attestation.errors import Refusal
from cli import care
from cli.drill import Attempt, on_record
from cli.owner_file import (
    change_passphrase,
    read_card,
    read_owner,
    read_owner_secret,
    read_place,
    write_owner,
    write_place,
)
from cli.owner_secret import new_secret
from cli.passphrase import new_passphrase_file, opened_token, passphrase_file, passphrase_from
from cli.plain import plainly
from cli.recovery import SHARES, split
from cli.sheets import gather, recovered, require_terminal, show_sheets, told_fingerprint, write_sheets
from cli.token import OwnerToken, Place, TokenRefused
from kps.core import jose
from kps.core.guardian import Guardian
from kps.errors import MalformedDocument

C = TypeVar("C", bound=Callable[..., Any])

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_vm = click.Path(exists=True, path_type=Path)
_new = click.Path(path_type=Path)
_owner_file = click.argument("path", metavar="OWNER.key", type=_file)
_out = click.option("--out", type=_new, required=True, help="The owner's key file to write.")
_fingerprint = click.option("--fingerprint", callback=told_fingerprint, help="The owner's, when nothing else says it.")
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
    told = click.option("--fingerprint", callback=told_fingerprint, help="The owner's, when it is not on the shares.")
    return share(told(command))


@click.group()
def owner() -> None:
    """The owner's key pair: the root of every key protector it makes."""


@owner.command("new")
@click.option("--name", required=True)
@_out
@click.option("--token", "label", help="Make the keys in the token with this label, instead of in the file.")
@passphrase_file
@plainly
def owner_new(name: str, out: Path, label: str | None, passphrase_file: Path | None) -> None:
    """Make an owner's keys and keep them in a file under a passphrase, or in a token."""
    jose.text(name, what="The owner's name")
    if label is not None:
        token = opened_token(label)
        _write_in_token(out, token, name, token.generate())
        click.echo(
            "Nobody can read the keys out of the token: without it, or one that was loaded alike, they are lost."
        )
        return
    passphrase = passphrase_from(passphrase_file, new=True)
    made = new_secret(name)
    write_owner(out, made, passphrase)
    click.echo(f"Wrote {out}. Keep it and its passphrase: without them nobody can grant your VMs to another fabric.")
    show_guardian(made.keys.guardian)
    click.echo(f"Now make recovery shares: `guardhouse tenant owner split {out}`.")


@owner.command("load")
@_owner_file
@click.option("--token", "label", required=True, help="The token's label.")
@_out
@passphrase_file
@plainly
def owner_load(path: Path, label: str, out: Path, passphrase_file: Path | None) -> None:
    """Put the keys of an owner's key file into a token too. Recovery shares go on recovering them."""
    kept = read_owner_secret(path, passphrase_from(passphrase_file, new=False))
    token = opened_token(label)
    _write_in_token(out, token, kept.name, token.admit(kept.keys))
    click.echo(f"The same keys are still in {path}. Destroy it and its copies where the token is to be the only place.")


@owner.command("find")
@click.option("--token", "label", required=True, help="The token's label.")
@click.option("--name", required=True, help="What the owner is called; the name is in no key.")
@_fingerprint
@_out
@passphrase_file
@plainly
def owner_find(label: str, name: str, fingerprint: str | None, out: Path, passphrase_file: Path | None) -> None:
    """Write the file again that leads to an owner's keys in a token."""
    jose.text(name, what="The owner's name")
    token = opened_token(label)
    found = {token.keys(name, place).guardian.fingerprint: place for place in token.places()}
    if fingerprint is None and len(found) > 1:
        raise click.UsageError(f"Several owners are in this token. Say with --fingerprint which: {', '.join(found)}.")
    place = found.get(fingerprint or next(iter(found), ""))
    if place is None:
        raise TokenRefused(f"The keys of this owner are not in the token {label}.")
    write_place(out, token.keys(name, place).guardian, place)
    click.echo(f"Wrote {out}.")
    show_guardian(read_card(out))


@owner.command("show")
@_owner_file
@_record
@plainly
def owner_show(path: Path, folder: Path | None) -> None:
    """Show name and fingerprint in an owner's key file, its recovery shares and the last drill."""
    card, place = read_card(path), read_place(path)
    show_guardian(card)
    if place is not None:
        click.echo(f"  keys in the token “{place.token}”, id {place.key_id.hex()}")
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
    _require_no_token(path)
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
    _require_no_token(path)
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
@click.option("--token", "label", help="Put the keys into the token with this label, instead of into the file.")
@_out
@passphrase_file
@plainly
def owner_recover(
    paths: tuple[Path, ...],
    fingerprint: str | None,
    name: str | None,
    label: str | None,
    out: Path,
    passphrase_file: Path | None,
) -> None:
    """Make the owner's key file again out of recovery shares, under a new passphrase, or fill another token."""
    found = recovered(gather(paths), told=fingerprint, name=name)
    if label is not None:
        token = opened_token(label)
        _write_in_token(out, token, found.name, token.admit(found.keys))
        return
    passphrase = passphrase_from(passphrase_file, new=True)
    write_owner(out, found, passphrase)
    show_guardian(read_owner(out, passphrase).guardian)
    click.echo(f"Wrote {out}.")


@owner.command("drill")
@_shares
@click.option("--owner", "owner_path", type=_file, help="An owner's key file, to compare with; it is not opened.")
@click.option("--vm", "vms", type=_vm, multiple=True, help="A VM to open: its bundle, state file or key protector.")
@click.option("--disk", type=_file, help="The disk of the one VM, when it does not lie in its bundle.")
@click.option("--copy", type=_file, help="Try this copy of the key file, or the token that it names, and no shares.")
@_record
@passphrase_file
@plainly
def owner_drill(
    paths: tuple[Path, ...],
    fingerprint: str | None,
    copy: Path | None,
    passphrase_file: Path | None,
    owner_path: Path | None,
    vms: tuple[Path, ...],
    disk: Path | None,
    folder: Path | None,
) -> None:
    """Try the recovery with the shares, or the copy, in hand: in memory, and nothing is written but how it went."""
    if copy is not None and paths:
        raise click.UsageError("One drill tries either shares or a copy.")
    if len(vms) > care.MOST_VMS or (disk is not None and len(vms) != 1):
        raise click.UsageError(f"At most {care.MOST_VMS} VMs are opened in one drill, and a --disk goes with one --vm.")
    if owner_path is not None and fingerprint is None:
        fingerprint = read_card(owner_path).fingerprint
    attempt = Attempt(fingerprint)
    with on_record(attempt, folder or care.default_folder()):
        owner = attempt.open_copy(copy, passphrase_file) if copy is not None else attempt.recover(gather(paths))
        for vm in vms:
            click.echo(attempt.open(vm, owner, disk=disk))
    tried = f"The shares {', '.join(map(str, attempt.shares))} recover" if copy is None else f"{copy} opens"
    click.echo(f"{tried} the owner {owner.guardian.fingerprint}.")
    if not vms:
        click.echo("No VM was opened. Next time give one with --vm, best out of a backup.")


def _write_in_token(out: Path, token: OwnerToken, name: str, place: Place) -> None:
    """Write the file that leads to keys in a token; without it they would lie there unused, so they go again."""
    try:
        write_place(out, token.keys(name, place).guardian, place)
    except (OSError, Refusal):
        token.destroy(place)
        raise
    click.echo(f"Wrote {out}: the keys are in the token {place.token}, which does not give them out.")
    show_guardian(read_card(out))


def _require_no_token(path: Path) -> None:
    if (place := read_place(path)) is not None:
        raise TokenRefused(
            f"The keys of {path} are in the token {place.token}. They cannot be split there, and the token's own tools"
            " change its PIN. Shares are made of a key file, whose keys `owner load` then puts into a token."
        )


def show_guardian(found: Guardian) -> None:
    click.echo(f"  {found.name}\n  fingerprint {found.fingerprint}")
