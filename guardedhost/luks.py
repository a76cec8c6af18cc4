"""Makes and tries encrypted disks with QEMU's own LUKS in qcow2.

The passphrase goes by pipe, never by file or command line.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from guardedhost.errors import ImageFailure
from guardedhost.image import opened, options_of
from guardedhost.process import by_pipe
from kps.core.volume import SECTOR

# Stretching helps weak passphrases; these are 32 random bytes. Milliseconds, per key slot.
_LUKS: Final = "encrypt.format=luks,encrypt.key-secret=disk,encrypt.iter-time=10"
# qemu-img measures this machine by CPU time, which a kernel that counts in ticks now and then reports as none.
_CLOCK_TOO_COARSE: Final = "Unable to get accurate CPU usage"
_ATTEMPTS: Final = 20


def encrypt(source: Path, target: Path, passphrase: bytes) -> None:
    """Write what a guest sees of an image into a new encrypted one, block by block; no plain copy is made."""
    with opened(source) as image:
        size = image.size
    _qemu_img(["create", "-q", "-f", "qcow2", "-o", _LUKS, target.name, str(size)], target.parent, passphrase)
    options = f"driver=qcow2,encrypt.key-secret=disk,file.filename={target.name}"
    command = ["convert", "-n", "--target-image-opts", f"json:{json.dumps(options_of(source))}", options]
    _qemu_img(command, target.parent, passphrase)
    target.chmod(0o600)


def require_opens(disk: Path, passphrase: bytes) -> int:
    """Return the size of what this passphrase opens, after the first sector was read; nothing is written.

    LUKS itself says whether the passphrase leads to the right key: its header has a digest of that.
    """
    with opened(disk, passphrase=passphrase) as image:
        image.read(0, min(SECTOR, image.size))
        return image.size


def _qemu_img(command: Sequence[str], folder: Path, passphrase: bytes) -> None:
    for _ in range(_ATTEMPTS):
        complaint = _try_qemu_img(command, folder, passphrase)
        if complaint is None:
            return
        if _CLOCK_TOO_COARSE not in complaint:
            break
    raise ImageFailure(f"qemu-img {command[0]} failed: {complaint}")


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
            raise ImageFailure("qemu-img is not installed (Debian: qemu-utils).") from error
    return done.stderr.strip()[-300:] if done.returncode else None
