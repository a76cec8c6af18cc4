"""Makes a VM's bundle on the tenant's machine: encrypted disk, key protector, sealed secrets, all of it or nothing."""

import base64
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from guardedhost.files import write_new
from guardedhost.process import by_pipe
from kps.core.bundle import DISK_FILE, VM_FILE, VmDescription, VmState, build_state, build_vm, state_file
from kps.core.guardian import Guardian, GuardianKeys
from kps.core.protector import create_protector
from kps.core.secrets import VmSecrets, seal_secrets
from kps.core.wrapped import KEY_SIZE

SECTOR: Final = 512
# hlt; jmp back: a guest that idles for ever, to see a VM run without installing anything in it.
DEMO_DISK: Final = bytes.fromhex("fbf4ebfd").ljust(SECTOR - 2, b"\0") + b"\x55\xaa"
DEMO_DISK_SIZE: Final = 1024 * 1024
# Stretching helps weak passphrases; this one is 32 random bytes. Milliseconds, per key slot.
_LUKS: Final = "encrypt.format=luks,encrypt.key-secret=disk,encrypt.iter-time=10"

# qemu-img measures this machine by CPU time, which a kernel that counts in ticks now and then reports as none.
_CLOCK_TOO_COARSE: Final = "Unable to get accurate CPU usage"
_ATTEMPTS: Final = 20


class DiskFailure(Exception):
    """The encrypted disk cannot be made; the message is a sentence for the tenant."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the tenant asks for. Without a `disk` the demonstration guest is used."""

    name: str
    level: str
    memory: int
    disk: Path | None


def protect(wanted: Wanted, owner: GuardianKeys, guardians: Sequence[Guardian], *, folder: Path, now: datetime) -> UUID:
    """Make `folder`, which must not exist, in one step; return the key protector's id."""
    if folder.exists():
        raise DiskFailure(f"{folder} exists already.")
    protector_id = uuid4()
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        building = Path(temporary) / "bundle"
        building.mkdir(mode=0o700)
        _fill(building, wanted, owner, guardians, protector_id=protector_id, now=now)
        building.rename(folder)
    return protector_id


def _fill(
    building: Path,
    wanted: Wanted,
    owner: GuardianKeys,
    guardians: Sequence[Guardian],
    *,
    protector_id: UUID,
    now: datetime,
) -> None:
    key = secrets.token_bytes(KEY_SIZE)
    passphrase = base64.b64encode(secrets.token_bytes(32)).decode()
    plain = VmSecrets(vtpm_key=secrets.token_hex(32), disk_passphrase=passphrase)
    _make_disk(building / DISK_FILE, wanted.disk, passphrase.encode())
    state = VmState(
        protector=create_protector(owner, guardians, protector_id=protector_id, level=wanted.level, key=key, now=now),
        secrets=seal_secrets(plain, key, protector_id=protector_id, roll=0),
    )
    description = VmDescription(wanted.name, str(protector_id), wanted.level, wanted.memory)
    write_new(building / VM_FILE, build_vm(description))
    write_new(building / state_file(0), build_state(state))


def _make_disk(target: Path, raw: Path | None, passphrase: bytes) -> None:
    """Write a LUKS-encrypted qcow2; the passphrase goes through a pipe, never a file or a command line."""
    if raw is None:
        raw = target.with_name("demo.raw")
        raw.write_bytes(DEMO_DISK.ljust(DEMO_DISK_SIZE, b"\0"))
        _encrypt(target, raw, passphrase)
        raw.unlink()
    else:
        _encrypt(target, raw.absolute(), passphrase)


def _encrypt(target: Path, raw: Path, passphrase: bytes) -> None:
    if not raw.is_file() or not (size := raw.stat().st_size) or size % SECTOR:
        raise DiskFailure(f"{raw} is not a raw disk image: a file of whole sectors of {SECTOR} bytes.")
    _qemu_img(["create", "-q", "-f", "qcow2", "-o", _LUKS, target.name, str(size)], target.parent, passphrase)
    options = f"driver=qcow2,encrypt.key-secret=disk,file.filename={target.name}"
    _qemu_img(["convert", "-n", "--target-image-opts", "-f", "raw", str(raw), options], target.parent, passphrase)
    target.chmod(0o600)


def _qemu_img(command: Sequence[str], folder: Path, passphrase: bytes) -> None:
    for _ in range(_ATTEMPTS):
        complaint = _try_qemu_img(command, folder, passphrase)
        if complaint is None:
            return
        if _CLOCK_TOO_COARSE not in complaint:
            break
    raise DiskFailure(f"qemu-img {command[0]} failed: {complaint}")


def _try_qemu_img(command: Sequence[str], folder: Path, passphrase: bytes) -> str | None:
    """Run qemu-img once; return what it complains of when it fails."""
    verb, *rest = command
    with by_pipe(passphrase) as descriptor:
        secret = ["--object", f"secret,id=disk,file=/dev/fd/{descriptor}"]
        try:
            done = subprocess.run(  # noqa: S603  (no shell; the one path in it is absolute)
                [shutil.which("qemu-img") or "qemu-img", verb, *secret, *rest],
                cwd=folder,
                pass_fds=(descriptor,),
                check=False,
                capture_output=True,
                text=True,
            )
        except FileNotFoundError as error:
            raise DiskFailure("qemu-img is not installed (Debian: qemu-utils).") from error
    return done.stderr.strip()[-300:] if done.returncode else None
