"""`make fuzz`: atheris over every reader of the registry, all of them in the time that is given.

Seeds are the captures; damage is that of `mutations.py` or libFuzzer's own, led by coverage. What is found lies in
var/fuzz/findings, what was learnt in var/fuzz/corpus, for the next time.
"""

import argparse
import hashlib
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

import atheris
import django
from cryptography.utils import CryptographyDeprecationWarning

import tests.services  # noqa: F401  # sets the environment that the settings are read from

with atheris.instrument_imports(include=["attestation", "kps", "ledger", "guardedhost", "cli"]):
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fabric.settings")
    django.setup()
    from tests.fuzz.mutations import mutate
    from tests.fuzz.targets import TARGETS, Target

FOLDER: Final = Path(__file__).parents[2] / "var" / "fuzz"
SLOWEST_RUN: Final = 10
MEMORY: Final = 2048
_FIGURES: Final = re.compile(r"^stat::(number_of_executed_units|peak_rss_mb): *(\d+)$", re.MULTILINE)
_COVERED: Final = re.compile(r" cov: (\d+) ")
_RAISED: Final = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Warning|Exit|Refused|Mismatch)\b.*$", re.MULTILINE)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options.add_argument("--only", default="", help="a part of the names of the targets to run")
    options.add_argument("--again", type=Path, help="run them on this file only, and show what they raise")
    asked = options.parse_args()
    chosen = [target for target in TARGETS if asked.only in target.name]
    if asked.again:
        for target in chosen:
            print(target.name, "gives a value" if target.gives_a_value(asked.again.read_bytes()) else "refuses")
        return 0
    seconds = max(1, int(asked.minutes * 60 * asked.jobs / len(chosen)) - 1)  # a second goes to starting and stopping
    print(f"{len(chosen)} readers, {seconds} s each, {asked.jobs} at once", flush=True)
    bad = [target for target, found in _campaign(chosen, seconds, jobs=asked.jobs) if found]
    print(f"{len(chosen) - len(bad)} passed, {len(bad)} failed")
    return 1 if bad else 0


def _campaign(targets: list[Target], seconds: int, *, jobs: int) -> Iterator[tuple[Target, list[Path]]]:
    """Run the targets as children of this process, which has everything loaded; give each when it is done."""
    waiting, running = list(reversed(targets)), dict[int, tuple[Target, float]]()
    while waiting or running:
        while waiting and len(running) < jobs:
            target = waiting.pop()
            running[_start(target, seconds)] = target, time.time()
        child, status = os.wait()
        target, began = running.pop(child)
        found = [path for path in _findings(target).iterdir() if path.stat().st_mtime >= began]
        _report(target, found, os.waitstatus_to_exitcode(status))
        yield target, found or ([_log(target)] if status else [])


def _start(target: Target, seconds: int) -> int:
    """Fork a child that fuzzes one target; libFuzzer ends the process by itself."""
    for folder in (_findings(target), _corpus(target), _log(target).parent):
        folder.mkdir(parents=True, exist_ok=True)
    for data in target.good:
        (_corpus(target) / hashlib.sha256(data).hexdigest()[:32]).write_bytes(data)
    child = os.fork()
    if not child:
        output = os.open(_log(target), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        _fuzz(target, seconds)
        os._exit(0)
    return child


def _fuzz(target: Target, seconds: int) -> None:
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # serial numbers that RFC 5280 forbids

    def run(data: bytes) -> None:
        target.gives_a_value(data)

    def damage(data: bytes, largest: int, seed: int) -> bytes:
        random = Random(seed)  # noqa: S311  # to be repeated, not to be secret
        if random.random() < 0.5:
            return bytes(atheris.Mutate(data, largest))
        return mutate(data, random, others=target.good, limit=largest)

    flags = [
        f"-max_total_time={seconds}",
        f"-max_len={target.limit}",
        f"-artifact_prefix={_findings(target)}/",
        f"-timeout={SLOWEST_RUN}",
        f"-rss_limit_mb={MEMORY}",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *flags, str(_corpus(target))], run, custom_mutator=damage)
    atheris.Fuzz()


def _report(target: Target, found: list[Path], code: int) -> None:
    """One line for each target; for a finding, what was raised, and how to see it again."""
    text = _log(target).read_text(errors="replace")
    figures = {name: int(value) for name, value in _FIGURES.findall(text)}
    covered = _COVERED.findall(text)
    line = f"{figures.get('number_of_executed_units', 0):>9} runs, {covered[-1] if covered else 0:>5} branches"
    line += f", {figures.get('peak_rss_mb', 0):>5} MB  {target.name}"
    print(f"{'FOUND' if found or code else 'ok':5}  {line}", flush=True)
    if found or code:
        raised = _RAISED.findall(text)
        print(f"       {raised[-1] if raised else f'ended with {code}'}; see {_log(target)}")
    for path in found:
        print(f"       again: .venv/bin/python -m tests.fuzz.campaign --only {target.name} --again {path}")


def _findings(target: Target) -> Path:
    return FOLDER / "findings" / target.name


def _corpus(target: Target) -> Path:
    return FOLDER / "corpus" / target.name


def _log(target: Target) -> Path:
    return FOLDER / "logs" / f"{target.name}.txt"


if __name__ == "__main__":
    sys.exit(main())
