"""`guardhouse host vm`: virtual machines whose keys the portal releases to this host."""

import json
from pathlib import Path

import click

from cli.outcome import state_dir, with_exit_codes
from guardedhost import returns
from guardedhost import vm as machines
from guardedhost.errors import VmFailure
from guardedhost.machine import read_machine
from guardedhost.qemu import Qemu
from guardedhost.store import Store

_bundle = click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.group()
def vm() -> None:
    """Start and stop virtual machines. BUNDLE is the folder that `guardhouse tenant protect` made."""


@vm.command()
@_bundle
@state_dir
@with_exit_codes
def start(bundle: Path, folder: Path) -> None:
    """Ask the portal for the keys, and start the machine under the rules of its level."""
    store, machine = Store(folder), read_machine(bundle)
    started = machines.start(store, machine, Qemu(store.enrolled().accel))
    how = ", by what its owner allows while the portal is away" if started.offline else ""
    click.echo(f"{machine.name} is running ({started.level}{how}).")


@vm.command()
@_bundle
@click.option("--wait", "patience", type=click.FloatRange(min=0), default=30.0, show_default=True)
@state_dir
@with_exit_codes
def stop(bundle: Path, patience: float, folder: Path) -> None:
    """Ask the guest to power off, and switch it off when it has not after --wait seconds; then tell the portal."""
    machine, untold = returns.stop(Store(folder), bundle, Qemu(), patience=patience)
    click.echo(f"{machine.name} is off.")
    if untold is not None:
        click.echo(f"The portal was not told, and will be by the daemon: {untold}", err=True)


@vm.command()
@click.argument("bundles", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@state_dir
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@with_exit_codes
def status(bundles: tuple[Path, ...], folder: Path, as_json: bool) -> None:
    """Show the state of BUNDLES, or of all that were started here."""
    states = {}
    for bundle in bundles or Store(folder).machines():
        try:
            machine = read_machine(bundle)
        except VmFailure as error:
            click.echo(str(error), err=True)
            continue
        states[machine.name] = Qemu().state(machine)
    if as_json:
        click.echo(json.dumps(states))
        return
    for name, state in sorted(states.items()):
        click.echo(f"{name}: {state}")
