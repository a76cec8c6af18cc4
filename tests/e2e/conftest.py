"""The whole fabric with real processes, and a real browser in front of it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from deploy.democast import Demo, prepared, running
from deploy.localfabric import free_port

CHROMIUM = "/usr/bin/chromium"
# Chromium as root needs no sandbox; the rest keeps it from calling home, which is noise here.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A fabric that let its people in, by the commands, and never ran: the others begin as copies of it."""
    fabric = prepared(tmp_path_factory.mktemp("people") / "f", free_port())
    fabric.let_people_in()
    return fabric


@pytest.fixture(scope="module")
def demo(people: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """Portal, persons and three hosts that are on and unknown."""
    with running(tmp_path_factory.mktemp("fabric") / "f", free_port(), like=people) as fabric:
        yield fabric


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser of this module's own: a session-wide one would keep an event loop open under Django's tests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()
