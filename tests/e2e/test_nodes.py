"""Two nodes over one database: what is decided at one of them holds at the other from its next answer on."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import requests

from deploy.democast import Demo
from deploy.localfabric import Portal, free_port

pytestmark = pytest.mark.e2e


@pytest.fixture
def other(demo: Demo) -> Iterator[Portal]:
    """A second node; nothing is shared but the database and the state folder."""
    node = replace(demo.portal, port=free_port(), process=None)
    node.start()
    yield node
    node.stop()


def test_a_switch_at_one_node_is_in_force_at_the_other(demo: Demo, other: Portal) -> None:
    host = demo.healthy
    for mode in ("tpm", "hostkey"):
        host.enrol(other.url, mode=mode)
        demo.admit(host, mode=mode)
    host.attest()
    demo.admit_baseline(host)
    assert host.attest().returncode == 0
    demo.hand_over_vm()
    assert host.vm("start", demo.bundle).returncode == 0
    assert host.vm("stop", demo.bundle, "--wait", "1").returncode == 0
    certificate = (host.folder / "credential.json").read_text()

    demo.switch("hostkey", "Host key")  # at the first node
    assert requests.get(f"{other.url}/attestation/v1/info", timeout=5).json()["mode"] == "hostkey"
    assert host.attest().stdout.startswith("Passed")

    # The agent would not use what it had before, but somebody who has root there could.
    (host.folder / "credential.json").write_text(certificate)
    started = host.vm("start", demo.bundle)
    assert started.returncode == 0, started.stderr
    refused = [line for line in other.log().splitlines() if "key of vm" in line and "refused" in line]
    assert refused
    assert "mode" in refused[-1]
