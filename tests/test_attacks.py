"""docs/attacks.md names tests for each class of attack; each of them is there, and runs on every machine."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MANUAL = (TESTS.parent / "docs" / "attacks.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+)\. .*$", MANUAL, re.MULTILINE)
NAMED = sorted(set(re.findall(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`", MANUAL)))
ELSEWHERE = ("fuzz/", "cli/", "guardedhost/")  # what is in none of them is in attestation/


def functions_of(file: str) -> dict[str, ast.FunctionDef]:
    path = TESTS / file if file.startswith(ELSEWHERE) else TESTS / "attestation" / file
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_of_the_thirteen_classes_has_tests() -> None:
    assert [str(number) for number in range(1, 14)] == ROWS
    lines = [line for line in MANUAL.splitlines() if re.match(r"\| \d+\. ", line)]
    assert all(line.count("::test_") >= 3 for line in lines)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_the_manual_names_is_there(file: str, name: str) -> None:
    found = functions_of(file)
    assert name in found
    marks = [ast.unparse(each) for each in found[name].decorator_list]
    assert not any("skip" in mark or "xfail" in mark for mark in marks)
