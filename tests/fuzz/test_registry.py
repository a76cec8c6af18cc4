"""The registry of readers is complete, and its good input is good."""

import importlib
import pkgutil
from collections.abc import Iterator
from inspect import isfunction, signature
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, Target

READING = ("parse_", "decode_", "read_", "replay", "verify_", "inspect_", "open_", "binary_from_", "from_b64u")
NAMES = {target.name.partition(":")[0] for target in TARGETS}


# It asks a TPM for the key and leaves the rest to `guardedhost.jwe.open_jwe`.
ELSEWHERE = {"guardedhost.agent.open_token"}


def readers() -> Iterator[str]:
    """Every public function whose verb says that it reads what somebody else has written.

    What is given a path leaves what it finds there to another of them.
    """
    for package in ("attestation.core", "kps.core", "ledger.core", "guardedhost", "cli"):
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            module = importlib.import_module(found.name)
            for name, value in vars(module).items():
                if isfunction(value) and value.__module__ == module.__name__ and name.startswith(READING):
                    first = next(iter(signature(value).parameters.values()))
                    if first.annotation is not Path and f"{module.__name__}.{name}" not in ELSEWHERE:
                        yield f"{module.__name__}.{name}"


@pytest.mark.parametrize("name", sorted(readers()))
def test_a_reader_is_in_the_registry(name: str) -> None:
    assert name in NAMES, f"add a line for {name} to tests/fuzz/targets.py"


def test_no_two_targets_have_one_name() -> None:
    assert len({target.name for target in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_some_of_the_good_input_gives_a_value(target: Target) -> None:
    """What is damaged in the other tests is worth damaging: the reader gets past its first check."""
    assert sum(map(target.gives_a_value, target.good))
