"""`guardhouse host diagnose` against the real portal: a host that nobody knows, and one whose boot changed."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.democast import Demo, identity
from deploy.localfabric import GUARDHOUSE, LabHost

pytestmark = pytest.mark.e2e


def diagnose(*words: object) -> tuple[int, dict[str, Any]]:
    command = [*GUARDHOUSE, "host", "diagnose", "--json", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def look(host: LabHost) -> tuple[int, dict[str, Any]]:
    return diagnose("--state-dir", host.folder)


def remedies(found: dict[str, Any]) -> list[str]:
    verdict = found["checks"][-1]
    assert verdict["check"] == "verdict"
    return [finding["remedy"] for finding in verdict["findings"]]


def test_a_host_is_told_at_each_step_what_it_still_lacks(demo: Demo, tmp_path: Path) -> None:
    host = demo.healthy
    code, found = look(host)
    assert (code, found["status"], found["failures"]) == (1, "NotConfigured", ["enrolment"])

    host.enrol(demo.portal.url)
    code, found = look(host)
    assert (code, found["failures"]) == (1, ["verdict"])
    assert found["status"] == "UnauthorizedHost"
    assert all(remedies(found))

    demo.admit(host)
    code, found = look(host)
    assert (code, found["status"], found["failures"]) == (1, "InsecureHostConfiguration", ["verdict"])
    page = demo.person("ada").page(f"/hosts/{identity(host)}/")
    assert "This host has not attested yet" in page
    assert "Diagnoses" in page

    host.attest()
    demo.admit_baseline(host)
    assert host.attest().returncode == 0
    saved = tmp_path / "trace.json.gz"
    code, found = diagnose("--state-dir", host.folder, "--save", saved)
    assert (code, found["status"], found["failures"]) == (0, "Passed", [])

    demo.drifted.enrol(demo.portal.url)
    demo.admit(demo.drifted)
    code, drifted = look(demo.drifted)
    assert (code, drifted["status"], drifted["failures"]) == (1, "InsecureHostConfiguration", ["verdict"])
    assert "drift=1" in json.dumps(drifted["checks"][-1]["findings"])
    assert all(remedies(drifted))

    demo.portal.stop()
    code, away = look(host)
    assert (code, away["status"]) == (1, "TransientError")
    assert away["failures"] == ["connection", "portal", "verdict"]
    assert diagnose("--bundle", saved) == (0, found)
