"""`guardhouse host diagnose` as an operator sees it: a table, JSON, bundles and exit codes."""

import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardedhost import lab
from guardedhost.diagnosis.bundle import write_bundle
from guardedhost.diagnosis.checks import CHECKS, STATUSES
from guardedhost.diagnosis.trace import Trace
from guardedhost.store import Store
from tests.guardedhost.conftest import Portal
from tests.guardedhost.verifier import Verifier

RUN = "from cli.main import main; main()"
DOCS = Path(__file__).parents[2] / "docs"


def run(*arguments: object, columns: int | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", RUN, "host", "diagnose", *map(str, arguments)]
    environment = {**os.environ, **({} if columns is None else {"COLUMNS": str(columns)})}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def saved(healthy: Trace, store: Store, tmp_path: Path) -> Path:
    """A bundle of a host that passes."""
    path = tmp_path / "trace.json.gz"
    done = run("--state-dir", store.folder, "--save", path)
    assert (done.returncode, done.stderr) == (0, "")
    return path


@pytest.mark.parametrize("columns", [80, 140])
def test_the_table_fits_the_terminal_and_says_what_to_do(enrolled: Verifier, store: Store, columns: int) -> None:
    enrolled.passing = False
    done = run("--state-dir", store.folder, columns=columns)
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    named = [line.split()[:2] for line in lines if re.match(r"[a-z_]+ +(pass|fail|skipped) ", line)]
    assert [name for name, _ in named] == [check.name for check in CHECKS]
    assert dict(named)["verdict"] == "fail"
    for words in (
        "InsecureHostConfiguration. What fails: verdict.",
        "drift=1",
        "Why: It was not approved.",
        "Do: Reboot.",
    ):
        assert words in done.stdout


def test_a_healthy_host_is_exit_code_0(healthy: Trace, store: Store) -> None:
    done = run("--state-dir", store.folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("Passed. Nothing fails. Looked at ")


def test_a_portal_that_is_down_is_a_failure_like_others(healthy: Trace, store: Store, portal: Portal) -> None:
    portal.about = lambda path: (503, {})
    done = run("--state-dir", store.folder)
    assert done.returncode == 1
    assert "TransientError. What fails: portal, verdict." in done.stdout


def test_a_host_that_is_not_enrolled_is_exit_code_1(tmp_path: Path) -> None:
    done = run("--state-dir", tmp_path / "nowhere")
    assert (done.returncode, done.stderr) == (1, "")
    assert "NotConfigured" in done.stdout
    assert not (tmp_path / "nowhere").exists()


def test_json_has_the_fields_that_are_documented_and_no_others(enrolled: Verifier, store: Store) -> None:
    enrolled.passing = False
    done = run("--state-dir", store.folder, "--json")
    assert done.returncode == 1
    found: dict[str, Any] = json.loads(done.stdout)
    assert list(found) == ["status", "failures", "at", "name", "server", "attester", "agent", "checks"]
    assert (found["status"], found["failures"], found["name"]) == ("InsecureHostConfiguration", ["verdict"], "nbg-a01")
    assert [check["check"] for check in found["checks"]] == [check.name for check in CHECKS]
    assert {tuple(check) for check in found["checks"]} == {("check", "result", "what", "why", "remedy", "findings")}
    assert {check["result"] for check in found["checks"]} == {"pass", "fail", "skipped"}
    (finding,) = found["checks"][-1]["findings"]
    assert set(finding) == {"code", "substatus", "verdict", "what", "why", "remedy", "pcrs"}
    manual = (DOCS / "diagnose.md").read_text(encoding="utf-8")
    names = {*found, *found["checks"][0], *finding, *STATUSES, *(check.name for check in CHECKS)}
    assert not [name for name in names if f"`{name}`" not in manual]


def test_a_bundle_is_judged_without_the_host(saved: Path, store: Store) -> None:
    lab.stop(store.folder)
    live = run("--state-dir", store.folder)
    assert live.returncode == 1
    done = run("--bundle", saved)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Passed. Nothing fails." in done.stdout
    assert json.loads(run("--bundle", saved, "--json").stdout)["status"] == "Passed"


def test_a_bundle_of_a_failing_host_fails_with_the_same_words(enrolled: Verifier, store: Store, tmp_path: Path) -> None:
    enrolled.passing = False
    path = tmp_path / "trace.json.gz"
    live = run("--state-dir", store.folder, "--save", path)
    again = run("--bundle", path)
    assert (live.returncode, again.returncode) == (1, 1)
    assert again.stdout == live.stdout


def test_a_bundle_is_its_owners_alone_and_nothing_is_replaced(saved: Path, store: Store) -> None:
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    before = saved.read_bytes()
    done = run("--state-dir", store.folder, "--save", saved)
    assert done.returncode == 2
    assert "File exists" in done.stderr
    assert saved.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_a_damaged_bundle_is_exit_code_2_with_one_sentence(saved: Path, content: bytes | None) -> None:
    saved.write_bytes(saved.read_bytes()[:-20] if content is None else content)
    done = run("--bundle", saved)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{saved}: ")
    assert done.stderr.count("\n") == 1


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    assert run("--bundle", path).returncode == 2
    path.touch()
    both = run("--bundle", path, "--save", tmp_path / "other")
    assert both.returncode == 2
    assert "use one of them" in both.stderr
    assert run("--save", tmp_path / "no" / "such" / "folder", "--state-dir", tmp_path / "state").returncode == 2


def test_what_a_bundle_says_cannot_move_the_cursor(healthy: Trace, tmp_path: Path) -> None:
    assert healthy.portal is not None
    odd = replace(healthy, portal=replace(healthy.portal, fabric="\x1b[2J\nverdict pass"))
    path = tmp_path / "trace"
    path.write_bytes(write_bundle(odd))
    shown = run("--bundle", path)
    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout
    assert "\\u001b[2J\\u000averdict pass" in shown.stdout
