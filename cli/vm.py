"""`guardhouse host vm`: virtual machines whose keys the portal releases to this host."""

import json
import re
import sys
from pathlib import Path

import click

from attestation.errors import Refusal
from cli.outcome import state_dir, with_exit_codes
from guardedhost import returns
from guardedhost import vm as machines
from guardedhost.errors import VmFailure
from guardedhost.machine import read_machine
from guardedhost.provision import Wanted
from guardedhost.provision import provision as provisioning
from guardedhost.qemu import NetworkCard, Qemu
from guardedhost.store import Store
from kps.core.catalog import CATALOG_LIMIT, Catalog, parse_catalog
from kps.core.order import ORDER_LIMIT, Order, parse_order
from kps.core.shielding_data import ShieldingData, verify_shielding_data

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_TAP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", re.ASCII)  # the kernel's limit; a comma would be QEMU's option
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}", re.ASCII | re.IGNORECASE)
_bundle = click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))


@click.group()
def vm() -> None:
    """Make, start and stop virtual machines. BUNDLE is a folder that `provision` or a tenant made."""


@vm.command()
@_bundle
@click.option("--tap", help="A tap device of this host, as the machine's network; else it has none.")
@click.option("--mac", help="The address of its network card, if the order asks for one (@MACAddr-1@).")
@state_dir
@with_exit_codes
def start(bundle: Path, tap: str | None, mac: str | None, folder: Path) -> None:
    """Ask the portal for the keys, and start the machine under the rules of its level."""
    card = _card(tap, mac)
    store, machine = Store(folder), read_machine(bundle)
    started = machines.start(store, machine, Qemu(store.enrolled().accel, card))
    how = ", by what its owner allows while the portal is away" if started.offline else ""
    click.echo(f"{machine.name} is running ({started.level}{how}).")


def _card(tap: str | None, mac: str | None) -> NetworkCard | None:
    if tap is None and mac is not None:
        raise VmFailure("--mac is the address of a network card, and --tap says where that goes. Give both.")
    if tap is None:
        return None
    if not _TAP.fullmatch(tap):
        raise VmFailure("--tap is the name of a tap device: 1 to 15 letters, digits, dots, dashes.")
    if mac is not None and not _MAC.fullmatch(mac):
        raise VmFailure("--mac is the address of one network card, like 52:54:00:12:34:56.")
    if not Path("/sys/class/net", tap).exists():
        raise VmFailure(f"This host has no network device {tap}. Make it: ip tuntap add {tap} mode tap")
    return NetworkCard(tap, mac)


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
@click.argument("order_path", metavar="ORDER", type=_file)
@click.option("--template", "disk", type=_file, required=True, help="The template disk, raw or qcow2.")
@click.option("--catalog", "catalog_path", type=_file, required=True, help="Its volume signature catalog.")
@click.option("--shielding-data", "data_path", type=_file, required=True, help="The tenant's shielding data file.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to make.")
@state_dir
@with_exit_codes
def provision(order_path: Path, disk: Path, catalog_path: Path, data_path: Path, out: Path, folder: Path) -> None:
    """Make a new machine as its tenant has ordered it: ORDER is the file that the portal gives.

    The disk is checked against what its signer signed, and the shielding data opens for this host only while it is
    healthy. Then start it with `guardhouse host vm start`.
    """
    order, catalog, data = _papers(order_path, catalog_path, data_path)
    wanted = Wanted(order.name, order.memory, disk, catalog, data_path, data, order.values)
    with click.progressbar(length=catalog.volume.size, label="Checking the disk", file=sys.stderr) as bar:
        made = provisioning(Store(folder), wanted, out, bar.update)
    click.echo(f"Made {out}: {data.level} VM {made.name}, key protector {made.description.id}.")


def _papers(order_path: Path, catalog_path: Path, data_path: Path) -> tuple[Order, Catalog, ShieldingData]:
    """Read what belongs to an order, and refuse papers of another one."""
    try:
        order = parse_order(_start_of(order_path, ORDER_LIMIT))
        catalog = parse_catalog(_start_of(catalog_path, CATALOG_LIMIT).decode(errors="replace").strip())
        with data_path.open("rb") as file:
            data = verify_shielding_data(file)
    except Refusal as error:
        raise VmFailure(str(error)) from error
    if catalog.volume.root.hex() != order.template:
        raise VmFailure(f"The order is for another template disk than {catalog_path} describes.")
    if data.digest != order.shielding_data:
        raise VmFailure(
            f"The order is for other shielding data than {data_path}. If its owner has uploaded it again since, under a"
            " newer statement, get both anew from the portal."
        )
    return order, catalog, data


def _start_of(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit + 1)


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
