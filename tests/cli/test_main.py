"""The command as a whole: what it offers, and that it needs neither Django nor a TPM stack to say so."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cli.main import main

RUN = "from cli.main import main; main()"


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    for name, command in group.commands.items():
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", commands(main), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert result.output.split("Options:")[0].strip().count("\n") >= 2, "a sentence besides the usage"


def test_the_groups_are_those_of_the_people_who_use_them() -> None:
    assert {"host", "tenant", "lab", "inspect"} <= set(main.commands)
    assert {"eventlog", "ima", "quote", "ek"} == set(commands_of("inspect"))
    assert {"enrol", "attest", "diagnose", "rehearse", "run", "status", "vm"} == set(commands_of("host"))
    assert {"provision", "start", "stop", "status"} == set(commands_of("host", "vm"))


def commands_of(*path: str) -> set[str]:
    group: click.Command = main
    for name in path:
        assert isinstance(group, click.Group)
        group = group.commands[name]
    assert isinstance(group, click.Group)
    return set(group.commands)


def test_the_command_starts_without_django_and_without_a_tpm_stack() -> None:
    program = (
        "import sys\n"
        "class Absent:\n"
        " def find_spec(self, name, path=None, target=None):\n"
        "  if name.split('.')[0] in ('django', 'rest_framework', 'channels', 'tpm2_pytss', 'fabric'):\n"
        "   raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import cli.main"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("host", "enrol"),
        ("host", "dance"),
        ("host", "vm", "start", "/nowhere"),
        ("lab", "host", "--name", "x", "--dir", "/nowhere", "--boot-log", "/nowhere/log"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).returncode == 2


@pytest.mark.parametrize("command", [("attest",), ("status",), ("status", "--json")])
def test_a_host_that_is_not_enrolled_is_told_what_to_do(tmp_path: Path, command: tuple[str, ...]) -> None:
    done = run("host", *command, "--state-dir", str(tmp_path / "state"))
    assert done.returncode == 1
    assert "run `guardhouse host enrol`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_tpm_is_a_sentence(tmp_path: Path) -> None:
    done = run(
        "host", "enrol", "--server", "http://127.0.0.1:9", "--tcti", "device:/nowhere", "--state-dir", str(tmp_path)
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "There is no TPM at device:/nowhere" in done.stderr


def test_plain_http_to_another_machine_is_refused(tmp_path: Path) -> None:
    done = run("host", "enrol", "--server", "http://portal.example", "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert "must be reached by https" in done.stderr
