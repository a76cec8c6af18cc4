"""Disks for tests: partition tables, and images in every format of one content."""

import subprocess
from pathlib import Path
from struct import pack
from typing import Any
from uuid import UUID

MIB = 1 << 20
ESP = UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").bytes_le
ROOT = UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709").bytes_le


def gpt(*partitions: tuple[str, bytes, int, int], count: int = 128, size: int = 128, at: int = 2) -> bytes:
    """The first 34 sectors of a disk with these partitions (name, type, first and last sector)."""
    header = b"EFI PART".ljust(72, b"\0") + pack("<QII", at, count, size)
    entries = b"".join(
        kind + bytes([number]) * 16 + pack("<QQQ", first, last, 0) + name.encode("utf-16-le").ljust(72, b"\0")
        for number, (name, kind, first, last) in enumerate(partitions, start=1)
    )
    return (bytes(512) + header.ljust(512, b"\0") + entries).ljust(34 * 512, b"\0")


def content(*, changed: int | None = None) -> bytes:
    """A small disk: a partition table, a boot partition, a hole, a root; one byte of it changed."""
    disk = bytearray(8 * MIB + 512)
    table = gpt(("boot", ESP, 2048, 4095), ("root", ROOT, 10240, 16383))
    disk[: len(table)] = table
    disk[MIB : 2 * MIB] = b"boot" * (MIB // 4)
    disk[5 * MIB : 7 * MIB] = b"root" * (MIB // 2)
    disk[-512:] = b"last" * 128
    if changed is not None:
        disk[changed] ^= 1
    return bytes(disk)


def raw(path: Path, data: bytes) -> Path:
    """Write an image with holes where the content is zeros."""
    with path.open("wb") as file:
        for at in range(0, len(data), 4096):
            piece = data[at : at + 4096]
            if piece.strip(b"\0"):
                file.seek(at)
                file.write(piece)
        file.truncate(len(data))
    return path


def converted(source: Path, target: Path, *options: str) -> Path:
    qemu_img("convert", *options, "-O", "qcow2", source, target)
    return target


def qemu_img(*words: Any) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)
