"""The portal goes away and comes back; browsers and agents find it again by themselves."""

import json

import pytest
from playwright.sync_api import Browser, expect

from deploy.democast import Demo, until
from tests.e2e.browser import SOON, sign_in

pytestmark = pytest.mark.e2e


def test_an_open_dashboard_and_a_running_agent_survive_the_death_of_the_portal(demo: Demo, chromium: Browser) -> None:
    demo.drifted.enrol(demo.portal.url)
    demo.drifted.run_agent()
    state = demo.drifted.folder / "status.json"
    until(state.exists, "the agent attests")
    ada = sign_in(chromium, demo, "ada")
    ada.goto("/fleet/")
    expect(ada.get_by_text("Live", exact=True)).to_be_visible()

    demo.portal.kill()
    expect(ada.locator("#stale")).to_be_visible(timeout=SOON)
    last = json.loads(state.read_text())["at"]
    demo.portal.start()

    expect(ada.locator("#stale")).to_be_hidden(timeout=SOON)
    until(lambda: json.loads(state.read_text())["at"] > last, "the agent attests again", seconds=90)
