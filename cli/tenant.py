"""`guardhouse tenant`: what a tenant does on a machine of its own, away from the fabric it does not have to trust."""

from datetime import UTC, datetime
from pathlib import Path

import click

from cli.approving import approve
from cli.grants import bring_chain, grant, level, policy, revoke
from cli.guardians import default_folder, fetch, followed, read_guardian, read_metadata, require_fingerprint, store
from cli.owner import owner
from cli.owner import show_guardian as _show
from cli.passphrase import opened_owner, passphrase_file
from cli.plain import plainly
from cli.recover import recover
from cli.shield import shield
from cli.shielding import Wanted
from cli.shielding import protect as make_bundle
from cli.showing import protector
from guardedhost.process import leave_no_dumps
from kps.core import jose
from kps.core.bundle import MEMORY, NAME
from kps.core.chain import LEVELS
from kps.core.guardian import Guardian
from kps.core.protector import PROTECTOR_LIMIT, verify_protector

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_new = click.Path(path_type=Path)
folder_option = click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), help="Where imported guardians are kept."
)
fingerprint_option = click.option("--fingerprint", help="What the fabric's people have told you by another way.")


@click.group()
def tenant() -> None:
    """Own virtual machines on a fabric without trusting its administrators."""
    leave_no_dumps()


tenant.add_command(owner)
tenant.add_command(recover)
for _command in (grant, revoke, level, policy, approve, bring_chain, protector, shield):
    tenant.add_command(_command)


@tenant.group()
def guardian() -> None:
    """The fabrics that may run your VMs."""


@guardian.command("fetch")
@click.argument("url")
@fingerprint_option
@folder_option
@plainly
def guardian_fetch(url: str, fingerprint: str | None, folder: Path | None) -> None:
    """Take a fabric's metadata from its address, compare its fingerprint, and keep it."""
    _import(fetch(url), fingerprint, folder)


@guardian.command("import")
@click.argument("path", metavar="FILE", type=_file)
@fingerprint_option
@folder_option
@plainly
def guardian_import(path: Path, fingerprint: str | None, folder: Path | None) -> None:
    """Take a fabric's metadata from a file, compare its fingerprint, and keep it."""
    _import(path.read_bytes(), fingerprint, folder)


def _import(content: bytes, fingerprint: str | None, folder: Path | None) -> None:
    metadata, token = read_metadata(content)
    found, folder = metadata.guardian, folder or default_folder()
    _show(found)
    before = followed(metadata, folder)
    if fingerprint is not None:
        require_fingerprint(found, fingerprint)
    elif before is None:
        click.confirm("Is this the fingerprint that the fabric's people have told you by another way?", abort=True)
    _say_followed(found, before)
    click.echo(f"Kept as {store(found, token, folder)}")


def _say_followed(found: Guardian, before: Guardian | None) -> None:
    if before is None:
        return
    if before.fingerprint == found.fingerprint:
        click.echo("You have compared this fingerprint before.")
        return
    click.echo("These are new keys of a guardian that you have compared; its keys before have signed them:")
    _show(before)
    click.echo("Your VMs still name the keys before. Grant the new ones, as long as the fabric opens the old.")


@tenant.command()
@click.option("--owner", "owner_path", type=_file, required=True, help="The owner's key file.")
@click.option("--guardian", "guardians", type=_file, required=True, multiple=True, help="A file that import kept.")
@click.option("--name", required=True, help="The VM's name.")
@click.option("--level", type=click.Choice(LEVELS), required=True)
@click.option("--disk", type=_file, help="A raw disk image; it is read and not changed.")
@click.option("--demo-disk", is_flag=True, help="A guest of 512 bytes that idles, to see a VM run.")
@click.option("--memory", type=click.IntRange(MEMORY[0], MEMORY[-1]), required=True, help="In MiB.")
@click.option("--out", type=_new, required=True, help="The folder to make.")
@passphrase_file
@plainly
def protect(
    owner_path: Path,
    guardians: tuple[Path, ...],
    name: str,
    level: str,
    disk: Path | None,
    demo_disk: bool,
    memory: int,
    out: Path,
    passphrase_file: Path | None,
) -> None:
    """Encrypt a VM and make its key protector: what the fabric gets, and cannot read."""
    if demo_disk == (disk is not None):
        raise click.UsageError("Give either --disk or --demo-disk.")
    if not NAME.fullmatch(name):
        raise click.UsageError("A VM's name is 1 to 64 letters, digits, dots, dashes.")
    trusted = [read_guardian(path.read_bytes())[0] for path in guardians]
    keys = opened_owner(owner_path, passphrase_file)
    made = make_bundle(Wanted(name, level, memory, disk), keys, trusted, folder=out, now=datetime.now(UTC))
    click.echo(f"Made {out}: {level} VM {name}, key protector {made}. These may run it:")
    for found in trusted:
        _show(found)


@tenant.group()
def inspect() -> None:
    """Look into what is kept in files."""


@inspect.command("protector")
@click.argument("path", metavar="FILE", type=_file)
@plainly
def inspect_protector(path: Path) -> None:
    """Verify a key protector (or a VM's state file) and show what its owner has signed."""
    document = jose.read_json(path.read_bytes(), limit=2 * PROTECTOR_LIMIT)
    verified = verify_protector(document.get("protector", document))
    click.echo(f"Key protector {verified.id}: {verified.level}, roll {verified.roll}. Every signature holds.")
    click.echo("Owner")
    _show(verified.owner)
    click.echo("May run it")
    for found in verified.guardians:
        _show(found)
