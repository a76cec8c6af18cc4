"""The portal under load, killed as by a power cut, and asked afterwards: what it has answered must still be true.

The promises are those of the service: a spent challenge stays spent, an acknowledged attestation has its row, its
certificate and its leaf in the ledger, and no key has left without its row. In the same way the portal is asked by
twenty at once.
"""

import hashlib
import json
import os
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import psycopg
import pytest
from cryptography import x509

from attestation.core.base64url import to_b64u
from deploy.localfabric import Portal, free_port
from tests.e2e.wire import (
    LOST,
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
from tests.machines import Machine, booted, decoded
from tests.tpm_lab import Maker

pytestmark = pytest.mark.e2e

ROUNDS = 4
RELEASING = 3  # threads; the two machines attest in a thread each
AT_ONCE = 20
RUSH = 40
RELEASES = "/kps/v1/releases"
CRASH_DATABASE = f"guardhouse_crash_{os.getpid()}"  # tests that run side by side share a cluster
UNSPENT_BUT_ANSWERED = """
SELECT count(*) FROM attestation_attestation a JOIN attestation_challenge c ON c.id = a.challenge_id
WHERE c.spent_at IS NULL
"""


@dataclass
class Records:
    """The portal's database, read past the portal."""

    portal: Portal

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        url = self.portal.settings.get("GUARDHOUSE_DATABASE_URL")
        if url is not None:
            with psycopg.connect(url) as connection:
                return connection.execute(query.encode()).fetchall()
        with closing(sqlite3.connect(self.portal.folder / "guardhouse.sqlite3")) as file:
            return file.execute(query).fetchall()

    def flaws(self) -> list[tuple[Any, ...]]:
        """Return what SQLite finds wrong with its file. PostgreSQL was not killed and would not have started."""
        if "GUARDHOUSE_DATABASE_URL" in self.portal.settings:
            return []
        broken = [row for row in self.rows("PRAGMA integrity_check") if row != ("ok",)]
        return broken + self.rows("PRAGMA foreign_key_check")

    def attestations(self) -> dict[UUID, tuple[int, str]]:
        """Return challenge -> (number, status)."""
        found = self.rows("SELECT challenge_id, id, status FROM attestation_attestation")
        return {UUID(str(asked)): (number, status) for asked, number, status in found}

    def certificates(self) -> dict[str, int]:
        """Return serial -> number of the attestation that earned it."""
        return dict(self.rows("SELECT serial, attestation_id FROM attestation_healthcertificate"))

    def releases(self) -> dict[tuple[str, str], int]:
        """Return (certificate, digest of the nonce) -> number, of keys that were released."""
        found = self.rows("SELECT serial, nonce_sha256, id FROM kps_keyrelease WHERE outcome = 'released'")
        return {(serial, digest): number for serial, digest, number in found}

    def leaves(self, names: str, *acts: str) -> Counter[int]:
        """Return the numbers that the ledger's leaves of these acts name, each with how often."""
        wanted = ", ".join(f"'{act}'" for act in acts)
        found = self.rows(f"SELECT detail FROM ledger_leaf WHERE act IN ({wanted})")  # noqa: S608  (constants)
        details = [json.loads(detail) if isinstance(detail, str) else detail for (detail,) in found]
        return Counter(int(detail[names]) for detail in details)


@dataclass
class Diary:
    """What the clients were told, and what they never heard an answer to."""

    attested: dict[UUID, str] = field(default_factory=dict)
    serials: list[str] = field(default_factory=list)
    nonces: list[bytes] = field(default_factory=list)
    refused: set[UUID] = field(default_factory=set)
    told: list[tuple[str, bytes]] = field(default_factory=list)
    unheard: list[tuple[str, bytes]] = field(default_factory=list)

    def send(self, line: Line, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Send what must be answered once, and remember whether it was."""
        try:
            answer = line.post(path, body)
        except LOST:
            self.unheard.append((path, body))
            raise
        self.told.append((path, body))
        return answer


@dataclass
class Lab:
    """A portal, two machines that attest, and one of them that holds a VM."""

    portal: Portal
    machines: Sequence[Machine]
    holder: Holder

    @property
    def records(self) -> Records:
        return Records(self.portal)

    @contextmanager
    def line(self) -> Iterator[Line]:
        with closing(Line(self.portal.port)) as line:
            yield line


@contextmanager
def database() -> Iterator[dict[str, str]]:
    """Give the settings of a portal: SQLite, or a database of its own on the test run's PostgreSQL."""
    if "GUARDHOUSE_DATABASE_URL" not in os.environ:
        yield {}
        return
    here = urlsplit(os.environ["GUARDHOUSE_DATABASE_URL"])
    with psycopg.connect(urlunsplit(here._replace(path="/postgres")), autocommit=True) as server:
        server.execute(f"CREATE DATABASE {CRASH_DATABASE}")
        try:
            yield {"GUARDHOUSE_DATABASE_URL": urlunsplit(here._replace(path=f"/{CRASH_DATABASE}"))}
        finally:
            server.execute(f"DROP DATABASE {CRASH_DATABASE} WITH (FORCE)")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("crash")
    maker = Maker(folder / "maker")
    with ExitStack() as stack:
        settings = stack.enter_context(database()) | {"GUARDHOUSE_HASHED_STATIC": "0"}
        portal = portal_in(folder / "portal", free_port(), settings)
        stack.callback(portal.kill)
        machines = [
            stack.enter_context(booted(maker, folder, name=name, capture="secureboot-on"))
            for name in ("nbg-a01", "nbg-a02")
        ]
        with closing(Line(portal.port)) as line:
            for machine in machines:
                enrol(line, machine)
                attest(line, machine)
            approve(portal, maker, *machines)
            yield Lab(portal, machines, holder(line, machines[0]))


def keep_attesting(lab: Lab, machine: Machine, diary: Diary) -> None:
    """Attest until the portal is gone; every third time with a signature that does not hold."""
    with lab.line() as line:
        for turn in range(10_000):
            try:
                asked = challenge(line, machine)
                body = answer_to(asked, machine)
                status, answer = diary.send(line, evidence_path(asked), spoilt(body) if turn % 3 == 2 else body)
            except LOST:
                return
            if status == 200:
                diary.attested[UUID(asked["id"])] = answer["status"]
                serial = x509.load_der_x509_certificate(decoded(answer, "certificate")).serial_number
                diary.serials.append(f"{serial:x}")
            else:
                assert answer["code"] == "bad_signature"
                diary.refused.add(UUID(asked["id"]))


def spoilt(body: bytes) -> bytes:
    evidence = json.loads(body)
    signature = bytearray(decoded(evidence, "signature"))
    signature[-1] ^= 1
    return json.dumps(evidence | {"signature": to_b64u(bytes(signature))}).encode()


def keep_releasing(lab: Lab, diary: Diary) -> None:
    """Ask for the VM's key, each time with a fresh nonce, until the portal is gone."""
    with lab.line() as line:
        while True:
            nonce = secrets.token_bytes(32)
            try:
                must(diary.send(line, RELEASES, lab.holder.request(nonce)))
            except LOST:
                return
            diary.nonces.append(nonce)


def load_and_kill(lab: Lab) -> Diary:
    """Load the portal, kill it at a moment that nobody has chosen, and start it again."""
    diary = Diary()
    with ThreadPoolExecutor(RELEASING + len(lab.machines)) as pool:
        running = [pool.submit(keep_attesting, lab, machine, diary) for machine in lab.machines]
        running += [pool.submit(keep_releasing, lab, diary) for _ in range(RELEASING)]
        time.sleep(0.8 + secrets.randbelow(800) / 1000)
        lab.portal.kill()
        for thread in running:
            thread.result(timeout=60)
    lab.portal.start()
    return diary


def answer_again(lab: Lab, diary: Diary) -> None:
    """Send everything once more: what was answered is refused; what was not is answered at most once."""
    with lab.line() as line:
        for path, body in diary.told:
            assert line.post(path, body)[1].get("code") in ("challenge_spent", "release_replayed"), path
        for path, body in diary.unheard:
            line.post(path, body)
            assert line.post(path, body)[1].get("code") in ("challenge_spent", "release_replayed"), path


def missing_after(lab: Lab, diary: Diary) -> set[object]:
    """Return what the clients were told and the database does not hold."""
    records = lab.records
    verdicts = {asked: status for asked, (_, status) in records.attestations().items()}
    released = {(lab.holder.serial, hashlib.sha256(nonce).hexdigest()) for nonce in diary.nonces}
    told: set[object] = {*diary.attested.items(), *((asked, "TpmError") for asked in diary.refused)}
    return (
        told - verdicts.items()
        | set(diary.serials) - records.certificates().keys()
        | released - records.releases().keys()
    )


def assert_every_row_has_its_leaf(records: Records) -> None:
    attested = Counter(number for number, _ in records.attestations().values())
    acts = ("attestation.passed", "attestation.failed", "attestation.refused")
    assert records.leaves("attestation", *acts) == attested
    assert records.leaves("release", "key.released") == Counter(records.releases().values())


def test_nothing_that_was_answered_is_lost_or_comes_back_when_the_portal_is_killed_under_load(lab: Lab) -> None:
    diaries = [round_of_load(lab) for _ in range(ROUNDS)]
    # Else the kills have met an idle portal, and nothing was shown.
    assert sum(len(diary.serials) for diary in diaries) > ROUNDS
    assert sum(len(diary.refused) for diary in diaries) > 0
    assert sum(len(diary.nonces) for diary in diaries) > ROUNDS
    assert sum(len(diary.unheard) for diary in diaries) >= ROUNDS


def round_of_load(lab: Lab) -> Diary:
    diary = load_and_kill(lab)
    assert lab.records.flaws() == []
    assert missing_after(lab, diary) == set()
    assert_every_row_has_its_leaf(lab.records)
    answer_again(lab, diary)
    assert lab.records.rows(UNSPENT_BUT_ANSWERED) == [(0,)]
    return diary


def all_at_once(lab: Lab, path: str, body: bytes) -> list[tuple[int, str]]:
    """Send one message from many threads at the same moment; return status and code of each answer."""
    ready = Barrier(AT_ONCE)

    def send() -> tuple[int, str]:
        with lab.line() as line:
            line.get("/attestation/v1/info")
            ready.wait(30)
            status, answer = line.post(path, body)
            return status, answer.get("code", "")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [sent.result() for sent in [pool.submit(send) for _ in range(AT_ONCE)]]


def evidence_once(lab: Lab) -> tuple[str, bytes]:
    with lab.line() as line:
        asked = challenge(line, lab.machines[0])
    return evidence_path(asked), answer_to(asked, lab.machines[0])


def release_once(lab: Lab) -> tuple[str, bytes]:
    return RELEASES, lab.holder.request(secrets.token_bytes(32))


@pytest.mark.parametrize(
    ("message", "code", "table"),
    [
        pytest.param(evidence_once, "challenge_spent", "attestation_attestation", id="evidence"),
        pytest.param(release_once, "release_replayed", "kps_keyrelease", id="release"),
    ],
)
def test_of_twenty_that_send_the_same_at_once_exactly_one_is_answered(
    lab: Lab, message: Callable[[Lab], tuple[str, bytes]], code: str, table: str
) -> None:
    path, body = message(lab)
    count = f"SELECT count(*) FROM {table}"  # noqa: S608  (a constant)
    ((before,),) = lab.records.rows(count)
    answers = Counter(all_at_once(lab, path, body))
    assert answers == {(200, ""): 1, (409, code): AT_ONCE - 1}
    assert lab.records.rows(count) == [(before + 1,)]


def test_forty_clients_that_keep_asking_are_all_served(lab: Lab) -> None:
    """More requests than the database has places for connections: none may be kept that no request will use."""

    def ask() -> list[int]:
        with lab.line() as line:
            return [line.get("/attestation/v1/info")[0] for _ in range(15)]

    with ThreadPoolExecutor(RUSH) as pool:
        answers = [sent.result() for sent in [pool.submit(ask) for _ in range(RUSH)]]
    assert {status for each in answers for status in each} == {200}
