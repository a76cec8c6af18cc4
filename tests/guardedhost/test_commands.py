"""`guardhouse host` as an operator sees it: sentences, findings and exit codes."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from guardedhost.store import Store
from tests.guardedhost.conftest import ON, Portal
from tests.guardedhost.verifier import Verifier

RUN = "from cli.main import main; main()"


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def verifier(portal: Portal, store: Store) -> Verifier:
    verifier = Verifier()
    portal.answer = verifier.answer
    done = run("host", "enrol", "--server", portal.url, "--name", "nbg-a01", "--state-dir", store.folder)
    assert (done.returncode, done.stdout) == (0, "pending: Wait.\n")
    return verifier


def test_a_host_that_passes_says_so(verifier: Verifier, store: Store) -> None:
    done = run("host", "attest", "--state-dir", store.folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Passed\n", "")
    shown = run("host", "status", "--state-dir", store.folder)
    assert "Passed" in shown.stdout
    assert "Certificate abc valid until" in shown.stdout


def test_a_host_that_fails_hears_what_why_and_what_to_do(verifier: Verifier, store: Store) -> None:
    verifier.passing = False
    done = run("host", "attest", "--state-dir", store.folder)
    assert done.returncode == 1
    assert done.stdout == "InsecureHostConfiguration\n"
    for sentence in ("The command line has drift=1 added.", "It was not approved.", "Reboot."):
        assert sentence in done.stderr
    assert "drift=1" in run("host", "status", "--state-dir", store.folder).stderr


def test_json_is_for_programs_and_holds_no_secret(verifier: Verifier, store: Store) -> None:
    attested = run("host", "attest", "--json", "--state-dir", store.folder)
    fields = json.loads(attested.stdout)
    assert (fields["status"], fields["certificate"], fields["findings"]) == ("Passed", True, [])
    assert "release_secret" not in fields
    verifier.passing = False
    refused = run("host", "attest", "--json", "--state-dir", store.folder)
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["findings"][0]["pcrs"] == [8]
    status = json.loads(run("host", "status", "--json", "--state-dir", store.folder).stdout)
    assert (status["last"]["status"], status["certificate"]) == ("InsecureHostConfiguration", None)
    assert datetime.fromisoformat(status["last"]["at"]) > datetime.now(UTC) - timedelta(minutes=1)


def test_a_portal_that_is_away_is_exit_code_3(verifier: Verifier, store: Store, portal: Portal) -> None:
    portal.answer = lambda path, body: (503, {})
    done = run("host", "attest", "--state-dir", store.folder)
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot answer now (503)" in done.stderr


def test_a_refusal_is_exit_code_1_with_its_code(verifier: Verifier, store: Store, portal: Portal) -> None:
    portal.answer = lambda path, body: (403, {"code": "unauthorized_host", "detail": "This host was revoked."})
    done = run("host", "attest", "--state-dir", store.folder)
    assert done.returncode == 1
    assert done.stderr == "This host was revoked. (unauthorized_host)\n"


def test_a_machine_does_not_start_on_a_host_that_fails(verifier: Verifier, store: Store, bundle: Path) -> None:
    verifier.passing = False
    done = run("host", "vm", "start", bundle, "--state-dir", store.folder)
    assert done.returncode == 1
    assert "The command line has drift=1 added." in done.stderr
    assert sorted(path.name for path in bundle.glob("state.*")) == ["state.0.json"]
    assert run("host", "vm", "status", "--state-dir", store.folder).stdout == "web-1: stopped\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--mac", "52:54:00:12:34:56"], "Give both."),
        (["--tap", "tap0,script=/tmp/x"], "--tap is the name of a tap device"),
        (["--tap", "../lo"], "--tap is the name of a tap device"),
        (["--tap", "a-name-that-is-too-long"], "--tap is the name of a tap device"),
        (["--tap", "guardhouse-none"], "has no network device guardhouse-none. Make it: ip tuntap add"),
        (["--tap", "lo", "--mac", "52:54:00:12:34"], "like 52:54:00:12:34:56"),
        (["--tap", "lo", "--mac", "53:54:00:12:34:56"], "the address of one network card"),
        (["--tap", "lo", "--mac", "52:54:00:12:34:56,x=y"], "like 52:54:00:12:34:56"),
    ],
)
def test_a_network_that_cannot_be_is_refused_before_the_portal_is_asked(
    verifier: Verifier, store: Store, bundle: Path, options: list[str], said: str
) -> None:
    done = run("host", "vm", "start", bundle, "--state-dir", store.folder, *options)
    assert done.returncode == 1
    assert said in done.stderr
    assert not verifier.evidence


def test_a_denied_release_starts_nothing(verifier: Verifier, store: Store, bundle: Path, portal: Portal) -> None:
    def answer(path: str, body: Any) -> tuple[int, Any]:
        if path.endswith("/releases"):
            return 403, {"code": "protector_denied", "detail": "This fabric has denied this machine."}
        return verifier.answer(path, body)

    portal.answer = answer
    done = run("host", "vm", "start", bundle, "--state-dir", store.folder)
    assert done.returncode == 1
    assert "This fabric has denied this machine. (protector_denied)" in done.stderr
    assert len(verifier.evidence) == 1


def test_a_certificate_that_is_no_longer_honoured_costs_one_more_attestation(
    verifier: Verifier, store: Store, bundle: Path, portal: Portal
) -> None:
    def answer(path: str, body: Any) -> tuple[int, Any]:
        if path.endswith("/releases"):
            verifier.passing = False
            return 403, {"code": "policy_changed", "detail": "The policy has changed."}
        return verifier.answer(path, body)

    portal.answer = answer
    done = run("host", "vm", "start", bundle, "--state-dir", store.folder)
    assert done.returncode == 1
    assert "The command line has drift=1 added." in done.stderr
    assert len(verifier.evidence) == 2


def test_lab_hosts_switch_off_and_reboot(store: Store) -> None:
    assert run("lab", "reboot", "--dir", store.folder, "--boot-log", ON).returncode == 0
    assert run("lab", "stop", "--dir", store.folder).returncode == 0
    assert run("host", "attest", "--state-dir", store.folder).returncode == 1
