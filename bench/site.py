"""A portal that serves as in production, on one database or the other, and what its processes have cost so far."""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from deploy.localfabric import Portal, free_port
from tests import services
from tests.e2e.wire import Line, approve, attest, enrol, portal_in
from tests.machines import Machine
from tests.tpm_lab import Maker

# The server whose boot log is measured has Secure Boot off: two persons decide that the policy does not ask for it.
POLICY = """
from datetime import UTC, datetime
from django.contrib.auth.models import User
from attestation import service

now = datetime.now(UTC)
one, other = (User.objects.get(username=name) for name in ("ada", "ben"))
draft = service.start_draft("default", title="without Secure Boot", by=one, now=now)
asked = {**draft.document, "required": [each for each in draft.document["required"] if each != "secure_boot"]}
service.change_draft(draft.id, asked, revision=draft.revision, by=one, now=now)
run = service.start_dry_run(draft.id, by=one, now=now)
while service.go_on_dry_run(run.id, now=now).finished_at is None:
    pass
proposal = service.propose_draft(draft.id, by=one, reason="old firmware", now=now)
service.decide(proposal.id, by=other, approve=True, reason="compared", now=now)
"""
TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


class NotInstalled(Exception):
    """A database's programs are not on this machine."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds: by the clock, and of CPU in the portal and in its database."""

    time: float
    portal: float
    database: float

    @property
    def cpu(self) -> float:
        return self.portal + self.database

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.time + other.time, self.portal + other.portal, self.database + other.database)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.time - other.time, self.portal - other.portal, self.database - other.database)

    def per(self, count: int) -> "Cost":
        return Cost(self.time / count, self.portal / count, self.database / count)


@dataclass
class Site:
    """A portal that serves; `database` is the pid of its PostgreSQL, if that is what it has."""

    name: str
    portal: Portal
    database: int | None

    def spent(self) -> Cost:
        """Return what everything has cost until now; the difference of two is what lay between."""
        assert self.portal.process is not None
        database = cpu_ms(self.database) if self.database else 0.0
        return Cost(time.perf_counter() * 1000, cpu_ms(self.portal.process.pid), database)


@contextmanager
def site(
    maker: Maker, machines: Sequence[Machine], folder: Path, *, postgresql: bool, workers: int = 1
) -> Iterator[Site]:
    """Bring a portal up and let two people approve the machines and the boot of the last one.

    Raises `NotInstalled` when PostgreSQL is asked for and not there.
    """
    settings = {"GUARDHOUSE_HASHED_STATIC": "0", "GUARDHOUSE_LOG_LEVEL": "WARNING"}
    database = None
    if postgresql:
        settings["GUARDHOUSE_DATABASE_URL"], database = cluster()
        settings["GUARDHOUSE_DATABASE_KEEP_SECONDS"] = "60"
    place = Path(tempfile.mkdtemp(prefix="portal-", dir=folder))
    portal = portal_in(
        place, free_port(), settings, live=not postgresql, workers=workers
    )  # each as it is run: a demo, a cluster
    try:
        with closing(Line(portal.port)) as line:
            for machine in machines:
                enrol(line, machine)
                attest(line, machine)
        approve(portal, maker, *machines)
        portal.manage("shell", "-c", POLICY)
        yield Site("PostgreSQL and WSGI" if postgresql else "SQLite and ASGI", portal, database)
    finally:
        portal.kill()


def cluster() -> tuple[str, int]:
    """Start a private PostgreSQL, which goes away with this process; return a database's URL and the server's pid."""
    before = set(children(os.getpid()))
    try:
        url = services.start_postgresql()
    except pytest.UsageError as reason:
        raise NotInstalled(str(reason)) from reason
    with psycopg.connect(url.rsplit("/", 1)[0] + "/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE guardhouse")
    (server,) = set(children(os.getpid())) - before
    return url, server


def cpu_ms(pid: int) -> float:
    """Return the CPU time of a process, its living descendants and its dead ones that were waited for."""
    fields = read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    dead = sum(int(ticks) for ticks in fields[13:15]) * TICK_MS  # cutime cstime, proc(5)
    return own_ms(pid) + dead + sum(cpu_ms(child) for child in children(pid))


def own_ms(pid: int) -> float:
    """Return the CPU time of all threads of one process, to the nanosecond; /proc knows hundredths of a second."""
    try:
        return time.clock_gettime((~pid << 3) | 2) * 1000  # the id that clock_getcpuclockid(3) makes
    except OSError:  # it has just ended
        return 0.0


def idle_ms() -> float:
    """Return how long the processors of this machine had nothing to do, all together."""
    return int(read(Path("/proc/stat")).split()[4]) * TICK_MS  # user nice system idle, proc(5)


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in read(task).split()]


def read(file: Path) -> str:
    """Return what the kernel says of a process or thread; nothing when it has just ended."""
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
