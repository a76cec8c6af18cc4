"""A fabric that goes from a weaker mode to TPMs and back, one host not being ready; in a browser and on real hosts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from deploy.democast import TENANT, Demo, identity, is_shown, running, until
from deploy.localfabric import LabHost, free_port
from tests.e2e.browser import sign_in
from tests.e2e.test_walk import decide

pytestmark = pytest.mark.e2e
REASON = "We have rehearsed it with everybody."


@dataclass(frozen=True)
class Weaker:
    """A mode that says nothing of a boot: its words, and how its hosts are let in."""

    slug: str
    name: str
    had_proved: str
    hosts: str

    def let_in(self, demo: Demo, hosts: tuple[LabHost, ...]) -> None:
        for host in hosts:
            host.enrol(demo.portal.url, mode=self.slug)
        if self.slug == "kerberos":
            demo.admit_group()
        else:
            for host in hosts:
                demo.admit(host, mode=self.slug)


HOST_KEY = Weaker(
    "hostkey",
    "Host key",
    "had proved that it holds its key, and not what it booted",
    "hosts that hold a registered key, whatever they booted",
)
KERBEROS = Weaker(
    "kerberos",
    "Kerberos",
    "had proved that it is in an approved group, and not what it booted",
    "hosts in an approved group of the directory, whatever they booted",
)


@pytest.fixture
def fabric(weaker: Weaker, people: Demo, tmp_path: Path) -> Iterator[Demo]:
    with running(tmp_path / "f", free_port(), directory=weaker is KERBEROS, like=people) as fabric:
        yield fabric


def put_forward(page: Page, demo: Demo, mode: str, *, grace: str, typed: str = "") -> str:
    """Go from the mode's page over its rehearsal to the proposal, and return its address."""
    page.goto("/mode/")
    page.get_by_role("link", name=mode, exact=True).click()
    page.get_by_role("link", name="Put the switch forward").click()
    page.get_by_label("When certificates of the mode in force end").select_option(grace)
    page.get_by_role("textbox", name="Reason").fill(REASON)
    if typed:
        page.get_by_label("Type the mode’s name").fill(typed)
    page.get_by_label("Your password").fill(demo.persons["ada"][1])
    page.get_by_role("button", name="Put it forward").click()
    page.wait_for_url(re.compile(r"/proposals/\d+/"))
    return page.url


@pytest.mark.parametrize("weaker", [HOST_KEY, KERBEROS], ids=lambda mode: mode.slug)
def test_a_whole_switch_and_the_way_back(weaker: Weaker, fabric: Demo, chromium: Browser) -> None:
    demo, hosts = fabric, (fabric.healthy, fabric.drifted)
    for host in hosts:
        host.enrol(demo.portal.url)
        demo.admit(host)
    weaker.let_in(demo, hosts)
    assert demo.healthy.attest().returncode == 1  # there is no baseline yet, and the Evidence is kept
    demo.admit_baseline(demo.healthy)
    demo.hand_over_vm()
    ada, ben = sign_in(chromium, demo, "ada"), sign_in(chromium, demo, "ben")

    # Both hosts show that they would pass. That mode is weaker, is typed, and a warning stays on every page.
    for host in hosts:
        assert host.rehearse().returncode == 0
    decide(ben, demo, "ben", put_forward(ada, demo, weaker.name, grace="8", typed=weaker.name))
    ada.goto("/fleet/")
    expect(ada.get_by_text("No host has to show what it booted.")).to_be_visible()
    on_changed = demo.copied_vm("on-changed-host")
    for host, bundle in ((demo.healthy, demo.bundle), (demo.drifted, on_changed)):
        started = host.vm("start", bundle)
        assert started.returncode == 0, started.stderr
        assert host.vm("stop", bundle, "--wait", "1").returncode == 0
    tim = sign_in(chromium, demo, "tim")
    tim.goto(f"/tenants/{TENANT}/")
    expect(tim.locator("#releases")).to_contain_text(weaker.had_proved)
    expect(tim.get_by_text(weaker.hosts)).to_be_visible()
    ben.goto("/mode/")
    expect(ben.get_by_text("Certificates of TPM mode go on counting until")).to_be_visible()

    # The rehearsal of TPM mode: the agents try it, one is ready, the other says why it is not.
    assert demo.healthy.rehearse().returncode == 0
    tried = demo.drifted.rehearse()
    assert tried.returncode == 1
    assert "drift=1" in tried.stderr
    ada.goto("/mode/tpm/")
    ready = ada.get_by_role("row").filter(has_text=demo.healthy.name)
    lost = ada.get_by_role("row").filter(has_text=demo.drifted.name)
    expect(ready).to_contain_text("Ready")
    expect(lost).to_contain_text("Would lose")
    expect(lost).to_contain_text("drift=1")
    expect(ada.get_by_text("1 VM started there last")).to_be_visible()
    proposal = put_forward(ada, demo, "TPM", grace="0")
    ben.goto(proposal)
    expect(ben.get_by_text("1 that passes now would lose new starts")).to_be_visible()
    decide(ben, demo, "ben", proposal)

    # Hosts follow by themselves: what they hold is refused, they attest anew, and the changed one gets nothing.
    started = demo.healthy.vm("start", demo.bundle)
    assert started.returncode == 0, started.stderr
    assert is_shown(demo.healthy, "Passed")
    refused = demo.drifted.vm("start", on_changed)
    assert refused.returncode == 1
    assert "drift=1" in refused.stdout + refused.stderr
    ada.goto(f"/hosts/{identity(demo.drifted)}/")
    expect(ada.locator("#host-word")).to_contain_text("drift=1")
    ada.goto("/fleet/")
    expect(ada.get_by_text("No host has to show what it booted.")).to_have_count(0)

    # Back is less than TPMs, and nothing of the old mode counts any more: two persons decide it, as any switch.
    ben.goto("/mode/")
    expect(ben.get_by_role("link", name="Take the last switch back")).to_have_count(0)
    decide(ben, demo, "ben", put_forward(ada, demo, weaker.name, grace="8", typed=weaker.name))
    started = demo.drifted.vm("start", on_changed)
    assert started.returncode == 0, started.stderr
    assert demo.drifted.vm("stop", on_changed, "--wait", "1").returncode == 0

    # From there to more is one act of one approver, and every node and host has it at once.
    ben.goto("/mode/")
    ben.get_by_role("link", name="Take the last switch back").click()
    ben.get_by_role("textbox", name="Reason").fill("That was the drill.")
    ben.get_by_label("Type the mode’s name").fill("TPM")
    ben.get_by_label("Your password").fill(demo.persons["ben"][1])
    ben.get_by_role("button", name="Go back").click()
    expect(ben.get_by_text("The fabric is in TPM mode again, on every node.")).to_be_visible()
    assert demo.healthy.vm("stop", demo.bundle, "--wait", "1").returncode == 0
    started = demo.healthy.vm("start", demo.bundle)
    assert started.returncode == 0, started.stderr
    eve = sign_in(chromium, demo, "eve")
    eve.goto("/audit/")
    for act in ("mode.proposed", "mode.approved", "mode.rolled_back", "attestation.trial_failed"):
        expect(eve.get_by_text(act).first).to_be_visible()
    until(lambda: is_shown(demo.healthy, "Passed"), "the healthy host passes")
