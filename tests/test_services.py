"""The plugin that prepares the tests says what is missing instead of skipping."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import services


def test_a_missing_server_program_fails_and_names_the_package() -> None:
    with pytest.raises(pytest.UsageError, match=r"needs no-such-server: .* package no-such-package"):
        services.program("no-such-server", "no-such-package")


def test_a_server_that_ends_at_once_is_reported_with_what_it_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('the disk is full')"]
    server = services.start(command, tmp_path, user=None, stop=signal.SIGTERM)
    with pytest.raises(pytest.UsageError, match="the disk is full"):
        services.wait_until(lambda: False, server, tmp_path)


def test_a_server_is_told_to_stop_when_the_tests_are_killed(tmp_path: Path) -> None:
    program = (
        "import pathlib, signal, sys, time\n"
        "from tests import services\n"
        "server = services.start(['sleep', '60'], pathlib.Path(sys.argv[1]), user=None, stop=signal.SIGTERM)\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTEST_XDIST_WORKER": "none"}  # imported without starting anything
    command = [sys.executable, "-c", program, str(tmp_path)]
    tests = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert tests.stdout is not None
    server = int(tests.stdout.readline())
    tests.kill()
    tests.communicate()
    deadline = time.monotonic() + services.START_SECONDS
    while is_running(server):
        assert time.monotonic() < deadline, "the server outlived the tests"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Say whether a process still runs; one that has ended and waits for its new parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_callers_own_settings_do_not_reach_the_tests() -> None:
    known = {"SECRET_KEY", "STATE_DIR", "CUSTODY_FILE", "LOOPBACK_ONLY", "HASHED_STATIC", "TEST_SERVICES"}
    known |= {"DATABASE_URL", "REDIS_URL"} if os.environ[services.WITH_SERVICES] == "1" else set()
    assert {name.removeprefix("GUARDHOUSE_") for name in os.environ if name.startswith("GUARDHOUSE_")} == known
