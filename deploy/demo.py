"""`make demo` and `make demo-check`: the whole power-on flow on this machine, in a browser or without a person.

A portal, persons of every role, three lab hosts that run the shipped agent over software TPMs (one healthy, one that
booted a changed kernel command line, one of a TPM maker that nobody trusts), a tenant and one shielded VM.
"""

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Thread

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from websockets.sync.client import connect
from websockets.typing import Origin

from deploy.localfabric import ROOT, DidNotWork, LabHost, Portal, TenantDesk, free_port
from deploy.person import Person, Refused

FOLDER = ROOT / "var" / "demo"
USUAL_PORT = 8000
PATIENCE = 60.0
LIVE_WITHIN = 1.0
VM = "web-1"
TENANT = "brandt-partner"


@dataclass
class Demo:
    """The running fabric, and who is who in it."""

    portal: Portal
    healthy: LabHost
    drifted: LabHost
    unknown: LabHost
    desk: TenantDesk
    persons: dict[str, tuple[str, str]] = field(default_factory=dict)
    bundle: Path = FOLDER

    @property
    def hosts(self) -> tuple[LabHost, LabHost, LabHost]:
        return self.healthy, self.drifted, self.unknown

    def person(self, name: str) -> Person:
        return Person(self.portal.url, name, self.persons[name][1])

    def set_up(self) -> None:
        """Bring everything up to the point where the hosts are on and nobody knows them."""
        self.portal.set_up()
        self.portal.start()
        self.desk.folder.mkdir(parents=True)
        fingerprint = self.desk.new_owner()
        self.portal.manage("add_tenant", self.desk.name, fingerprint)
        for name, role, tenant in (
            ("ada", "fabric admin", ""),
            ("ben", "approver", ""),
            ("tim", "owner", TENANT),
            ("eve", "auditor", ""),
        ):
            self.persons[name] = (role, self.portal.add_person(name, role, tenant=tenant))
        for host in self.hosts:
            host.power_on()
        self.portal.trust_maker(self.healthy.authority)

    def enrol_hosts(self) -> None:
        """Make the hosts known to the portal and let their agents run: they wait for a person."""
        for host in self.hosts:
            host.enrol(self.portal.url)
            host.run_agent()

    def hand_over_vm(self) -> None:
        """Let the tenant protect a VM for this fabric and tell the portal about it."""
        fingerprint = self.portal.manage("guardian_fingerprint").strip()
        self.bundle = self.desk.protect(self.portal.url, fingerprint=fingerprint, vm=VM)
        protector = json.dumps(json.loads((self.bundle / "state.0.json").read_text())["protector"]).encode()
        self.person("tim").submit(
            f"/tenants/{TENANT}/machines/add/", files={"protector": ("protector.json", protector)}, name=VM
        )

    def admit(self, host: LabHost) -> None:
        """Have a host put forward by one person and approved by another."""
        attester = identity(host)
        ada, ben = self.person("ada"), self.person("ben")
        ada.submit(f"/hosts/{attester}/propose/", reason="It stands in our rack.", password=ada.password)
        ben.decide(self.newest_proposal(ben), "approve", "I have seen it in the rack.")

    def admit_baseline(self, host: LabHost) -> None:
        """Have what a host booted captured by one person and approved by another."""
        ada, ben = self.person("ada"), self.person("ben")
        page = ada.page(f"/hosts/{identity(host)}/")
        capture = re.search(r"/attestations/\d+/capture/", page)
        if capture is None:
            raise DidNotWork(f"The page of {host.name} offers no Evidence to capture.")
        ada.submit(
            capture.group(0), name="lab-bookworm", reason="The system as we installed it.", password=ada.password
        )
        ben.decide(self.newest_proposal(ben), "approve", "I have compared the boot log.")

    def newest_proposal(self, person: Person) -> int:
        return max(int(number) for number in re.findall(r"/proposals/(\d+)/", person.page("/proposals/")))

    def copied_vm(self, name: str) -> Path:
        """Copy the VM as somebody with the storage could: everything but what runs."""
        copy = self.bundle.with_name(name)
        shutil.copytree(self.bundle, copy, ignore=shutil.ignore_patterns("run", "*.sock"))
        return copy

    def end(self) -> None:
        self.healthy.vm("stop", self.bundle, "--wait", "0")
        for host in self.hosts:
            host.power_off()
        self.portal.stop()


def identity(host: LabHost) -> str:
    return str(json.loads((host.folder / "config.json").read_text())["attester"])


def status_of(host: LabHost) -> str:
    try:
        return str(json.loads((host.folder / "status.json").read_text())["status"])
    except FileNotFoundError:
        return "not attested"


def is_shown(host: LabHost, status: str) -> bool:
    return status_of(host) == status


@contextmanager
def running(folder: Path, port: int) -> Iterator[Demo]:
    """Bring a fresh demo fabric up in a folder, and take it down whatever happens."""
    shutil.rmtree(folder, ignore_errors=True)
    maker, stranger = folder / "tpm-maker", folder / "other-maker"
    demo = Demo(
        portal=Portal(folder / "portal", port, {"GUARDHOUSE_RETRY_SECONDS": "2", "GUARDHOUSE_FABRIC_NAME": "demo"}),
        healthy=LabHost("nbg-a01", folder / "nbg-a01", "secureboot-on", maker),
        drifted=LabHost("nbg-a02", folder / "nbg-a02", "cmdline-drift", maker),
        unknown=LabHost("nbg-a03", folder / "nbg-a03", "uki", stranger),
        desk=TenantDesk(folder / "tenant", "Brandt & Partner"),
    )
    try:
        demo.set_up()
        yield demo
    finally:
        demo.end()


def until(condition: Callable[[], bool], what: str, *, seconds: float = PATIENCE) -> float:
    """Wait for a condition and return how long it took; raise `DidNotWork` when it does not come."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise DidNotWork(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)
    return time.monotonic() - started


# --- without a person --------------------------------------------------------------------------------------------


class Check:
    """The steps of the demo, each with its line. A step that does not come out as told ends the check."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("three hosts enrolled; none is trusted yet", self.pending),
            ("a TPM of an unknown maker cannot be approved", self.unknown_maker),
            ("the changed host is admitted by two persons, as a host", self.admit_drifted),
            ("nobody approves what they put forward themselves", self.four_eyes),
            ("the healthy host and its baseline are approved by two persons", self.admit_healthy),
            ("the healthy host passes", self.passes),
            ("the changed host is refused, and the change is named", self.refused),
            ("an open dashboard hears of a change within a second", self.live),
            ("the shielded VM starts on the healthy host", self.vm_starts),
            ("the tenant sees who got the key", self.tenant_sees),
            ("the VM does not start on the changed host", self.vm_refused),
            ("the VM does not start on the unknown host", self.vm_unknown),
            ("the VM stops and starts again under its rolled key", self.vm_again),
            ("the auditor sees all of it and may change none of it", self.auditor),
        ]

    def pending(self) -> str:
        self.demo.enrol_hosts()
        for host in self.demo.hosts:
            until(partial(is_shown, host, "UnauthorizedHost"), f"{host.name} is told to wait")
        return ", ".join(host.name for host in self.demo.hosts)

    def unknown_maker(self) -> str:
        try:
            self.demo.admit(self.demo.unknown)
        except Refused as refused:
            return f"{self.demo.unknown.name} stays out{'' if 'not trusted' in str(refused) else f': {refused}'}"
        raise DidNotWork("a host whose TPM maker nobody trusts was approved")

    def admit_drifted(self) -> str:
        self.demo.admit(self.demo.drifted)
        until(lambda: status_of(self.demo.drifted) == "InsecureHostConfiguration", "the changed host fails")
        return status_of(self.demo.drifted)

    def four_eyes(self) -> str:
        ada = self.demo.person("ada")
        ada.submit(
            f"/hosts/{identity(self.demo.healthy)}/propose/", reason="It stands in our rack.", password=ada.password
        )
        number = self.demo.newest_proposal(ada)
        try:
            ada.decide(number, "approve", "I approve my own proposal.")
        except Refused as refused:
            self.demo.person("ben").decide(number, "approve", "I have seen it in the rack.")
            if "You put this forward" not in str(refused):
                raise DidNotWork(str(refused)) from refused
            return "ada was refused, ben approved"
        raise DidNotWork("a person approved their own proposal")

    def admit_healthy(self) -> str:
        self.demo.admit_baseline(self.demo.healthy)
        return "baseline lab-bookworm"

    def passes(self) -> str:
        waited = until(lambda: status_of(self.demo.healthy) == "Passed", "the healthy host passes")
        return f"after {waited:.1f} s"

    def refused(self) -> str:
        until(lambda: "drift=1" in self.findings(), "the finding names drift=1")
        return self.findings()

    def findings(self) -> str:
        last = json.loads((self.demo.drifted.folder / "status.json").read_text())
        return " ".join(finding["what"] for finding in last["findings"])

    def live(self) -> str:
        """Attest, and have the dashboard's channel say so within a second of the moment that was recorded."""
        ada, host = self.demo.person("ada"), self.demo.healthy
        address = self.demo.portal.url.replace("http", "ws") + "/ws/fleet/"
        with connect(
            address, additional_headers={"Cookie": ada.cookie}, origin=Origin(self.demo.portal.url)
        ) as dashboard:
            attesting = Thread(target=host.attest)
            attesting.start()
            wanted = {"subject": f"host:{identity(host)}", "act": "attestation.passed"}
            while not wanted.items() <= json.loads(dashboard.recv(timeout=PATIENCE)).items():
                pass
            heard = datetime.now(UTC)
            attesting.join()
        page = ada.page(f"/audit/?act=attestation.passed&subject=host:{identity(host)}")
        recorded = datetime.fromisoformat(re.findall(r'datetime="([^"]+)"', page)[0])
        late = (heard - recorded).total_seconds()
        if late > LIVE_WITHIN:
            raise DidNotWork(f"the dashboard heard of it {late:.2f} s later")
        return f"{late * 1000:.0f} ms after the act"

    def vm_starts(self) -> str:
        self.demo.hand_over_vm()
        started = time.monotonic()
        done = self.demo.healthy.vm("start", self.demo.bundle)
        if done.returncode != 0:
            raise DidNotWork(done.stdout + done.stderr)
        return f"in {time.monotonic() - started:.1f} s; {done.stdout.strip()}"

    def tenant_sees(self) -> str:
        page = self.demo.person("tim").words(f"/tenants/{TENANT}/")
        if "Released" not in page or self.demo.healthy.name not in page:
            raise DidNotWork("the tenant's page shows no release")
        return f"{VM} on {self.demo.healthy.name}"

    def vm_refused(self) -> str:
        done = self.demo.drifted.vm("start", self.demo.copied_vm("on-changed-host"))
        if done.returncode == 0 or "drift=1" not in done.stdout + done.stderr:
            raise DidNotWork(f"exit {done.returncode}: {done.stdout}{done.stderr}")
        return next(line for line in (done.stdout + done.stderr).splitlines() if "drift=1" in line).strip("- ")

    def vm_unknown(self) -> str:
        done = self.demo.unknown.vm("start", self.demo.copied_vm("on-unknown-host"))
        if done.returncode == 0:
            raise DidNotWork("the VM started on a host that nobody approved")
        return (done.stderr or done.stdout).strip().splitlines()[0]

    def vm_again(self) -> str:
        for act, *options in (("stop", "--wait", "1"), ("start",), ("status",)):
            done = self.demo.healthy.vm(act, self.demo.bundle, *options)
            if done.returncode != 0:
                raise DidNotWork(f"vm {act}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def auditor(self) -> str:
        eve = self.demo.person("eve")
        for path in ("/fleet/", "/hosts/", "/proposals/", "/baselines/", "/attestations/", "/releases/", "/audit/"):
            eve.page(path)
        for act in ("key.released", "host.approved", "baseline.approved"):
            if "intact" not in eve.words(f"/audit/?act={act}").lower():
                raise DidNotWork(f"the audit page does not show {act}")
        if eve.status_of(f"/hosts/{identity(self.demo.healthy)}/revoke/") != 403:
            raise DidNotWork("the auditor may open the page that revokes a host")
        return "seven pages read, revoking refused"


def check(demo: Demo) -> int:
    """Walk through every step; print a line each; return the exit code."""
    for number, (what, step) in enumerate(Check(demo).steps(), start=1):
        started = time.monotonic()
        try:
            shown = step()
        except (DidNotWork, Refused, OSError) as error:
            print(f"{number:2} FAILED {what}: {error}", flush=True)
            return 1
        print(f"{number:2} ok {what} ({time.monotonic() - started:.1f} s): {shown}", flush=True)
    return 0


# --- with a person -----------------------------------------------------------------------------------------------


def show(demo: Demo, *, approved: bool) -> int:
    """Leave the fabric to a person at a browser, and start the VM as soon as a host may have its key."""
    demo.enrol_hosts()
    demo.hand_over_vm()
    until(lambda: status_of(demo.drifted) == "UnauthorizedHost", f"{demo.drifted.name} attests")
    demo.admit(demo.drifted)
    if approved:
        demo.admit(demo.healthy)
        demo.admit_baseline(demo.healthy)
    print(f"\nThe portal is at {demo.portal.url}\n")
    for name, (role, password) in demo.persons.items():
        print(f"  {name:5} {password:22} {role}")
    if not approved:
        print(f"\nAs ada: put {demo.healthy.name} forward on its page, and capture its baseline there.")
        print("As ben: approve both under Proposals.")
    print(f"\n{demo.healthy.name} is healthy, {demo.drifted.name} booted a changed kernel command line,")
    print(f"{demo.unknown.name} has a TPM of an unknown maker. Ctrl-C ends the demo.\n", flush=True)
    started = False
    while True:
        if not started and status_of(demo.healthy) == "Passed":
            started = tell(demo, demo.healthy, demo.bundle)
            refused = demo.copied_vm("on-changed-host")
            tell(demo, demo.drifted, refused)
        time.sleep(1)


def tell(demo: Demo, host: LabHost, bundle: Path) -> bool:
    """Try to start the VM on a host, print what came of it, and return whether it runs."""
    done = host.vm("start", bundle)
    said = (done.stdout + done.stderr).strip()
    print(f"{VM} on {host.name}: {'started' if done.returncode == 0 else 'refused'}. {said}", flush=True)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="walk through the demo without a person")
    parser.add_argument("--approved", action="store_true", help="start with host and baseline approved already")
    parser.add_argument("--port", type=int, default=None)
    options = parser.parse_args()
    port = options.port or (free_port() if options.check else USUAL_PORT)
    folder = FOLDER.with_name("demo-check") if options.check else FOLDER
    print("Setting up the fabric; this takes some ten seconds.", flush=True)
    try:
        with running(folder, port) as demo:
            return check(demo) if options.check else show(demo, approved=options.approved)
    except KeyboardInterrupt:
        return 0
    except DidNotWork as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
