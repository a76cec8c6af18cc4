"""Many hosts at a time: how many attestations a second a cluster node and its PostgreSQL do on this machine.

As many hosts as connections, each with its own software TPM, its own connection and Evidence that its TPM has signed
beforehand. Each host in turn sends its Evidence and asks for the challenge of its next attestation, so that every pair
of requests is the work of one whole attestation. The client takes part of the same processors: its share is shown.
"""

import json
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from statistics import quantiles
from typing import Final

from bench.logs import in_kilobytes, server_log
from bench.site import NotInstalled, Site, idle_ms, site
from tests.e2e.wire import Line, answer_to, challenge, evidence_path
from tests.machines import Machine, booted_from
from tests.tpm_lab import Maker

HOSTS: Final = 16
WARM_UP: Final = 4
ATTESTATIONS: Final = 60  # of each host; they are signed and sent within the minute that a challenge lives
WORKERS: Final = 2  # processes of the portal: one for each processor of the machine that the targets were set on


class Caller:
    """The least that speaks HTTP/1.1: a client shall leave the processors to the portal."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._answers = self._socket.makefile("rb")

    def send(self, request: bytes) -> tuple[int, bytes]:
        self._socket.sendall(request)
        status, length = int(self._answers.readline().split()[1]), 0
        while (line := self._answers.readline()).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        return status, self._answers.read(length)

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


def request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode("ascii") + b"\r\n\r\n" + body


def load_figures(maker: Maker, folder: Path) -> list[str]:
    with ExitStack() as stack:
        names = [f"nbg-b{number:02}" for number in range(HOSTS)]
        log = server_log()
        machines = [stack.enter_context(booted_from(maker, folder, name=name, log=log)) for name in names]
        try:
            here = stack.enter_context(site(maker, machines, folder, postgresql=True, workers=WORKERS))
        except NotInstalled as reason:
            return [f"not measured: {reason}"]
        storm(here, machines, WARM_UP)
        return storm(here, machines, ATTESTATIONS).lines(log)


@dataclass(frozen=True, slots=True)
class Storm:
    """What came of one burst: how long it took, whose CPU it took, and how long each pair of requests waited."""

    seconds: float
    portal: float
    database: float
    client: float
    idle: float
    pairs: Sequence[float]

    def lines(self, log: bytes) -> list[str]:
        count, percent = len(self.pairs), 0.1 / self.seconds  # of one processor
        others = (cpu_count() or 1) * self.seconds * 1000 - self.portal - self.database - self.client - self.idle
        shares = {
            "portal": self.portal,
            "database": self.database,
            "this client": self.client,
            "other programs": others,
            "idle": self.idle,
        }
        cuts = quantiles(self.pairs, n=20)
        return [
            f"{HOSTS} hosts and connections, {WORKERS} processes, PostgreSQL, {in_kilobytes(log)} log unchanged:"
            f" {count} attestations in {self.seconds:.1f} s, {count / self.seconds:.0f}/s",
            f"CPU for each: portal {self.portal / count:.2f} ms, database {self.database / count:.2f} ms;"
            f" this client {self.client / count:.2f} ms",
            "processors: " + ", ".join(f"{who} {max(spent, 0) * percent:.0f} %" for who, spent in shares.items()),
            f"challenge and Evidence together: half within {cuts[9]:.0f} ms, 95 % within {cuts[18]:.0f} ms",
        ]


def storm(here: Site, machines: Sequence[Machine], each: int) -> Storm:
    with ThreadPoolExecutor(HOSTS) as pool, ExitStack() as stack:
        port = here.portal.port
        signed = list(pool.map(lambda machine: prepared(port, machine, each), machines))
        callers = [stack.enter_context(closing(Caller(port))) for _ in machines]
        before, own, idle = here.spent(), time.process_time(), idle_ms()
        pairs = [pair for pairs in pool.map(attest_all, callers, signed) for pair in pairs]
        cost, client, idle = here.spent() - before, time.process_time() - own, idle_ms() - idle
    return Storm(cost.time / 1000, cost.portal, cost.database, client * 1000, idle, pairs)


def prepared(port: int, machine: Machine, count: int) -> list[tuple[bytes, bytes]]:
    """Have a TPM sign for some challenges of its own; give the requests that are sent in the burst, by pairs."""
    wanted = {"attester": machine.attester, "event_log_sha256": machine.log_digest}
    ask = request("/attestation/v1/challenges", json.dumps(wanted).encode())
    with closing(Line(port)) as line:
        asked = [challenge(line, machine) for _ in range(count)]
    return [(request(evidence_path(each), answer_to(each, machine)), ask) for each in asked]


def attest_all(caller: Caller, requests: Sequence[tuple[bytes, bytes]]) -> list[float]:
    """Send all, and return how long each pair took in milliseconds."""
    return list(_attest_all(caller, requests))


def _attest_all(caller: Caller, requests: Sequence[tuple[bytes, bytes]]) -> Iterator[float]:
    for evidence, ask in requests:
        began = time.perf_counter()
        status, answer = caller.send(evidence)
        assert status == 200, answer
        assert b'"status":"Passed"' in answer, answer
        status, answer = caller.send(ask)
        assert status == 201, answer
        yield (time.perf_counter() - began) * 1000
