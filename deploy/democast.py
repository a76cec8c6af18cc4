"""Who takes part in the demo, and what they do there: persons of every role, three lab hosts, a tenant, one VM."""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.localfabric import ROOT, DidNotWork, LabHost, Portal, TenantDesk
from deploy.person import Person

if TYPE_CHECKING:
    from deploy.directory import Directory

FOLDER = ROOT / "var" / "demo"
PATIENCE = 60.0
VM = "web-1"
TENANT = "brandt-partner"
GROUP = "Guarded Hosts"
SERVICE = "127.0.0.1"  # the host in the portal's address, which tickets are for


@dataclass
class Fabric:
    """A portal and its persons, and what two of them decide together."""

    portal: Portal
    persons: dict[str, tuple[str, str]] = field(default_factory=dict, kw_only=True)

    def person(self, name: str) -> Person:
        return Person(self.portal.url, name, self.persons[name][1])

    def add_person(self, name: str, role: str, *, tenant: str = "") -> None:
        self.persons[name] = (role, self.portal.add_person(name, role, tenant=tenant))

    def admit(self, host: LabHost, mode: str = "tpm") -> None:
        """Have a host put forward by one person and approved by another, as one mode knows it."""
        attester = identity(host, mode)
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


@dataclass
class Demo(Fabric):
    """The running fabric, and who is who in it."""

    healthy: LabHost
    drifted: LabHost
    unknown: LabHost
    desk: TenantDesk
    bundle: Path = FOLDER
    mode: str = "tpm"
    directory: "Directory | None" = None

    @property
    def hosts(self) -> tuple[LabHost, LabHost, LabHost]:
        return self.healthy, self.drifted, self.unknown

    def set_up(self, like: "Demo | None" = None) -> None:
        """Bring everything up to the point where the hosts are on and nobody knows them."""
        if like is None:
            self.let_people_in()
        else:
            self.take_over(like)
        self.portal.start()
        for host in self.hosts:
            host.power_on()
        self.portal.trust_maker(self.healthy.authority)

    def let_people_in(self) -> None:
        """Make the portal's database, and in it a tenant and a person of every role. Nothing runs yet."""
        self.portal.set_up()
        self.desk.folder.mkdir(parents=True)
        fingerprint = self.desk.new_owner()
        self.portal.manage("add_tenant", self.desk.name, fingerprint)
        for name, role, tenant in (
            ("ada", "fabric admin", ""),
            ("ben", "approver", ""),
            ("tim", "owner", TENANT),
            ("eve", "auditor", ""),
        ):
            self.add_person(name, role, tenant=tenant)

    def take_over(self, other: "Demo") -> None:
        """Begin as another demo that has let its people in and did not start: with its database, keys and persons."""
        shutil.copytree(other.portal.folder, self.portal.folder)
        shutil.copytree(other.desk.folder, self.desk.folder)
        self.persons.update(other.persons)

    def enrol_hosts(self) -> None:
        """Make the hosts known to the portal and let their agents run: they wait for a person."""
        for host in self.hosts:
            host.enrol(self.portal.url)
            if self.mode != "tpm":
                host.enrol(self.portal.url, mode=self.mode)
            host.run_agent()

    def hand_over_vm(self) -> None:
        """Let the tenant protect a VM for this fabric and tell the portal about it."""
        fingerprint = self.portal.manage("guardian_fingerprint").strip()
        self.bundle = self.desk.protect(self.portal.url, fingerprint=fingerprint, vm=VM)
        protector = json.dumps(json.loads((self.bundle / "state.0.json").read_text())["protector"]).encode()
        self.person("tim").submit(
            f"/tenants/{TENANT}/machines/add/", files={"protector": ("protector.json", protector)}, name=VM
        )

    def admit_group(self) -> None:
        """Have the directory's group put forward by one person and approved by another: its machines are hosts then."""
        ada, ben = self.person("ada"), self.person("ben")
        fields = {"sid": self.group_sid, "name": GROUP, "group": "default", "reason": "The racks in hall 2."}
        ada.submit("/directory-groups/propose/", None, **fields, password=ada.password)
        ben.decide(self.newest_proposal(ben), "approve", "I have compared the SID.")

    @property
    def group_sid(self) -> str:
        if self.directory is None:
            raise DidNotWork("This demo has no directory.")
        return self.directory.sids[GROUP]

    def switch(self, mode: str, name: str) -> None:
        """Have the fabric switched to a mode that proves less than TPMs: one person proposes, another decides."""
        self.mode = mode
        ada, ben = self.person("ada"), self.person("ben")
        fields = {"name": name, "grace": "0", "reason": "To show what this mode proves, and what not."}
        ada.submit(f"/mode/{mode}/propose/", None, **fields, password=ada.password)
        ben.decide(self.newest_proposal(ben), "approve", "It is a demonstration.")

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


def identity(host: LabHost, mode: str = "tpm") -> str:
    known = {"tpm": "attester", "hostkey": "key_attester"}[mode]
    return str(json.loads((host.folder / "config.json").read_text())[known])


def status_of(host: LabHost) -> str:
    try:
        return str(json.loads((host.folder / "status.json").read_text())["status"])
    except FileNotFoundError:
        return "not attested"


def is_shown(host: LabHost, status: str) -> bool:
    return status_of(host) == status


@contextmanager
def running(folder: Path, port: int, *, directory: bool = False, like: Demo | None = None) -> Iterator[Demo]:
    """Bring a fresh demo fabric up in a folder, and take it down whatever happens; with a `directory` if wanted.

    Two of its hosts have machine accounts in the group, the third has one outside of it. It has the people of the
    demo that it is `like`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with _directory(folder / "directory") if directory else nullcontext() as domain:
        demo = prepared(folder, port, domain)
        try:
            demo.set_up(like)
            yield demo
        finally:
            demo.end()


@contextmanager
def _directory(folder: Path) -> "Iterator[Directory]":
    from deploy.directory import Contents, started  # only who asks for it needs Samba
    from deploy.realm import using

    members = ("nbg-a01", "nbg-a02")
    contents = Contents(
        machines=(*members, "nbg-a03"),
        groups={GROUP: [f"{name}$" for name in members]},
        services={"svc-guardhouse": f"HTTP/{SERVICE}"},
    )
    with started(folder, contents) as domain, using(domain):
        yield domain


def prepared(folder: Path, port: int, directory: "Directory | None" = None) -> Demo:
    """Return a demo fabric that is still to be set up."""
    maker, stranger = folder / "tpm-maker", folder / "other-maker"
    settings = {"GUARDHOUSE_RETRY_SECONDS": "2", "GUARDHOUSE_FABRIC_NAME": "demo"}
    if directory is not None:
        settings |= {
            "GUARDHOUSE_KERBEROS_KEYTAB": str(directory.keytab(f"HTTP/{SERVICE}")),
            "GUARDHOUSE_KERBEROS_SERVICE": f"HTTP@{SERVICE}",
            "GUARDHOUSE_KERBEROS_REALM": "FABRIC.TEST",
        }
    demo = Demo(
        portal=Portal(folder / "portal", port, settings),
        healthy=LabHost("nbg-a01", folder / "nbg-a01", "secureboot-on", maker),
        drifted=LabHost("nbg-a02", folder / "nbg-a02", "cmdline-drift", maker),
        unknown=LabHost("nbg-a03", folder / "nbg-a03", "uki", stranger),
        desk=TenantDesk(folder / "tenant", "Brandt & Partner"),
        directory=directory,
    )
    if directory is not None:
        for host in demo.hosts:
            host.keytab = directory.keytab(host.name)
    return demo


def until(condition: Callable[[], bool], what: str, *, seconds: float = PATIENCE) -> float:
    """Wait for a condition and return how long it took; raise `DidNotWork` when it does not come."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > seconds:
            raise DidNotWork(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.1)
    return time.monotonic() - started
