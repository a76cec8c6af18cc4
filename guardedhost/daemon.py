"""The agent as a daemon: attests at start, before the certificate lapses, and again while the host is not accepted.

It follows the fabric's mode by itself: it looks for it now and then, and attests at once in a new one. What the host
is registered for besides is tried every hour, which earns nothing and shows people who is ready for a switch.

The portal may be away for as long as it likes: the daemon tries again, less and less often, and with jitter, so that
a fleet does not come back all at once. Nothing here ends a running virtual machine.
"""

import logging
import random
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from types import FrameType

from guardedhost import agent, offline, returns
from guardedhost.errors import AgentError, Refused
from guardedhost.qemu import Qemu
from guardedhost.store import Store
from guardedhost.wire import Verdict

_FIRST_RETRY, _LAST_RETRY = 2.0, 300.0
_SOONEST = 1.0
_LOOK_EVERY, _TRY_EVERY = 300.0, 3600.0
# Renew early by up to this part of the time that is left, so that hosts that booted together drift apart.
_JITTER = 0.1

log = logging.getLogger(__name__)
_random = random.SystemRandom()


def run(store: Store, stop: threading.Event) -> None:
    """Attest until `stop` is set."""
    failures, others = 0, _Others(store)
    while not stop.is_set():
        mode = ""
        try:
            with agent.opened(store) as host:
                mode = host.client.mode()
                verdict = agent.attest(host)
        except AgentError as error:
            delay = backoff(failures, _random.random())
            failures += 1
            code = error.code if isinstance(error, Refused) else type(error).__name__
            log.warning("not attested: code=%s retry_in=%.0fs %s", code, delay, error)
        else:
            failures = 0
            offline.settle(store)
            returns.settle(store, Qemu())
            delay = until_next(verdict, datetime.now(UTC), _random.random())
            log.info("next attestation in %.0fs", delay)
        others.tried()
        _wait(store, stop, delay, mode, others)
    log.info("stopped")


class _Others:
    """The modes that are not in force, tried once an hour."""

    def __init__(self, store: Store) -> None:
        self._store, self._due = store, 0.0

    def tried(self) -> None:
        """Try what is due; that it fails is for people to see on the portal, and no trouble of this host's."""
        if time.monotonic() < self._due or len(agent.modes_of(self._store.config())) < 2:
            return
        self._due = time.monotonic() + _TRY_EVERY
        try:
            with agent.opened(self._store) as host:
                verdicts = agent.rehearse(host)
        except AgentError as error:
            log.info("another mode could not be tried: %s", error)
            return
        for mode, verdict in verdicts.items():
            log.info("tried: mode=%s status=%s", mode, verdict.status)


def _wait(store: Store, stop: threading.Event, seconds: float, mode: str, others: _Others) -> None:
    """Wait, and look now and then for the fabric's mode: another one than `mode` ends the waiting."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not stop.wait(min(left, _LOOK_EVERY)):
        if left <= _LOOK_EVERY:
            return
        try:
            now = agent.mode_of(store)
        except AgentError:
            continue  # the portal is away; the certificate in hand goes on counting
        if mode and now != mode:
            log.info("the fabric is in %s mode now, after %s", now, mode)
            return
        others.tried()


def backoff(failures: int, chance: float) -> float:
    """Exponential, with the upper half left to chance."""
    ceiling = min(_FIRST_RETRY * 2 ** min(failures, 16), _LAST_RETRY)
    return float(ceiling * (0.5 + 0.5 * chance))


def until_next(verdict: Verdict, now: datetime, chance: float) -> float:
    """Seconds until the moment the portal named, or somewhat earlier, never later."""
    left = max(verdict.next_attestation_at - now, timedelta()).total_seconds()
    return max(_SOONEST, left * (1 - _JITTER * chance))


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set: what is under way ends first, with the TPM's handles flushed."""
    stop = threading.Event()

    def handler(signum: int, frame: FrameType | None) -> None:
        stop.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, handler)
    return stop
