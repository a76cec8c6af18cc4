"""A tenant's whole way: a VM handed to a fabric, moved to another, got back, and every use of its key followed.

Two fabrics that know nothing of each other, the tenant's own machine, a real browser before both portals. What is
checked here is checked as a tenant could: by the commands, on files, without trusting either fabric.
"""

import hashlib
import os
import re
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from deploy.democast import Fabric
from deploy.localfabric import GUARDHOUSE, LabHost, Portal, attempt, free_port, private_file, run
from ledger.core.note import parse_vkey
from ledger.core.proof import parse_leaf_proof, verify_leaf_proof
from tests.disks import content, raw
from tests.e2e.browser import SOON, sign_in

pytestmark = pytest.mark.e2e
OWNER, SLUG, VM = "Kontor Nord", "kontor-nord", "payroll"
USER_DATA = '#cloud-config\nhostname: "@HostName@"\n'
RECIPE = """
name = "payroll servers"
level = "shielded"
user_data = "user-data.yaml"

[[template]]
catalog = "{catalog}"
signer = "{signer}"
"""
PERSONS = (("ada", "fabric admin", ""), ("ben", "approver", ""), ("tim", "owner", SLUG))


@dataclass
class Site(Fabric):
    """One of the fabrics: its portal, its persons, and a healthy host with the VMs that tenants have brought."""

    host: LabHost

    @property
    def url(self) -> str:
        return self.portal.url

    @property
    def bundle(self) -> Path:
        return self.host.folder / VM

    def open(self) -> None:
        """Serve, with a host that waits for a person."""
        self.portal.set_up()
        self.portal.start()
        self.host.power_on()
        self.portal.trust_maker(self.host.authority)

    def admit_everybody(self, owner: str) -> None:
        """Take the tenant, persons of every role, the host and what it booted."""
        self.portal.manage("add_tenant", OWNER, owner)
        for name, role, tenant in PERSONS:
            self.add_person(name, role, tenant=tenant)
        self.host.enrol(self.url)
        self.admit(self.host)
        assert self.host.attest().returncode == 1  # there is no baseline yet, and the Evidence is kept
        self.admit_baseline(self.host)

    def take(self, bundle: Path) -> None:
        """Let the tenant bring a VM's folder in the place of what was there."""
        shutil.rmtree(self.bundle, ignore_errors=True)
        shutil.copytree(bundle, self.bundle)

    def start(self) -> None:
        started = self.host.vm("start", self.bundle)
        assert started.returncode == 0, started.stderr
        assert "is running (shielded)" in started.stdout

    def stop(self) -> None:
        assert self.host.vm("stop", self.bundle, "--wait", "0").returncode == 0

    def told_fingerprint(self) -> str:
        """What the fabric's people read out on the telephone."""
        return self.portal.manage("guardian_fingerprint").strip()

    def told_log_key(self) -> str:
        return str(requests.get(f"{self.url}/ledger/v1/log", timeout=5).json()["vkey"])

    def close(self) -> None:
        self.host.vm("stop", self.bundle, "--wait", "0")
        self.host.power_off()
        self.portal.stop()


@dataclass
class Desk:
    """The tenant's own machine: what it has, and its commands."""

    folder: Path
    passphrase: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.passphrase = private_file(self.folder / "passphrase", secrets.token_urlsafe(24))

    @property
    def owner(self) -> str:
        return str(self.folder / "owner.key")

    @property
    def bundle(self) -> Path:
        return self.folder / VM

    def run(self, *words: str | Path) -> str:
        return run(self._command(words), environment=self._environment)

    def attempt(self, *words: str | Path) -> "subprocess.CompletedProcess[str]":
        return attempt(self._command(words), environment=self._environment)

    def imported(self, fabric: Site, file: Path) -> Path:
        """Take a fabric's guardian, the first time by the fingerprint that its people told; return what is kept."""
        told = ["--fingerprint", fabric.told_fingerprint()]
        return _kept(self.run("tenant", "guardian", "import", file, *told))

    def shielding_data(self, catalog: Path, *, signer: str, guardian: Path) -> Path:
        """Seal what new VMs get: made of this signer's template only, opened by this guardian's healthy hosts."""
        (self.folder / "user-data.yaml").write_text(USER_DATA, encoding="utf-8")
        recipe, file = self.folder / "payroll.toml", self.folder / "payroll.shield"
        recipe.write_text(RECIPE.format(catalog=catalog.name, signer=signer), encoding="utf-8")
        self.run("tenant", "shield", "new", recipe, "--owner", self.owner, "--guardian", guardian, "--out", file)
        return file

    def _command(self, words: Sequence[str | Path]) -> list[str]:
        return [*GUARDHOUSE, *map(str, words)]

    @property
    def _environment(self) -> dict[str, str]:
        here = {"XDG_CONFIG_HOME": str(self.folder / "config"), "GUARDHOUSE_PASSPHRASE_FILE": str(self.passphrase)}
        return dict(os.environ) | here


def _kept(said: str) -> Path:
    return Path(said.split("Kept as ")[1].strip())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk")


@pytest.fixture
def fabrics(tmp_path: Path, desk: Desk) -> Iterator[tuple[Site, Site]]:
    """Two fabrics that have taken the tenant, whose owner key is there."""
    sites = [
        Site(
            Portal(tmp_path / name, free_port(), {"GUARDHOUSE_FABRIC_NAME": name}),
            host=LabHost(f"{name}-a01", tmp_path / f"{name}-a01", "secureboot-on", tmp_path / f"{name}-maker"),
        )
        for name in ("north", "south")
    ]
    try:
        with ThreadPoolExecutor() as both:
            opened = [both.submit(site.open) for site in sites]
            desk.run("tenant", "owner", "new", "--name", OWNER, "--out", desk.owner)
            shown = desk.run("tenant", "owner", "show", desk.owner).split()
            owner = shown[shown.index("fingerprint") + 1]
            for each in opened:
                each.result()
            for each in [both.submit(site.admit_everybody, owner) for site in sites]:
                each.result()
        yield sites[0], sites[1]
    finally:
        for site in sites:
            site.close()


def download(page: Page, link: str, to: Path) -> Path:
    with page.expect_download() as waited:
        page.get_by_role("link", name=link, exact=True).or_(page.get_by_role("button", name=link, exact=True)).click()
    waited.value.save_as(to)
    return to


def confirm(page: Page, fabric: Site, name: str, button: str) -> None:
    """Give a reason and the person's own password, and do it."""
    page.get_by_role("textbox", name="Reason").fill("As was agreed with the tenants.")
    page.get_by_label("Your password").fill(fabric.persons[name][1])
    page.get_by_role("button", name=button).click()


def offer_template(page: Page, catalog: Path) -> None:
    page.goto("/templates/offer/")
    page.locator("input[type=file]").set_input_files(catalog)
    page.get_by_role("button", name="Offer the template").click()
    expect(page.get_by_text("is on offer.")).to_be_visible()


def order_vm(page: Page, file: Path, to: Path) -> Path:
    """Upload shielding data, choose the template that it goes with, and order a VM; return the order's file."""
    page.goto(f"/tenants/{SLUG}/shielding/upload/")
    page.get_by_label("Shielding data file").set_input_files(file)
    page.get_by_role("textbox", name="Name").fill("payroll servers")
    page.get_by_role("button", name="Upload it").click()
    expect(page.get_by_text("is kept. Which templates it goes with stands below.")).to_be_visible()
    page.get_by_role("link", name="New VM from it").click()
    page.get_by_role("link", name="Use it").click()
    page.get_by_role("textbox", name="Name", exact=True).fill(VM)
    page.get_by_label("Memory in MiB").fill("128")
    page.get_by_label("HostName").fill(VM)
    page.get_by_role("button", name="Order the VM").click()
    expect(page.get_by_text(f"{VM} is ordered.")).to_be_visible()
    return download(page, "The order", to)


def add_vm(page: Page, bundle: Path) -> None:
    """Tell a portal of a VM, by its key protector; the page is the VM's then."""
    page.goto(f"/tenants/{SLUG}/")
    page.get_by_role("link", name="Add one that you have").first.click()
    page.get_by_label("Name").fill(VM)
    page.get_by_label("Key protector").set_input_files(
        max(bundle.glob("state.*.json"), key=lambda file: file.stat().st_mtime)
    )
    page.get_by_role("button", name="Add the VM").click()
    expect(page.get_by_text(f"{VM} is registered.")).to_be_visible()


def see_release_with_its_proof(page: Page, fabric: Site) -> None:
    """Follow a release from the VM's page to its entry in the log, and check the entry's proof."""
    page.mouse.move(0, 0)  # a table that the pointer is in does not move
    row = page.locator("#releases tbody tr").first
    expect(row).to_contain_text("Released", timeout=SOON)
    expect(row).to_contain_text(fabric.host.name)
    row.get_by_role("link", name=re.compile(r"^entry \d+")).click(timeout=SOON)
    expect(page.get_by_text("Intact")).to_be_visible()
    text = page.locator("pre").first.text_content() or ""
    leaf = hashlib.sha256(b"\0" + text.encode()).digest()
    address = page.get_by_role("link", name="Proof as JSON").get_attribute("href")
    proof = parse_leaf_proof(requests.get(f"{fabric.url}{address}", timeout=5).content)
    assert verify_leaf_proof(proof, leaf, parse_vkey(fabric.told_log_key())).size > proof.index
    assert "key.released" in text
    assert fabric.host.name in text
    page.go_back()


def change_keys(ada: Page, ben: Page, fabric: Site, change: str, done: str, *, typed: str = "") -> None:
    """Have a change of the guardian's keys put forward by one person and decided by another.

    One that can stop VMs wants the pair's name to be typed.
    """
    ada.get_by_role("link", name=change, exact=True).click()
    if typed:
        ada.get_by_label("Type the key pair").fill(typed)
    confirm(ada, fabric, "ada", "Put it forward")
    ada.wait_for_url(re.compile(r"/keys/changes/\d+/"))
    ben.goto(ada.url)
    ben.get_by_role("radio", name=re.compile(f"^{change}")).check()
    confirm(ben, fabric, "ben", "Record decision")
    expect(ben.get_by_text("The decision is recorded and in force.")).to_be_visible()
    ada.get_by_role("link", name=re.compile("^Key pair ")).first.click()
    expect(ada.get_by_role("heading", level=1)).to_contain_text(done)


def alter_one_byte(fabric: Site) -> None:
    """Write to the database past the portal, as somebody could who has the machine: one letter of who got a key."""
    with closing(sqlite3.connect(fabric.portal.folder / "guardhouse.sqlite3")) as file:
        file.execute("DROP TRIGGER ledger_leaf_no_update")
        changed = file.execute(
            "UPDATE ledger_leaf SET detail = replace(detail, ?, ?) WHERE id ="
            " (SELECT max(id) FROM ledger_leaf WHERE act = 'key.released')",
            (f'"{fabric.host.name}"', f'"{fabric.host.name[:-1]}2"'),
        )
        file.commit()
        assert changed.rowcount == 1


def test_a_vm_is_handed_over_followed_moved_and_got_back(
    fabrics: tuple[Site, Site], desk: Desk, chromium: Browser
) -> None:
    north, south = fabrics
    tim = sign_in(chromium, north, "tim")

    # The guardian is taken from the portal's page, and kept only if its fingerprint is the one that was told.
    tim.goto("/guardian/")
    file = download(tim, "Download the guardian", desk.folder / "north.guardian")
    wrong = desk.attempt("tenant", "guardian", "import", file, "--fingerprint", south.told_fingerprint())
    assert wrong.returncode == 1
    assert "not the expected one" in wrong.stderr
    northern = desk.imported(north, file)

    # The template is what its signer says; one whose boot partition was changed is not.
    template = raw(desk.folder / "template.raw", content())
    catalog, signer = desk.folder / "template.catalog", desk.folder / "signer.key"
    told = desk.run("template", "signer", "new", "--name", "Kontor images", "--out", signer)
    thumbprint = told.split()[-1]
    words: list[str | Path] = ["--signer", signer, "--name", "debian-12", "--version", "12.1", "--out", catalog]
    desk.run("template", "sign", template, *words)
    desk.run("template", "verify", template, catalog, f"--signer={thumbprint}")
    other = raw(desk.folder / "other.raw", content(changed=1 << 20))
    changed = desk.attempt("template", "verify", other, catalog, f"--signer={thumbprint}")
    assert changed.returncode == 1
    assert "partition 1 boot" in changed.stderr

    # The fabric offers that template. What the VM gets is sealed by the tenant, fits, is uploaded and ordered.
    ada_north = sign_in(chromium, north, "ada")
    offer_template(ada_north, catalog)
    file = desk.shielding_data(catalog, signer=thumbprint, guardian=northern)
    assert "debian-12 12.1: applies" in desk.run("tenant", "shield", "test", file, catalog)
    order = order_vm(tim, file, desk.folder / "payroll.order")

    # A healthy host makes it and starts it; the release has its place in the log.
    papers = ["--template", template, "--catalog", catalog, "--shielding-data", file, "--out", north.bundle]
    made = north.host.vm("provision", order, *map(str, papers))
    assert made.returncode == 0, made.stderr
    expect(tim.get_by_text("Made", exact=True)).to_be_visible(timeout=SOON)
    north.start()
    tim.goto(f"/tenants/{SLUG}/machines/")
    tim.get_by_role("link", name=VM).first.click()
    see_release_with_its_proof(tim, north)

    # Another fabric is granted, in the bundle and at once; there the VM starts as it did here.
    north.stop()
    shutil.copytree(north.bundle, desk.bundle, ignore=shutil.ignore_patterns("run", "*.sock"))
    tom = sign_in(chromium, south, "tim")
    tom.goto("/guardian/")
    southern = desk.imported(south, download(tom, "Download the guardian", desk.folder / "south.guardian"))
    with_key = ["--owner", desk.owner, "--yes"]
    said = desk.run("tenant", "grant", desk.bundle, *with_key, "--guardian", southern, "--fabric", north.url)
    assert "May run it: south" in said
    south.take(desk.bundle)
    south.start()
    south.stop()

    # The first one is revoked: the owner sees in the portal what that does, and lets it hold.
    statement = desk.folder / "payroll.2.json"
    desk.run(
        "tenant", "revoke", desk.bundle, *with_key, "--guardian", "north", "--fabric", south.url, "--out", statement
    )
    tim.reload()
    tim.get_by_role("link", name="Bring a newer one").click()
    tim.get_by_role("button", name="Newer statement").set_input_files(statement)
    tim.get_by_role("button", name="Show what it changes").click()
    expect(tim.get_by_text("It does not name this fabric.")).to_be_visible()
    tim.get_by_role("button", name="Let statement 2 hold").click()
    expect(tim.get_by_text("The owner has not named this fabric.")).to_be_visible()
    refused = north.host.vm("start", north.bundle)
    assert refused.returncode == 1
    expect(tim.locator("#releases tbody tr").first).to_contain_text("guardian_revoked", timeout=SOON)
    south.take(desk.bundle)
    add_vm(tom, desk.bundle)
    south.start()
    see_release_with_its_proof(tom, south)
    south.stop()

    # The second one changes its keys, by two persons. The VM starts before and after; its owner is asked to follow.
    ada, ben = sign_in(chromium, south, "ada"), sign_in(chromium, south, "ben")
    ada.goto("/keys/prepare/")
    confirm(ada, south, "ada", "Prepare it")
    change_keys(ada, ben, south, "Take into use", "In use")
    tom.reload()
    expect(tom.get_by_text("This fabric has newer keys than those that the owner has named.")).to_be_visible()
    tom.goto("/guardian/")
    newer = download(tom, "Download the guardian", desk.folder / "south-2.guardian")
    followed = desk.run("tenant", "guardian", "import", newer)
    assert "its keys before have signed them" in followed
    desk.run("tenant", "grant", south.bundle, *with_key, "--guardian", _kept(followed), "--fabric", south.url)
    south.start()
    south.stop()
    ada.goto("/keys/")
    expect(ada.get_by_text("no key protector known here depends on it")).to_be_visible()
    ada.get_by_role("link", name="Key pair 1", exact=True).click()
    change_keys(ada, ben, south, "Disable", "Disabled", typed="Key pair 1")
    south.start()
    south.stop()

    # The log is taken away from both, and holds; one letter that somebody changes in it, in either place, is found.
    tim.goto(f"/tenants/{SLUG}/")
    tom.goto(f"/tenants/{SLUG}/")
    for page, site in ((tim, north), (tom, south)):
        export, kept = desk.folder / f"{site.host.name}.log", desk.folder / f"{site.host.name}.kept"
        download(page, "Export", export)
        held = desk.run("audit", "verify", export, "--kept", kept, "--log", site.told_log_key())
        assert "Everything holds." in held
        altered = bytearray(export.read_bytes())
        altered[len(altered) // 2] ^= 1
        spoilt = export.with_suffix(".altered")
        spoilt.write_bytes(altered)
        assert desk.attempt("audit", "verify", spoilt, "--kept", kept).returncode == 1
    alter_one_byte(south)
    export = download(tom, "Export", desk.folder / "south-altered.log")
    found = desk.attempt("audit", "verify", export, "--kept", desk.folder / f"{south.host.name}.kept")
    assert found.returncode == 1
    assert "does not hold" in found.stderr

    # Both are gone. The owner key alone gets the VM back, and its disk is the template still.
    north.close()
    south.close()
    desk.run("tenant", "recover", south.bundle, "--owner", desk.owner, "--plain", "--out", desk.folder / "plain")
    desk.run("template", "verify", desk.folder / "plain" / "disk.qcow2", catalog, f"--signer={thumbprint}")
