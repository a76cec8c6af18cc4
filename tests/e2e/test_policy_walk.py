"""A policy is changed, tried on the fleet, decided and taken back, in a real browser and with real agents."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from deploy.democast import Demo, identity, is_shown, until
from tests.e2e.browser import SOON, sign_in
from tests.e2e.test_walk import decide

pytestmark = pytest.mark.e2e


@pytest.fixture
def fleet(demo: Demo) -> Demo:
    """Two hosts that run their agents: one passes, one booted another command line."""
    for host in (demo.healthy, demo.drifted):
        host.enrol(demo.portal.url)
        host.run_agent()
        demo.admit(host)
    until(lambda: (demo.healthy.folder / "status.json").exists(), "the healthy host attests")
    demo.admit_baseline(demo.healthy)
    until(lambda: is_shown(demo.healthy, "Passed"), "the healthy host passes")
    until(lambda: is_shown(demo.drifted, "InsecureHostConfiguration"), "the changed host does not")
    return demo


def tried(page: Page) -> None:
    """Try the draft; the page goes on by itself until every host was tried."""
    page.get_by_role("button", name="Try on stored evidence").click()
    expect(page.get_by_role("heading", name="All 2 hosts")).to_be_visible(timeout=SOON)


def put_forward(page: Page, reason: str) -> str:
    page.get_by_role("link", name="Put forward").click()
    page.get_by_role("textbox", name="Reason").fill(reason)
    page.get_by_role("button", name="Put it forward").click()
    page.wait_for_url(re.compile(r"/proposals/\d+/"))
    return page.url


def test_a_policy_is_changed_tried_decided_and_taken_back(fleet: Demo, chromium: Browser) -> None:
    ada, ben = sign_in(chromium, fleet, "ada"), sign_in(chromium, fleet, "ben")

    # A stricter policy: the draft says what it changes, the dry run who would lose.
    ada.goto("/policies/")
    ada.get_by_role("link", name="Default").click()
    ada.get_by_role("button", name="Change the policy").click()
    ada.get_by_label("What this change is for").fill("Lock the kernels down")
    ada.get_by_role("checkbox", name=re.compile("^The kernel is locked down")).check()
    ada.get_by_role("button", name="Keep this draft").click()
    expect(ada.get_by_text("Required: The kernel is locked down.")).to_be_visible()
    tried(ada)
    row = ada.get_by_role("row", name=re.compile(fleet.healthy.name))
    expect(row).to_contain_text("Not proved: the kernel is locked down.")

    # Another person reads both and decides; the agent's next attestation meets the new policy.
    proposal = put_forward(ada, "Root may not change a running kernel.")
    ben.goto(proposal)
    expect(ben.get_by_text("1 host that passes now would not")).to_be_visible()
    decide(ben, fleet, "ben", proposal)
    fleet.healthy.attest()
    assert is_shown(fleet.healthy, "InsecureHostConfiguration")
    ada.goto(f"/hosts/{identity(fleet.healthy)}/")
    expect(ada.locator("#host-word")).to_contain_text("Not proved: the kernel is locked down.")

    # The way back is the same way.
    ada.goto("/policies/default/")
    ada.get_by_role("row", name=re.compile("^v1")).get_by_role("button", name="Restore").click()
    expect(ada.get_by_text("Not required any more: The kernel is locked down.")).to_be_visible()
    tried(ada)
    decide(ben, fleet, "ben", put_forward(ada, "Not before Friday's kernel is everywhere."))
    fleet.healthy.attest()
    assert is_shown(fleet.healthy, "Passed")
