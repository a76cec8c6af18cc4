"""The power-on flow as its people live it, in a real browser, before a real portal and real agents."""

import re

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from deploy.democast import TENANT, VM, Demo, identity, until
from tests.e2e.browser import SOON, sign_in

pytestmark = pytest.mark.e2e
WITHIN_A_SECOND = 1_000  # ms


def tile(page: Page, status: str) -> Locator:
    return page.locator(f"#fleet-tiles a[href$='status={status}'] .big")


def decide(page: Page, demo: Demo, name: str, proposal: str) -> None:
    """Open a proposal and approve it."""
    page.goto(proposal)
    page.get_by_role("radio", name=re.compile("^Approve")).check()
    page.get_by_role("textbox", name="Reason").fill("I have seen it with my own eyes.")
    page.get_by_label("Your password").fill(demo.persons[name][1])
    page.get_by_role("button", name="Record decision").click()
    expect(page.get_by_text("The decision is recorded and in force.")).to_be_visible()


def put_forward(page: Page, attester: str) -> str:
    """Put a host forward and return the address of the proposal."""
    page.goto(f"/hosts/{attester}/")
    page.get_by_role("link", name="Put forward for approval").click()
    page.get_by_role("textbox", name="Reason").fill("It stands in our rack since today.")
    page.get_by_role("button", name="Put forward").click()
    page.wait_for_url(re.compile(r"/proposals/\d+/"))
    return page.url


def capture_baseline(page: Page, attester: str) -> str:
    """Capture what a host booted as a baseline and return the address of the proposal."""
    page.goto(f"/hosts/{attester}/")
    page.get_by_role("link", name="Capture baseline").click()
    page.get_by_role("textbox", name="Name").fill("lab-bookworm")
    page.get_by_role("textbox", name="Reason").fill("The system as we installed it today.")
    page.locator("main form button[type=submit]").click()
    page.wait_for_url(re.compile(r"/proposals/\d+/"))
    return page.url


def test_the_power_on_flow_from_an_unknown_host_to_a_running_vm(demo: Demo, chromium: Browser) -> None:
    ada, ben = sign_in(chromium, demo, "ada"), sign_in(chromium, demo, "ben")
    ada.goto("/fleet/")
    expect(ada.get_by_text("Live", exact=True)).to_be_visible()
    expect(tile(ada, "pending")).to_have_text("0")

    # The host arrives on the open dashboard within a second of its enrolment, without a reload.
    demo.healthy.enrol(demo.portal.url)
    expect(tile(ada, "pending")).to_have_text("1", timeout=WITHIN_A_SECOND)
    expect(ada.locator("#event-feed")).to_contain_text(demo.healthy.name)
    demo.drifted.enrol(demo.portal.url)
    expect(tile(ada, "pending")).to_have_text("2", timeout=WITHIN_A_SECOND)
    for host in (demo.healthy, demo.drifted):
        host.run_agent()

    # Two persons approve host and baseline; nobody both proposes and decides.
    healthy, drifted = identity(demo.healthy), identity(demo.drifted)
    until(lambda: (demo.healthy.folder / "status.json").exists(), "the healthy host attests")
    proposals = [put_forward(ada, attester) for attester in (healthy, drifted)]
    expect(ada.get_by_role("button", name="Record decision")).to_have_count(0)
    for proposal in proposals:
        decide(ben, demo, "ben", proposal)
    baseline = capture_baseline(ada, healthy)
    ada.goto("/fleet/")
    expect(ada.get_by_text("Live", exact=True)).to_be_visible()
    decide(ben, demo, "ben", baseline)

    # The dashboard that stayed open shows it.
    expect(tile(ada, "Passed")).to_have_text("1", timeout=SOON)
    expect(tile(ada, "InsecureHostConfiguration")).to_have_text("1", timeout=SOON)
    expect(ada.locator("#failing-hosts")).to_contain_text("drift=1", timeout=SOON)

    # The VM starts on the healthy host, and the tenant sees who got the key.
    demo.hand_over_vm()
    started = demo.healthy.vm("start", demo.bundle)
    assert started.returncode == 0, started.stderr
    tim = sign_in(chromium, demo, "tim")
    tim.goto(f"/tenants/{TENANT}/")
    expect(tim.locator("#releases")).to_contain_text("Released")
    expect(tim.locator("#releases")).to_contain_text(demo.healthy.name)

    # The changed host stays refused, in a sentence that names the change.
    refused = demo.drifted.vm("start", demo.copied_vm("on-changed-host"))
    assert refused.returncode == 1
    assert "drift=1" in refused.stdout + refused.stderr
    ada.goto(f"/hosts/{drifted}/")
    expect(ada.locator("#host-word")).to_contain_text("drift=1")

    # The auditor sees all of it, and is offered no act.
    eve = sign_in(chromium, demo, "eve")
    eve.goto("/audit/")
    for act in ("key.released", "host.approved", "baseline.approved", "attestation.failed"):
        expect(eve.get_by_text(act).first).to_be_visible()
    eve.goto("/releases/")
    expect(eve.get_by_text(VM).first).to_be_visible()
    eve.goto(f"/hosts/{healthy}/")
    for act in ("Revoke host", "Capture baseline", "Put forward for approval"):
        expect(eve.get_by_role("link", name=act)).to_have_count(0)

    # A revoked host gets no key, and the page that somebody has open says so.
    assert demo.healthy.vm("stop", demo.bundle, "--wait", "1").returncode == 0
    ben.goto(f"/hosts/{healthy}/")
    expect(ben.get_by_text("Live", exact=True)).to_be_visible()
    ada.goto(f"/hosts/{healthy}/revoke/")
    ada.get_by_role("textbox", name="Reason").fill("The rack was broken into last night.")
    ada.get_by_label("Type the host’s name").fill(demo.healthy.name)
    ada.get_by_label("Your password").fill(demo.persons["ada"][1])
    ada.get_by_role("button", name="Revoke host").click()
    expect(ben.locator("#host-word")).to_contain_text("was revoked", timeout=WITHIN_A_SECOND)
    revoked = demo.healthy.vm("start", demo.bundle)
    assert revoked.returncode == 1, revoked.stdout + revoked.stderr
