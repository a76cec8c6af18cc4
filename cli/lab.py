"""`guardhouse lab`: hosts for demonstrations and tests, with a software TPM and a captured boot."""

from pathlib import Path

import click

from cli.outcome import with_exit_codes
from guardedhost import lab as hosts

_FOLDER = click.Path(file_okay=False, path_type=Path)
_LOG = click.Path(exists=True, dir_okay=False, path_type=Path)
_folder = click.option("--dir", "folder", type=_FOLDER, required=True, help="The host's folder; also its --state-dir.")
_boot_log = click.option("--boot-log", type=_LOG, required=True, help="A captured binary_bios_measurements.")
_ima_log = click.option("--ima-log", type=_LOG, help="A captured binary_runtime_measurements.")


@click.group()
def lab() -> None:
    """Lab hosts: a software TPM and a captured boot. They prove nothing about this machine."""


@lab.command("host")
@click.option("--name", required=True, help="The host's name.")
@_folder
@_boot_log
@_ima_log
@click.option(
    "--ca-dir", "authority", type=_FOLDER, help="The TPM maker's CA, shared by several hosts; made if absent."
)
@with_exit_codes
def lab_host(name: str, folder: Path, boot_log: Path, ima_log: Path | None, authority: Path | None) -> None:
    """Make a lab host, or switch an existing one on, with the captured boot in its PCRs."""
    hosts.make_host(folder, name=name, boot_log=boot_log, ima_log=ima_log, authority=authority)
    click.echo(f"{name} is on. Enrol it: guardhouse host enrol --server URL --name {name} --state-dir {folder}")


@lab.command("reboot")
@_folder
@_boot_log
@_ima_log
@with_exit_codes
def lab_reboot(folder: Path, boot_log: Path, ima_log: Path | None) -> None:
    """Reset the TPM and replay another captured boot."""
    hosts.reboot(folder, boot_log=boot_log, ima_log=ima_log)
    click.echo("Rebooted.")


@lab.command("stop")
@_folder
@with_exit_codes
def lab_stop(folder: Path) -> None:
    """Switch the software TPM off."""
    hosts.stop(folder)
    click.echo("Off.")
