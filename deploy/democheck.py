"""`make demo-check`: the whole power-on flow without a person, one line per step."""

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from threading import Thread

from websockets.sync.client import connect
from websockets.typing import Origin

from deploy.democast import PATIENCE, TENANT, VM, Demo, identity, is_shown, status_of, until
from deploy.localfabric import DidNotWork
from deploy.person import Refused

LIVE_WITHIN = 1.0


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
