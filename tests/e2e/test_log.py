"""A portal as it is served: what is recorded is in its log within seconds, and a power cut takes nothing out of it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from cli.main import main
from deploy.localfabric import Portal, free_port
from ledger.core.checkpoint import Checkpoint, verify_checkpoint
from ledger.core.note import parse_note, parse_vkey
from ledger.core.proof import parse_growth, verify_growth
from tests.e2e.wire import portal_in

pytestmark = pytest.mark.e2e
SECONDS = 15


@pytest.fixture(params=[True, False], ids=["asgi", "wsgi"])
def portal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Portal]:
    portal = portal_in(tmp_path, free_port(), {}, live=request.param, workers=1 if request.param else 2)
    yield portal
    portal.kill()


def get(portal: Portal, path: str, *, token: str = "") -> bytes:
    address = f"{portal.url}/{path}" if token else f"{portal.url}/ledger/v1/{path}"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = requests.get(address, headers=headers, timeout=5)
    answer.raise_for_status()
    return answer.content


def checkpoint(portal: Portal, *, beyond: int = 0) -> Checkpoint:
    """Return the first checkpoint that is larger; the log has some seconds for it."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            key = parse_vkey(json.loads(get(portal, "log"))["vkey"])
            found = verify_checkpoint(parse_note(get(portal, "checkpoint").decode()), key)
        except requests.HTTPError:
            pass  # it has not begun
        else:
            if found.size > beyond:
                return found
        time.sleep(0.1)
    raise AssertionError(f"nothing was put into the log:\n{portal.log()[-3000:]}")


def test_what_is_recorded_is_in_the_log_within_seconds_and_stays_there(portal: Portal, tmp_path: Path) -> None:
    portal.add_person("ada", "fabric admin")
    first = checkpoint(portal)
    portal.add_person("ben", "approver")
    second = checkpoint(portal, beyond=first.size)
    portal.kill()
    portal.start()
    portal.add_person("eve", "auditor")
    third = checkpoint(portal, beyond=second.size)
    for before, after in [(first, second), (second, third), (first, third)]:
        growth = parse_growth(get(portal, f"consistency?from={before.size}&to={after.size}"))
        verify_growth(growth, before, after)
    others_check(portal, tmp_path)
    assert "Traceback" not in portal.log()


def others_check(portal: Portal, tmp_path: Path) -> None:
    """A witness outside cosigns the log, and an auditor takes it away and verifies it."""

    def audit(*words: str) -> str:
        done = CliRunner().invoke(main, ["audit", *words])
        assert done.exit_code == 0, done.output
        return done.output.strip()

    log = json.loads(get(portal, "log"))["vkey"]
    witness = audit("witness-key", "witness.example/1", str(tmp_path / "witness"))
    portal.manage("witness", "add", witness)
    seen = ["--key", str(tmp_path / "witness"), "--kept", str(tmp_path / "seen")]
    assert "has cosigned" in audit("witness", portal.url, *seen, "--log", log)
    made = portal.manage("api_token", "make", "audit", "--by", "eve", "--reason", "to take the log away", stdin="")
    file = tmp_path / "export.jsonl"
    file.write_bytes(get(portal, "api/v1/log/export", token=made.split()[-1]))
    said = audit("verify", str(file), "--kept", str(tmp_path / "kept"), "--log", log, "--witness", witness)
    assert "witness.example/1 has cosigned the first" in said
    assert "Everything holds." in said
