"""`make bench`: what an attestation and a release cost, from the pure cores to a whole portal over HTTP.

Each figure is the median and the least of several runs; the ratio is to another figure of the same run, and is what
can be compared between machines and between days. Nothing is asserted about time. Takes two minutes.
"""

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.core import core_figures
from bench.figures import show
from bench.ima import ima_figures
from bench.logs import server_log
from bench.wire import wire_figures
from tests.machines import Machine, booted, booted_from
from tests.tpm_lab import Maker


@contextmanager
def lab() -> Iterator[tuple[Path, Maker, Machine]]:
    with tempfile.TemporaryDirectory(prefix="guardhouse-bench-") as name:
        folder = Path(name)
        maker = Maker(folder / "maker")
        with booted(maker, folder, name="nbg-a01", capture="secureboot-on") as machine:
            yield folder, maker, machine


def main() -> None:
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {os.cpu_count()} processors, load {load:.1f}")
    with lab() as (folder, maker, machine):
        show("The cores", core_figures(machine))
        ima, ima_notes = ima_figures()
        show("IMA lists, per 1,000 entries", ima)
        for note in ima_notes:
            print(f"  {note}")
        with booted_from(maker, folder, name="nbg-a02", log=server_log()) as server:
            for title, lines in wire_figures(maker, server, folder):
                print(f"\n{title}", *lines, sep="\n  ")


if __name__ == "__main__":
    main()
