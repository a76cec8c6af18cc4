"""Disk images, raw and qcow2, read as a guest sees them: nothing is converted, nothing is written down in the plain.

An image comes from somebody else and says itself of what it is made. One that leads to further files is refused: it
could show its reader any file of this machine.
"""

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from queue import SimpleQueue
from struct import Struct
from typing import Any, Final

from guardedhost.errors import ImageFailure
from guardedhost.nbd import Nbd
from guardedhost.process import by_pipe
from kps.core.partitions import TABLE_SIZE, Partition, parse_partitions
from kps.core.volume import BLOCK_SIZE, SECTOR, Volume, block_count, block_hash, require_size, volume_of
from kps.errors import MalformedDocument

RAW: Final = "raw"
QCOW2: Final = "qcow2"
_QCOW2: Final = Struct(">4sIQ56xQ")  # magic, version, where the backing file is named, incompatible features
_EXTERNAL_DATA: Final = 4
_READERS: Final = 2
_PATIENCE: Final = 30.0

Progress = Callable[[int], None]  # is told how many bytes more have been read


def _silent(_: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Image:
    """An image that QEMU holds open for reading. `data` are the blocks that are not known to be zeros."""

    size: int
    data: frozenset[int] = field(repr=False)
    _readers: "SimpleQueue[Nbd]" = field(repr=False)

    def read(self, offset: int, length: int) -> memoryview:
        """Return what a guest would read there; threads take turns at the connections."""
        reader = self._readers.get()
        try:
            return reader.read(offset, length)
        finally:
            self._readers.put(reader)

    def partitions(self) -> tuple[Partition, ...]:
        """Return what the disk's partition table names; nothing where it has none that is known here."""
        try:
            return parse_partitions(bytes(self.read(0, min(TABLE_SIZE, self.size))))
        except MalformedDocument:
            return ()

    def volume(self, progress: Progress = _silent) -> Volume:
        """Hash everything that a guest sees. Blocks of zeros cost nothing, the others are read by two threads."""
        with ThreadPoolExecutor(_READERS) as pool:
            return volume_of(self._leaves(pool, progress), size=self.size)

    def _leaves(self, pool: ThreadPoolExecutor, progress: Progress) -> Iterator[bytes]:
        count = block_count(self.size)
        for first in range(0, count, _WINDOW):
            window = range(first, min(first + _WINDOW, count))
            if self.data.isdisjoint(window) and window.stop * BLOCK_SIZE <= self.size:
                leaves: Iterator[bytes] = repeat(_ZEROS, len(window))  # there is nothing to wait for
            else:
                leaves = pool.map(self._leaf, window)
            for number, leaf in zip(window, leaves, strict=True):
                progress(self._length(number))
                yield leaf

    def _leaf(self, number: int) -> bytes:
        length = self._length(number)
        if number not in self.data:
            return _ZEROS if length == BLOCK_SIZE else block_hash(bytes(length))
        return block_hash(self.read(number * BLOCK_SIZE, length))

    def _length(self, number: int) -> int:
        return min(BLOCK_SIZE, self.size - number * BLOCK_SIZE)


_WINDOW: Final = 256  # blocks whose hashes are waited for together
_ZEROS: Final = block_hash(bytes(BLOCK_SIZE))


@contextmanager
def opened(path: Path, *, passphrase: bytes | None = None) -> Iterator[Image]:
    """Open an image for reading, an encrypted one with its passphrase. Nothing should be writing to it."""
    options = options_of(path, encrypted=passphrase is not None)
    with tempfile.TemporaryDirectory(prefix="guardhouse-") as folder, ExitStack() as stack:
        at = Path(folder) / "nbd"
        server = stack.enter_context(_serving(options, at, passphrase))
        connections = [stack.enter_context(_connected(server, at, path)) for _ in range(_READERS)]
        readers: SimpleQueue[Nbd] = SimpleQueue()
        for each in connections:
            readers.put(each)
        size = connections[0].size
        try:
            require_size(size)
        except MalformedDocument as error:
            raise ImageFailure(f"{path}: {error}") from error
        yield Image(size, _data_blocks(at), readers)


def options_of(path: Path, *, encrypted: bool = False) -> dict[str, object]:
    """Return how QEMU is told of an image: its format as its header has it, and no file but this one."""
    path = path.resolve()
    with path.open("rb") as file:
        start = file.read(_QCOW2.size)
    try:
        driver = parse_format(start)
    except MalformedDocument as error:
        raise ImageFailure(f"{path}: {error}") from error
    options: dict[str, object] = {"driver": driver, "file": {"driver": "file", "filename": str(path)}}
    if driver == QCOW2:
        options["backing"] = None
    elif path.stat().st_size % SECTOR:  # QEMU would make up the rest
        raise ImageFailure(f"{path} is not a raw disk image: a file of whole sectors of {SECTOR} bytes.")
    if encrypted:
        options["encrypt"] = {"format": "luks", "key-secret": "disk"}
    return options


def parse_format(start: bytes) -> str:
    """Return the format of an image by its first bytes: qcow2 says that it is one, everything else is raw.

    Raises `MalformedDocument` for an overlay and for data that lie elsewhere (QEMU, docs/interop/qcow2.txt).
    """
    if not start.startswith(b"QFI\xfb"):
        return RAW
    if len(start) < _QCOW2.size:
        raise MalformedDocument("This qcow2 image ends in its header.")
    _, version, backing, features = _QCOW2.unpack_from(start)
    if version not in (2, 3):
        raise MalformedDocument(f"This is a qcow2 image of version {version}; 2 and 3 are known here.")
    if backing:
        raise MalformedDocument(
            "This qcow2 image is an overlay of another. Give one that stands alone, as “qemu-img convert” makes it."
        )
    if version == 3 and features & _EXTERNAL_DATA:
        raise MalformedDocument("This qcow2 image keeps its data in another file. Give one that stands alone.")
    return QCOW2


@contextmanager
def _serving(options: dict[str, object], at: Path, passphrase: bytes | None) -> Iterator["subprocess.Popen[bytes]"]:
    """Let qemu-nbd serve the image on a socket, as long as the caller needs it."""
    command = [_program("qemu-nbd"), "--read-only", "--persistent", f"--shared={_READERS + 1}", f"--socket={at}"]
    with ExitStack() as stack:
        descriptors = []
        if passphrase is not None:
            descriptors = [stack.enter_context(by_pipe(passphrase))]
            command += ["--object", f"secret,id=disk,file=/dev/fd/{descriptors[0]}"]
        server = subprocess.Popen(  # noqa: S603  (no shell; the path is absolute, in a JSON text)
            [*command, f"json:{json.dumps(options)}"],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stack.enter_context(_said(at).open("wb")),
        )
        try:
            yield server
        finally:
            server.terminate()
            server.wait()


@contextmanager
def _connected(server: "subprocess.Popen[bytes]", at: Path, path: Path) -> Iterator[Nbd]:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection = Nbd(at)
            break
        except (FileNotFoundError, ConnectionError) as error:
            if server.poll() is not None:
                said = _said(at).read_text(errors="replace").strip()
                raise ImageFailure(f"{path} cannot be opened: {said[-300:]}") from error
            if time.monotonic() > deadline:
                raise ImageFailure(f"qemu-nbd did not open {path} within {_PATIENCE:.0f} seconds.") from error
            time.sleep(0.01)
    with connection:
        yield connection


def _said(at: Path) -> Path:
    """Where the server of a socket writes what it complains of."""
    return at.with_suffix(".log")


def _data_blocks(at: Path) -> frozenset[int]:
    """Return the blocks of which the image does not say that they are zeros."""
    disk = f"driver=nbd,server.type=unix,server.path={at}"
    command = [_program("qemu-img"), "map", "--output=json", "--image-opts", disk]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  (no shell; a path of our own)
    if done.returncode:
        raise ImageFailure(f"qemu-img map failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    extents: list[dict[str, Any]] = json.loads(done.stdout)
    blocks: set[int] = set()
    for extent in extents:
        if not extent["zero"]:
            first, end = extent["start"] // BLOCK_SIZE, block_count(extent["start"] + extent["length"])
            blocks.update(range(first, end))
    return frozenset(blocks)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ImageFailure(f"{name} is not installed (Debian: qemu-utils).")
    return found
