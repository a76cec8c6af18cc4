"""`guardhouse tenant recover`: a VM back out of its bundle, with the owner's keys alone."""

from datetime import UTC, datetime
from pathlib import Path

import click

from cli.backup import OpenedVm, disk_of, open_newest
from cli.guardians import read_guardian
from cli.owner import show_guardian
from cli.passphrase import new_passphrase_file, opened_owner, passphrase_file
from cli.plain import plainly
from cli.recovery import RecoveryRefused
from cli.restore import VTPM_KEY, remains, restore_anew, restore_plain
from cli.sheets import gather, recovered, told_fingerprint
from cli.shielding import Wanted
from guardedhost.luks import require_opens
from guardedhost.machine import read_machine
from kps.core.chain import LEVELS
from kps.core.guardian import GuardianKeys

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=click.Path(exists=True, path_type=Path))
@click.option("--owner", "owner_path", type=_file, help="The owner's key file; without it, recovery shares.")
@click.option("--share", "shares", type=_file, multiple=True, help="A file with one share. Without, type them.")
@click.option("--fingerprint", callback=told_fingerprint, help="The owner's, when it is not on the shares.")
@click.option("--disk", type=_file, help="The disk, when it does not lie in the bundle.")
@click.option("--plain", is_flag=True, help="INSECURE: write the disk unencrypted, and the vTPM's key beside it.")
@click.option("--guardian", "guardians", type=_file, multiple=True, help="Who may run the new bundle. Without, nobody.")
@click.option("--level", type=click.Choice(LEVELS), help="Of the new bundle, when not as before.")
@click.option("--new-owner", type=_file, help="The key file of another owner, whose the new bundle is to be.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to make.")
@passphrase_file
@new_passphrase_file
@plainly
def recover(
    bundle: Path,
    owner_path: Path | None,
    shares: tuple[Path, ...],
    fingerprint: str | None,
    disk: Path | None,
    plain: bool,
    guardians: tuple[Path, ...],
    level: str | None,
    new_owner: Path | None,
    out: Path,
    passphrase_file: Path | None,
    new_passphrase_file: Path | None,
) -> None:
    """Get a VM back without any fabric: as a new bundle under new keys, or with --plain for any hypervisor.

    BUNDLE is the VM's folder, out of a backup or as the hoster gives it back; it is read and not changed. A state file
    alone will do where --disk names the disk.
    """
    if plain and (guardians or level or new_owner):
        raise click.UsageError("A plain disk has no guardians, no level and no owner.")
    if owner_path is not None and (shares or fingerprint):
        raise click.UsageError("Give either the owner's key file or recovery shares.")
    trusted = [read_guardian(path.read_bytes())[0] for path in guardians]
    keys = _owner(owner_path, shares, fingerprint, passphrase_file)
    found = _opened(bundle, keys)
    vm = remains(found, bundle=bundle, disk=disk or _disk(bundle))
    size = require_opens(vm.disk, vm.secrets.disk_passphrase.encode())
    click.echo(f"Its disk opens, {size // (1024 * 1024)} MiB. Copying it takes a while.")
    if plain:
        restore_plain(vm, out)
        click.echo(f"Made {out}. INSECURE: its disk is not encrypted, and {VTPM_KEY} opens its virtual TPM.")
        return
    description = read_machine(vm.folder).description
    wanted = Wanted(description.name, level or found.protector.level, description.memory, None)
    owner = GuardianKeys(found.protector.owner.name, keys.signing, keys.encryption)
    if new_owner is not None:
        owner = opened_owner(new_owner, new_passphrase_file, ask_pin=True)
    made = restore_anew(vm, wanted, owner, trusted, folder=out, now=datetime.now(UTC))
    click.echo(f"Made {out}: {wanted.level} VM {wanted.name}, new key protector {made}, of")
    show_guardian(owner.guardian)
    click.echo("These may run it:" if trusted else "Nobody may run it yet but whoever you grant it to.")
    for each in trusted:
        show_guardian(each)


def _owner(
    path: Path | None, shares: tuple[Path, ...], fingerprint: str | None, passphrase_file: Path | None
) -> GuardianKeys:
    if path is not None:
        return opened_owner(path, passphrase_file)
    return recovered(gather(shares), told=fingerprint, name="recovered").keys


def _opened(bundle: Path, keys: GuardianKeys) -> OpenedVm:
    state, found = open_newest(bundle, keys)
    click.echo(f"Opened {state}: key protector {found.protector.id}, {found.protector.level}. It named as guardians:")
    for each in found.protector.guardians:
        show_guardian(each)
    return found


def _disk(bundle: Path) -> Path:
    disk = disk_of(bundle) if bundle.is_dir() else None
    if disk is None:
        raise RecoveryRefused(f"No disk lies in {bundle}. Say with --disk where it is.")
    return disk
