"""What a virtual machine is to this host: its description in the bundle, and what its protection level allows.

The description is written by the tenant and kept by the hoster, so nothing in it decides about protection: the level
comes with the released keys.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from guardedhost.errors import VmFailure
from kps.core import jose
from kps.core.bundle import VM_FILE, VmDescription, parse_vm
from kps.core.chain import ENCRYPTION_SUPPORTED, SHIELDED
from kps.errors import MalformedDocument

_DESCRIPTION_LIMIT: Final = 4 * 1024


class Firmware(StrEnum):
    SECURE_BOOT = "uefi-secure-boot"
    BIOS = "bios"


@dataclass(frozen=True, slots=True)
class Machine:
    """One bundle: a folder with a description, the disk, the vTPM and the protected secrets."""

    folder: Path
    description: VmDescription
    firmware: Firmware

    @property
    def name(self) -> str:
        return self.description.name

    @property
    def run_folder(self) -> Path:
        return self.folder / "run"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a level lets the host do to a machine."""

    any_firmware: bool
    console: bool
    guest_agent: bool


RULES = {
    SHIELDED: Rules(any_firmware=False, console=False, guest_agent=False),
    ENCRYPTION_SUPPORTED: Rules(any_firmware=True, console=True, guest_agent=True),
}


@dataclass(frozen=True, slots=True)
class UnlockedMachine:
    """A machine with the keys that start it. They live in this process only, and are handed on by pipe."""

    machine: Machine
    level: str
    vtpm_key: bytes
    disk_passphrase: bytes

    def __repr__(self) -> str:
        return f"UnlockedMachine({self.machine.name!r}, {self.level})"


class Hypervisor(Protocol):
    """What starts machines: QEMU here; libvirt can be another."""

    def start(self, unlocked: UnlockedMachine) -> None:
        """Return when the machine runs. It runs on when this process ends."""

    def stop(self, machine: Machine, *, patience: float) -> None:
        """Ask the guest to power off; after `patience` seconds switch it off."""

    def state(self, machine: Machine) -> str:
        """QEMU's run state, or "stopped"."""


def read_machine(folder: Path) -> Machine:
    """The machine in a bundle, or `VmFailure` that says why it is none."""
    folder = folder.resolve()
    if "," in str(folder):
        raise VmFailure(f"{folder}: swtpm cannot take a folder with a comma in its path.")
    try:
        return Machine(folder, *parse_description((folder / VM_FILE).read_bytes()))
    except FileNotFoundError as error:
        raise VmFailure(f"{folder} is not a bundle: it has no {VM_FILE}.") from error
    except MalformedDocument as error:
        raise VmFailure(f"{folder / VM_FILE} does not describe a machine: {error}") from error


def parse_description(content: bytes) -> tuple[VmDescription, Firmware]:
    """What a bundle asks for. `firmware` is the hoster's own word; only an encryption-supported machine heeds it."""
    fields = jose.read_json(content, limit=_DESCRIPTION_LIMIT)
    try:
        firmware = Firmware(fields.pop("firmware", Firmware.SECURE_BOOT))
    except ValueError as error:
        raise MalformedDocument("The firmware of this VM is not known here.") from error
    return parse_vm(jose.canonical(fields)), firmware
