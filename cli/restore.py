"""Gives an owner a VM back out of its bundle, with the owner's keys alone: no fabric is asked.

Whoever kept the bundle may have changed it. What the owner has not signed is read strictly, no link in it is
followed, and nothing of it is run.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from cli.backup import OpenedVm
from cli.recovery import RecoveryRefused
from cli.shielding import Wanted, building, new_secrets, seal_bundle
from guardedhost.files import write_new
from guardedhost.luks import decrypt, encrypt_anew
from kps.core.bundle import DISK_FILE, SEED_FILE
from kps.core.guardian import Guardian, GuardianKeys
from kps.core.secrets import VmSecrets

VTPM: Final = "vtpm"
VTPM_KEY: Final = "vtpm.key"
_VARIABLES: Final = "firmware-variables.fd"
_MOST_FILES: Final = 16  # of a vTPM; swtpm writes two
_LARGEST: Final = 4 * 1024 * 1024  # of each; a vTPM's state has some 10 KiB, the variables have 528


@dataclass(frozen=True, slots=True)
class Remains:
    """A VM to be brought back: the folder that it lay in, its disk, and its own secrets."""

    folder: Path
    disk: Path
    secrets: VmSecrets


def remains(found: OpenedVm, *, bundle: Path, disk: Path) -> Remains:
    if found.secrets is None:
        raise RecoveryRefused(f"{bundle} is a bare key protector: what opens a disk lies beside it in a state file.")
    return Remains(bundle if bundle.is_dir() else bundle.parent, disk, found.secrets)


def restore_plain(vm: Remains, folder: Path) -> None:
    """Make `folder` with the disk in the plain, and the vTPM with its key beside it."""
    with building(folder) as made:
        if _copy_machine_state(vm.folder, made):
            write_new(made / VTPM_KEY, vm.secrets.vtpm_key.encode())
        decrypt(vm.disk, made / DISK_FILE, vm.secrets.disk_passphrase.encode())
        if (seed := _seed(vm.folder)) is not None:
            decrypt(seed, made / SEED_FILE, vm.secrets.disk_passphrase.encode())


def restore_anew(
    vm: Remains, wanted: Wanted, owner: GuardianKeys, guardians: Sequence[Guardian], *, folder: Path, now: datetime
) -> UUID:
    """Make `folder`, a bundle under new keys; return its key protector's id.

    Only the vTPM keeps its key, with what the guest has sealed to it: swtpm changes none.
    """
    fresh, old = new_secrets(), vm.secrets
    with building(folder) as made:
        if _copy_machine_state(vm.folder, made):
            fresh = replace(fresh, vtpm_key=old.vtpm_key)
        old_key, new_key = old.disk_passphrase.encode(), fresh.disk_passphrase.encode()
        encrypt_anew(vm.disk, made / DISK_FILE, old=old_key, new=new_key)
        if (seed := _seed(vm.folder)) is not None:
            encrypt_anew(seed, made / SEED_FILE, old=old_key, new=new_key)
        return seal_bundle(made, wanted, fresh, owner, guardians, now=now)


def _seed(folder: Path) -> Path | None:
    """Return what cloud-init in the VM asks for at each start, where the VM was made from shielding data."""
    seed = folder / SEED_FILE
    if not os.path.lexists(seed):
        return None
    if seed.is_symlink() or not seed.is_file():
        raise RecoveryRefused(f"{seed} is not a file.")
    return seed


def _copy_machine_state(source: Path, target: Path) -> bool:
    """Copy firmware variables and vTPM where there are any; return whether there was a vTPM."""
    if os.path.lexists(source / _VARIABLES):
        _copy(source / _VARIABLES, target / _VARIABLES)
    vtpm = source / VTPM
    if not os.path.lexists(vtpm):
        return False
    if vtpm.is_symlink() or not vtpm.is_dir():
        raise RecoveryRefused(f"{vtpm} is not a folder.")
    files = sorted(vtpm.iterdir())
    if len(files) > _MOST_FILES:
        raise RecoveryRefused(f"{vtpm} holds more than {_MOST_FILES} files, and is no virtual TPM.")
    (target / VTPM).mkdir(mode=0o700)
    for each in files:
        _copy(each, target / VTPM / each.name)
    return True


def _copy(source: Path, target: Path) -> None:
    """Copy a regular file of a sane size: a link would bring a file of this machine into a bundle that is handed on."""
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise RecoveryRefused(f"{source} cannot be read, or is a link: {error.strerror}.") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RecoveryRefused(f"{source} is not a file.")
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise RecoveryRefused(f"{source} is larger than {_LARGEST} bytes, and is no part of a VM.")
    write_new(target, content)
