"""What a virtual machine is to this host: its description in the bundle, and what its protection level allows.

The description is written by the tenant and kept by the hoster, so nothing in it decides about protection: the level
comes with the released keys. Names and sizes are read strictly, because they end up on QEMU's command line.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from guardedhost.errors import VmFailure

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MEMORY = range(16, (1 << 20) + 1)  # MiB


class Level(StrEnum):
    """The owner's choice, in the words of the key protector."""

    SHIELDED = "shielded"
    ENCRYPTION_SUPPORTED = "encryption-supported"


class Firmware(StrEnum):
    SECURE_BOOT = "uefi-secure-boot"
    BIOS = "bios"


@dataclass(frozen=True, slots=True)
class Machine:
    """One bundle: a folder with a description, the disk, the vTPM and the protected secrets."""

    folder: Path
    name: str
    id: str
    memory: int
    disk: str
    firmware: Firmware

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
    Level.SHIELDED: Rules(any_firmware=False, console=False, guest_agent=False),
    Level.ENCRYPTION_SUPPORTED: Rules(any_firmware=True, console=True, guest_agent=True),
}


@dataclass(frozen=True, slots=True)
class UnlockedMachine:
    """A machine with the keys that start it. They live in this process only, and are handed on by pipe."""

    machine: Machine
    level: Level
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
    """The machine in a bundle."""
    path = folder / "vm.json"
    try:
        fields = json.loads(path.read_bytes())
        if "," in str(folder.resolve()):
            raise ValueError("swtpm cannot take a folder with a comma in its path")
        return _machine(folder.resolve(), fields)
    except FileNotFoundError as error:
        raise VmFailure(f"{folder} is not a bundle: it has no vm.json.") from error
    except (KeyError, ValueError, TypeError) as error:
        raise VmFailure(f"{path} does not describe a machine: {error}.") from error


def _machine(folder: Path, fields: dict[str, Any]) -> Machine:
    machine = Machine(
        folder=folder,
        name=_named(fields["name"], "name"),
        id=_named(fields["id"], "id"),
        memory=int(fields["memory"]),
        disk=_named(fields["disk"], "disk"),
        firmware=Firmware(fields.get("firmware", Firmware.SECURE_BOOT)),
    )
    if machine.memory not in _MEMORY:
        raise ValueError("memory is in MiB, from 16 on")
    return machine


def _named(value: Any, field: str) -> str:
    """A plain name: no folder, so the disk is the bundle's own, and no comma, so QEMU reads one option."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{field} is not a plain name")
    return value
