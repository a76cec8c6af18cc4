"""How a person comes into the portal, in a browser."""

import re

from playwright.sync_api import Browser, Page

from deploy.democast import Fabric

SOON = 15_000  # ms: an agent's next attestation, which a machine takes its time for


def sign_in(browser: Browser, fabric: Fabric, name: str) -> Page:
    """Sign in through the form, in a browser context of one's own; a page error fails the test at its end."""
    page = browser.new_context(base_url=fabric.portal.url, viewport={"width": 1360, "height": 900}).new_page()
    page.set_default_timeout(SOON)
    page.goto("/login/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(fabric.persons[name][1])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile(r"/(fleet|tenants)/"))
    return page
