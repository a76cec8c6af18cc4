"""When the daemon attests again, and that it outlives the portal."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from guardedhost import daemon
from guardedhost.store import Store
from guardedhost.wire import Verdict
from tests.guardedhost.conftest import Portal

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def verdict(seconds: float) -> Verdict:
    return Verdict("Passed", (), (), b"", "", NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_the_next_attestation_is_a_little_early_and_never_late(chance: float) -> None:
    assert 900 <= daemon.until_next(verdict(1000), NOW, chance) <= 1000


@pytest.mark.parametrize("seconds", [-1000, 0, 0.5])
def test_a_moment_in_the_past_does_not_make_a_busy_loop(seconds: float) -> None:
    assert daemon.until_next(verdict(seconds), NOW, 1.0) >= 1


def test_retries_come_less_and_less_often_up_to_a_limit() -> None:
    delays = [daemon.backoff(failures, 1.0) for failures in range(12)]
    assert delays == sorted(delays)
    assert delays[0] <= 2
    assert delays[-1] == 300
    assert daemon.backoff(10**6, 0.0) == 150


def test_the_daemon_goes_on_while_the_portal_is_away(
    store: Store, portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three failures of different kinds, then an answer: the fourth try is an attestation."""
    stop = threading.Event()
    answers = iter([(503, {}), (403, {"code": "unauthorized_host", "detail": "No."}), (200, b"<html>")])

    def answer(path: str, body: object) -> tuple[int, object]:
        reply = next(answers, None)
        if reply is None:
            stop.set()
        return reply or (500, {})

    portal.answer = answer
    store.save_config(replace(store.config(), server=portal.url, attester="host"))
    monkeypatch.setattr(daemon, "_FIRST_RETRY", 0.01)
    daemon.run(store, stop)
    assert len(portal.seen) == 4


def test_sigterm_ends_the_daemon_cleanly(store: Store, portal: Portal) -> None:
    asked = threading.Event()

    def answer(path: str, body: object) -> tuple[int, object]:
        asked.set()
        return 503, {}

    portal.answer = answer
    store.save_config(replace(store.config(), server=portal.url, attester="host"))
    command = [
        sys.executable,
        "-c",
        "from cli.main import main; main()",
        "host",
        "run",
        "--state-dir",
        str(store.folder),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ}) as agent:
        assert asked.wait(30)
        agent.send_signal(signal.SIGTERM)
        _, said = agent.communicate(timeout=30)
    assert agent.returncode == 0
    assert b"not attested: code=Unreachable" in said
    assert b"stopped" in said
