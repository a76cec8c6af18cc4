"""`make bench`: what an attestation and a release cost, from the pure cores to a whole portal over HTTP.

Each figure is the median and the least of several runs; the ratio is to another figure of the same run, and is what
can be compared between machines and between days. Nothing is asserted about time. Takes three minutes; the names of
some parts as arguments measure only those.
"""

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.audit import audit_figures
from bench.core import core_figures
from bench.figures import Figure, show
from bench.ima import ima_figures
from bench.load import load_figures
from bench.logs import server_log
from bench.verifier import verifier_figures
from bench.volume import volume_figures
from bench.wire import wire_figures
from tests.machines import booted, booted_from
from tests.tpm_lab import Maker

Part = Callable[[Maker, Path], None]


def cores(maker: Maker, folder: Path) -> None:
    with booted(maker, folder, name="nbg-a01", capture="secureboot-on") as machine:
        show("The cores", core_figures(machine))


def verifier(maker: Maker, folder: Path) -> None:
    shown("The whole verifier, CPU time", *verifier_figures(maker, folder))


def ima(maker: Maker, folder: Path) -> None:
    shown("IMA lists, per 1,000 entries", *ima_figures())


def wire(maker: Maker, folder: Path) -> None:
    with booted_from(maker, folder, name="nbg-a02", log=server_log()) as machine:
        for title, lines in wire_figures(maker, machine, folder):
            print(f"\n{title}", *lines, sep="\n  ")


def load(maker: Maker, folder: Path) -> None:
    print("\nMany hosts at a time", *load_figures(maker, folder), sep="\n  ")


def volume(maker: Maker, folder: Path) -> None:
    print("\nTemplate disks", *volume_figures(folder), sep="\n  ")


def audit(maker: Maker, folder: Path) -> None:
    with booted(maker, folder, name="nbg-a03", capture="secureboot-on") as machine:
        print("\nThe log", *audit_figures(machine, folder), sep="\n  ")


PARTS: Mapping[str, Part] = {part.__name__: part for part in (cores, verifier, ima, wire, load, volume, audit)}


def shown(title: str, figures: Sequence[Figure], notes: Sequence[str]) -> None:
    show(title, figures)
    for note in notes:
        print(f"  {note}")


@contextmanager
def lab() -> Iterator[tuple[Maker, Path]]:
    with tempfile.TemporaryDirectory(prefix="guardhouse-bench-") as name:
        yield Maker(Path(name) / "maker"), Path(name)


def main(wanted: Sequence[str]) -> None:
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        raise SystemExit(f"There is no part {unknown[0]}; there are {', '.join(PARTS)}.")
    average = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, load {average:.1f}", flush=True)
    with lab() as (maker, folder):
        for name in wanted or PARTS:
            PARTS[name](maker, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
