"""What an attestation and a release cost the portal over HTTP, in time and in CPU, on SQLite and on PostgreSQL.

The portal is the real one, in its own processes, with every write synced to the disk. Evidence is genuine: its quotes
are made by a software TPM before the clock starts.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from bench.figures import Figure
from deploy.localfabric import Portal, free_port
from tests import services
from tests.e2e.wire import (
    Holder,
    Line,
    answer_to,
    approve,
    attest,
    challenge,
    enrol,
    evidence_path,
    holder,
    must,
    portal_in,
)
from tests.machines import Machine
from tests.tpm_lab import Maker

RUNS = 5
REQUESTS = 30  # in each run; a challenge lives for a minute, and its quote takes a hundredth of a second or two
RELEASES = "/kps/v1/releases"
TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
YARDSTICK = "info read"

Message = tuple[str, bytes]
Measured = tuple[str, list[Figure], list[str]]

# Sends two messages through Django's test client and prints what the second one asked of the database.
COUNT = """
import json
from collections import Counter
from pathlib import Path
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

client = APIClient(SERVER_NAME="127.0.0.1")
for path, body in json.loads(Path({messages!r}).read_text()):
    with CaptureQueriesContext(connection) as captured:
        answer = client.post(path, body, content_type="application/json")
    assert answer.status_code == 200, answer.content
words = [query["sql"].split()[0] for query in captured]
counts = [f"{{number}} {{word}}" for word, number in Counter(words).items()]
print(len(words), "statements:", ", ".join(counts))
"""


@dataclass
class Site:
    """A portal that serves, a machine that it trusts, and what both have been measured at."""

    name: str
    portal: Portal
    machine: Machine
    holder: Holder
    database: int | None
    figures: dict[str, list[float]] = field(default_factory=dict)

    def evidence(self, line: Line) -> Message:
        asked = challenge(line, self.machine)
        return evidence_path(asked), answer_to(asked, self.machine)

    def release(self) -> Message:
        return RELEASES, self.holder.request(secrets.token_bytes(32))

    def note(self, name: str, value: float) -> None:
        self.figures.setdefault(name, []).append(value)


@contextmanager
def site(maker: Maker, machine: Machine, folder: Path, *, postgresql: bool) -> Iterator[Site]:
    """Bring a portal up on one database or the other, and let a person approve the machine."""
    settings = {"GUARDHOUSE_HASHED_STATIC": "0", "GUARDHOUSE_LOG_LEVEL": "WARNING"}
    database = None
    if postgresql:
        settings["GUARDHOUSE_DATABASE_URL"], database = cluster()
        settings["GUARDHOUSE_DATABASE_KEEP_SECONDS"] = "60"
    place = folder / ("postgresql" if postgresql else "sqlite")
    portal = portal_in(place, free_port(), settings, live=not postgresql)  # each as it is run: a demo, a cluster
    try:
        with closing(Line(portal.port)) as line:
            enrol(line, machine)
            attest(line, machine)
            approve(portal, maker, machine)
            held = holder(line, machine)
        yield Site("PostgreSQL and WSGI" if postgresql else "SQLite and ASGI", portal, machine, held, database)
    finally:
        portal.kill()


def cluster() -> tuple[str, int]:
    """Start a private PostgreSQL, which goes away with this process; return a database's URL and the server's pid."""
    before = set(children(os.getpid()))
    url = services.start_postgresql()
    with psycopg.connect(url.rsplit("/", 1)[0] + "/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE guardhouse")
    (server,) = set(children(os.getpid())) - before
    return url, server


def wire_figures(maker: Maker, machine: Machine, folder: Path) -> Iterator[Measured]:
    """Yield, for each database, its name, its figures, and what a request asks of it."""
    for postgresql in (False, True):
        try:
            with site(maker, machine, folder, postgresql=postgresql) as here:
                yield measured(here, folder)
        except pytest.UsageError as reason:  # its programs are not installed
            yield "PostgreSQL", [], [f"not measured: {reason}"]


def measured(here: Site, folder: Path) -> Measured:
    for _ in range(RUNS):
        run_once(here)
    return here.name, shown(here), statements(here, folder)


def run_once(here: Site) -> None:
    with closing(Line(here.portal.port)) as line:
        timed(here, YARDSTICK, REQUESTS, lambda _: must(line.get("/attestation/v1/info")))
        evidence = [here.evidence(line) for _ in range(REQUESTS)]
        timed(here, "attestation", REQUESTS, lambda turn: must(line.post(*evidence[turn])))
        releases = [here.release() for _ in range(REQUESTS)]
        timed(here, "release", REQUESTS, lambda turn: must(line.post(*releases[turn])))


def timed(here: Site, name: str, requests: int, send: Callable[[int], object]) -> None:
    """Send requests one after another and note what each cost on average: time, and CPU of portal and database."""
    assert here.portal.process is not None
    servers = [("portal", here.portal.process.pid), *([("database", here.database)] if here.database else [])]
    before = [cpu_ms(pid) for _, pid in servers]
    began = time.perf_counter()
    for turn in range(requests):
        send(turn)
    here.note(name, (time.perf_counter() - began) * 1000 / requests)
    for (who, pid), earlier in zip(servers, before, strict=True):
        here.note(f"{name}: CPU of the {who}", (cpu_ms(pid) - earlier) / requests)


def shown(here: Site) -> list[Figure]:
    """Return what was noted, each against the same figure of the request that does nothing."""
    figures = []
    for name, runs in here.figures.items():
        _, colon, what = name.partition(":")
        figures.append(Figure(name, tuple(runs), YARDSTICK + colon + what))
    return figures


def statements(here: Site, folder: Path) -> list[str]:
    """Return, for attestation and release, how many SQL statements a request takes once caches are warm."""
    with closing(Line(here.portal.port)) as line:
        messages = {
            "attestation": [here.evidence(line) for _ in range(2)],
            "release": [here.release() for _ in range(2)],
        }
    return [f"{name}: {counted(here.portal, pair, folder)}" for name, pair in messages.items()]


def counted(portal: Portal, messages: Sequence[Message], folder: Path) -> str:
    file = folder / "messages.json"
    file.write_text(json.dumps([(path, body.decode()) for path, body in messages]), encoding="utf-8")
    return portal.manage("shell", "-c", COUNT.format(messages=str(file))).strip().splitlines()[-1]


def cpu_ms(pid: int) -> float:
    """Return the CPU time of a process, its living descendants and its dead ones that were waited for."""
    fields = read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    own = sum(int(ticks) for ticks in fields[11:15]) * TICK_MS  # utime stime cutime cstime, proc(5)
    return own + sum(cpu_ms(child) for child in children(pid))


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in read(task).split()]


def read(file: Path) -> str:
    """Return what the kernel says of a process or thread; nothing when it has just ended."""
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
