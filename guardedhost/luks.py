"""Makes and tries encrypted disks with QEMU's own LUKS in qcow2.

The passphrase goes by pipe, never by file or command line.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from guardedhost.errors import ImageFailure
from guardedhost.image import RAW, opened, options_of
from guardedhost.process import by_pipe
from kps.core.volume import SECTOR

# Stretching helps weak passphrases; these are 32 random bytes. Milliseconds, per key slot.
_LUKS: Final = "encrypt.format=luks,encrypt.key-secret=disk,encrypt.iter-time=10"
_TARGET, _SOURCE = "disk", "source"  # what QEMU calls the two keys
# qemu-img measures this machine by CPU time, which a kernel that counts in ticks now and then reports as none.
_CLOCK_TOO_COARSE: Final = "Unable to get accurate CPU usage"
_ATTEMPTS: Final = 20


def encrypt(source: Path, target: Path, passphrase: bytes) -> None:
    """Write what a guest sees of an image into a new encrypted one, block by block; no plain copy is made."""
    with opened(source) as image:
        size = image.size
    _fill(target, size, options_of(source), {_TARGET: passphrase})


def encrypt_bytes(content: bytes, target: Path, passphrase: bytes) -> None:
    """Write some whole sectors into a new encrypted image; they are in memory only before they are encrypted."""
    with os.fdopen(os.memfd_create("guardhouse", os.MFD_CLOEXEC), "r+b") as plain:
        plain.write(content)
        plain.flush()
        at = {"driver": "file", "filename": f"/dev/fd/{plain.fileno()}", "locking": "off"}
        keys = {_TARGET: passphrase}
        _fill(target, len(content), {"driver": RAW, "file": at}, keys, descriptors=[plain.fileno()])


def encrypt_anew(source: Path, target: Path, *, old: bytes, new: bytes) -> None:
    """Write what a guest sees of an encrypted disk into another, under another key; no plain copy is made."""
    with opened(source, passphrase=old) as image:
        size = image.size
    _fill(target, size, _encrypted(source), {_TARGET: new, _SOURCE: old})


def decrypt(source: Path, target: Path, passphrase: bytes) -> None:
    """Write what a guest sees of an encrypted disk into a plain qcow2 image, for its owner's eyes only."""
    with opened(source, passphrase=passphrase) as image:
        size = image.size
    _qemu_img(["create", "-q", "-f", "qcow2", target.name, str(size)], target.parent, {})
    target.chmod(0o600)
    options = f"driver=qcow2,file.filename={target.name}"
    _copy(_encrypted(source), options, target.parent, {_SOURCE: passphrase})


def require_opens(disk: Path, passphrase: bytes) -> int:
    """Return the size of what this passphrase opens, after the first sector was read; nothing is written.

    LUKS itself says whether the passphrase leads to the right key: its header has a digest of that.
    """
    with opened(disk, passphrase=passphrase) as image:
        image.read(0, min(SECTOR, image.size))
        return image.size


def _encrypted(source: Path) -> dict[str, object]:
    return options_of(source) | {"encrypt": {"format": "luks", "key-secret": _SOURCE}}


def _fill(
    target: Path, size: int, source: dict[str, object], keys: Mapping[str, bytes], descriptors: Sequence[int] = ()
) -> None:
    command = ["create", "-q", "-f", "qcow2", "-o", _LUKS, target.name, str(size)]
    _qemu_img(command, target.parent, {_TARGET: keys[_TARGET]})
    target.chmod(0o600)
    options = f"driver=qcow2,encrypt.key-secret={_TARGET},file.filename={target.name}"
    _copy(source, options, target.parent, keys, descriptors)


def _copy(
    source: dict[str, object], target: str, folder: Path, keys: Mapping[str, bytes], descriptors: Sequence[int] = ()
) -> None:
    command = ["convert", "-n", "--target-image-opts", f"json:{json.dumps(source)}", target]
    _qemu_img(command, folder, keys, descriptors)


def _qemu_img(command: Sequence[str], folder: Path, keys: Mapping[str, bytes], descriptors: Sequence[int] = ()) -> None:
    for _ in range(_ATTEMPTS):
        complaint = _try_qemu_img(command, folder, keys, descriptors)
        if complaint is None:
            return
        if _CLOCK_TOO_COARSE not in complaint:
            break
    raise ImageFailure(f"qemu-img {command[0]} failed: {complaint}")


def _try_qemu_img(
    command: Sequence[str], folder: Path, keys: Mapping[str, bytes], descriptors: Sequence[int]
) -> str | None:
    """Run qemu-img once, with these files open; return what it complains of when it fails."""
    verb, *rest = command
    with ExitStack() as stack:
        pipes = {name: stack.enter_context(by_pipe(key)) for name, key in keys.items()}
        objects = [f"secret,id={name},file=/dev/fd/{descriptor}" for name, descriptor in pipes.items()]
        secrets = [word for each in objects for word in ("--object", each)]
        try:
            done = subprocess.run(  # noqa: S603  (no shell; the one path in it is absolute)
                [shutil.which("qemu-img") or "qemu-img", verb, *secrets, *rest],
                cwd=folder,
                pass_fds=[*pipes.values(), *descriptors],
                check=False,
                capture_output=True,
                text=True,
            )
        except FileNotFoundError as error:
            raise ImageFailure("qemu-img is not installed (Debian: qemu-utils).") from error
    return done.stderr.strip()[-300:] if done.returncode else None
