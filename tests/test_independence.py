"""The agent needs no Django, nor libkrb5 outside Kerberos mode, and the portal needs no TPM library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"{{name}} is not installed here", name=name)
sys.meta_path.insert(0, Absent())
{program}
"""
AGENT = "import cli.main, guardedhost.daemon, guardedhost.vm, guardedhost.lab; cli.main.main(['--help'])"
PORTAL = (
    "from django.core.management import execute_from_command_line as run; import fabric.asgi; run(['manage', 'check'])"
)
NO_SERVER = {"django", "rest_framework", "channels", "psycopg", "granian"}


def start(program: str, absent: set[str]) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "fabric.settings"}
    code = BLOCK.format(absent=absent, program=program)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("program", "absent"),
    [
        pytest.param(AGENT, NO_SERVER, id="agent and command line without Django"),
        pytest.param(AGENT, {"gssapi"}, id="agent and command line without libkrb5"),
        pytest.param(PORTAL, {"tpm2_pytss", "cli", "guardedhost"}, id="portal without a TPM library"),
    ],
)
def test_it_starts_without_what_the_other_side_needs(program: str, absent: set[str]) -> None:
    done = start(program, absent)
    assert done.returncode == 0, done.stderr


def test_the_block_itself_works() -> None:
    assert "django is not installed here" in start("import django", {"django"}).stderr
