"""What an attestation and a release cost the portal over HTTP, in time and in CPU, on SQLite and on PostgreSQL.

The portal is the real one, in its own processes, with every write synced to the disk. Evidence is genuine: its quotes
are made by a software TPM over the portal's own nonces, between the challenges and the answers, while the clock stands.
One attestation is two requests, challenge and Evidence. Its boot log is either one that the portal knows, which does
not travel, or one that it has never seen: the same boot with another note in it, so that every byte is read and
replayed again.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Final

from bench.logs import in_kilobytes, with_note
from bench.site import Cost, NotInstalled, Site, site
from deploy.localfabric import Portal
from tests.e2e.wire import Holder, Line, answer_to, challenge, evidence_path, holder, must
from tests.machines import Machine
from tests.tpm_lab import Maker

RUNS: Final = 5
SQLITE_RUNS: Final = 2  # of a demo, for which nobody promises a figure
REQUESTS: Final = 100  # in each run; a challenge lives for a minute, and its quote takes a hundredth of a second or two
RELEASES: Final = "/kps/v1/releases"
YARDSTICK: Final = "info read"
UNCHANGED: Final = "log unchanged"
FIRST_SEEN: Final = "log first seen"
TARGETS: Final[Mapping[str, float]] = {UNCHANGED: 2.5, FIRST_SEEN: 6.7}  # CPU ms of portal and database, 73 KB log
RELEASE_TARGET: Final = 3.3  # CPU ms of portal and database

Message = tuple[str, bytes]

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
    assert answer.status_code < 300, answer.content
words = [query["sql"].split()[0] for query in captured]
counts = [f"{{number}} {{word}}" for word, number in Counter(words).items()]
print(len(words), "statements:", ", ".join(counts))
"""


@dataclass
class Bench:
    """A portal, a host that it trusts, and what each kind of request has cost in each run."""

    site: Site
    machine: Machine
    holder: Holder
    costs: dict[str, list[Cost]] = field(default_factory=dict)

    def note(self, name: str, cost: Cost) -> None:
        self.costs.setdefault(name, []).append(cost)

    def timed(self, count: int, send: Callable[[int], object]) -> Cost:
        """Send requests one after another and return what each cost on average."""
        before = self.site.spent()
        for turn in range(count):
            send(turn)
        return (self.site.spent() - before).per(count)


def wire_figures(maker: Maker, machine: Machine, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield, for each database, a title and the lines below it."""
    for postgresql in (False, True):
        try:
            with site(maker, [machine], folder, postgresql=postgresql) as here:
                title = f"Over HTTP, {here.name}, {REQUESTS} in a row, {in_kilobytes(machine.log)} boot log: ms each"
                yield title, measured(here, machine, folder)
        except NotInstalled as reason:
            yield "PostgreSQL", [f"not measured: {reason}"]


def measured(here: Site, machine: Machine, folder: Path) -> list[str]:
    with closing(Line(here.portal.port)) as line:
        bench = Bench(here, machine, holder(line, machine))
    run_once(replace(bench, costs={}), REQUESTS // 5)  # every thread of the portal has its connection and its caches
    for _ in range(RUNS if here.database else SQLITE_RUNS):
        run_once(bench, REQUESTS)
    return [*table(bench.costs), *rates(bench), *statements(bench, folder)]


def run_once(bench: Bench, requests: int) -> None:
    with closing(Line(bench.site.portal.port)) as line:
        bench.note(YARDSTICK, bench.timed(requests, lambda _: must(line.get("/attestation/v1/info"))))
        attest_in_a_row(bench, line, UNCHANGED, [bench.machine] * requests)
        attest_in_a_row(bench, line, FIRST_SEEN, [with_another_log(bench.machine) for _ in range(requests)])
        releases = [bench.holder.request(secrets.token_bytes(32)) for _ in range(requests)]
        bench.note("release", bench.timed(requests, lambda turn: must(line.post(RELEASES, releases[turn]))))


def with_another_log(machine: Machine) -> Machine:
    return replace(machine, log=with_note(machine.log, secrets.token_bytes(16)))


def attest_in_a_row(bench: Bench, line: Line, kind: str, machines: Sequence[Machine]) -> None:
    """Ask for all challenges, let the TPM answer them off the clock, and send all Evidence."""
    asked = []
    asking = bench.timed(len(machines), lambda turn: asked.append(challenge(line, machines[turn])))
    messages = [(evidence_path(each), answer_to(each, machine)) for each, machine in zip(asked, machines, strict=True)]
    answering = bench.timed(len(machines), lambda turn: must_pass(line, messages[turn]))
    bench.note(f"attestation, {kind}", asking + answering)
    bench.note(f"  challenge, {kind}", asking)
    bench.note(f"  Evidence, {kind}", answering)


def must_pass(line: Line, message: Message) -> None:
    assert must(line.post(*message))["status"] == "Passed"


def table(costs: Mapping[str, Sequence[Cost]]) -> list[str]:
    """Return the medians of all runs; the ratio is of the CPU, to the smallest request of the same run."""
    lines = [f"{'':40} {'time':>8} {'portal':>8} {'database':>8} {'CPU':>8} {'least':>8}   CPU ratio"]
    for name, runs in costs.items():
        medians = [median(getattr(cost, what) for cost in runs) for what in ("time", "portal", "database", "cpu")]
        cells = [*medians, min(cost.cpu for cost in runs)]
        ratio = median(cost.cpu / yardstick.cpu for cost, yardstick in zip(runs, costs[YARDSTICK], strict=True))
        lines.append(f"{name:40} {' '.join(f'{cell:8.2f}' for cell in cells)}   {ratio:6.2f} x {YARDSTICK}")
    return lines


def rates(bench: Bench) -> list[str]:
    """Return what one core can do, and what it shall do on PostgreSQL."""
    lines = []
    for kind, target in TARGETS.items():
        cpu = median(cost.cpu for cost in bench.costs[f"attestation, {kind}"])
        wanted = f"; the target with 73 KB is {_per_core(target)}" if bench.site.database else ""
        lines.append(f"{in_kilobytes(bench.machine.log)} {kind}: {_per_core(cpu)}{wanted}")
    wanted = f"; the target is {_per_core(RELEASE_TARGET)}" if bench.site.database else ""
    return [*lines, f"release: {_per_core(median(cost.cpu for cost in bench.costs['release']))}{wanted}"]


def _per_core(cpu: float) -> str:
    return f"{cpu:.2f} ms CPU, {1000 / cpu:.0f}/s per core"


def statements(bench: Bench, folder: Path) -> list[str]:
    """Return, for each kind of request, how many SQL statements a request takes once caches are warm."""
    wanted = {"attester": bench.machine.attester, "event_log_sha256": bench.machine.log_digest}
    with closing(Line(bench.site.portal.port)) as line:
        asked = [challenge(line, bench.machine) for _ in range(2)]
        messages = {
            "challenge": [("/attestation/v1/challenges", json.dumps(wanted).encode())] * 2,
            "Evidence": [(evidence_path(each), answer_to(each, bench.machine)) for each in asked],
            "release": [(RELEASES, bench.holder.request(secrets.token_bytes(32))) for _ in range(2)],
        }
    return [f"{name}: {counted(bench.site.portal, pair, folder)}" for name, pair in messages.items()]


def counted(portal: Portal, messages: Sequence[Message], folder: Path) -> str:
    file = folder / "messages.json"
    file.write_text(json.dumps([(path, body.decode()) for path, body in messages]), encoding="utf-8")
    return portal.manage("shell", "-c", COUNT.format(messages=str(file))).strip().splitlines()[-1]
