"""Makes a VM's bundle on the tenant's machine: encrypted disk, key protector, sealed secrets, all of it or nothing."""

import base64
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from guardedhost.errors import ImageFailure
from guardedhost.files import write_new
from guardedhost.luks import encrypt
from kps.core.bundle import DISK_FILE, VM_FILE, VmDescription, VmState, build_state, build_vm, state_file
from kps.core.guardian import Guardian, GuardianKeys
from kps.core.protector import create_protector
from kps.core.secrets import VmSecrets, seal_secrets
from kps.core.wrapped import KEY_SIZE

SECTOR: Final = 512
# hlt; jmp back: a guest that idles for ever, to see a VM run without installing anything in it.
DEMO_DISK: Final = bytes.fromhex("fbf4ebfd").ljust(SECTOR - 2, b"\0") + b"\x55\xaa"
DEMO_DISK_SIZE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the tenant asks for. Without a `disk` the demonstration guest is used."""

    name: str
    level: str
    memory: int
    disk: Path | None


def protect(wanted: Wanted, owner: GuardianKeys, guardians: Sequence[Guardian], *, folder: Path, now: datetime) -> UUID:
    """Make `folder`, which must not exist, in one step; return the key protector's id."""
    with building(folder) as made:
        plain = new_secrets()
        _make_disk(made / DISK_FILE, wanted.disk, plain.disk_passphrase.encode())
        return seal_bundle(made, wanted, plain, owner, guardians, now=now)


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A folder to fill that only its owner reads; it becomes `folder` when all has gone well, and nothing otherwise."""
    if folder.exists():
        raise ImageFailure(f"{folder} exists already.")
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / "bundle"
        made.mkdir(mode=0o700)
        yield made
        made.rename(folder)


def new_secrets() -> VmSecrets:
    passphrase = base64.b64encode(secrets.token_bytes(32)).decode()
    return VmSecrets(vtpm_key=secrets.token_hex(32), disk_passphrase=passphrase)


def seal_bundle(
    folder: Path,
    wanted: Wanted,
    plain: VmSecrets,
    owner: GuardianKeys,
    guardians: Sequence[Guardian],
    *,
    now: datetime,
) -> UUID:
    """Write what describes the VM, and its secrets under a new key protector; return the protector's id."""
    key, protector_id = secrets.token_bytes(KEY_SIZE), uuid4()
    state = VmState(
        protector=create_protector(owner, guardians, protector_id=protector_id, level=wanted.level, key=key, now=now),
        secrets=seal_secrets(plain, key, protector_id=protector_id, roll=0),
    )
    description = VmDescription(wanted.name, str(protector_id), wanted.level, wanted.memory)
    write_new(folder / VM_FILE, build_vm(description))
    write_new(folder / state_file(0), build_state(state))
    return protector_id


def _make_disk(target: Path, disk: Path | None, passphrase: bytes) -> None:
    if disk is not None:
        encrypt(disk, target, passphrase)
        return
    demonstration = target.with_name("demo.raw")
    demonstration.write_bytes(DEMO_DISK.ljust(DEMO_DISK_SIZE, b"\0"))
    encrypt(demonstration, target, passphrase)
    demonstration.unlink()
