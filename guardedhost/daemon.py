"""The agent as a daemon: attests at start, before the certificate lapses, and again while the host is not accepted.

The portal may be away for as long as it likes: the daemon tries again, less and less often, and with jitter, so that
a fleet does not come back all at once. Nothing here ends a running virtual machine.
"""

import logging
import random
import signal
import threading
from datetime import UTC, datetime, timedelta
from types import FrameType

from guardedhost import agent
from guardedhost.errors import AgentError, Refused
from guardedhost.store import Store
from guardedhost.wire import Verdict

_FIRST_RETRY, _LAST_RETRY = 2.0, 300.0
_SOONEST = 1.0
# Renew early by up to this part of the time that is left, so that hosts that booted together drift apart.
_JITTER = 0.1

log = logging.getLogger(__name__)
_random = random.SystemRandom()


def run(store: Store, stop: threading.Event) -> None:
    """Attest until `stop` is set."""
    failures = 0
    while not stop.is_set():
        try:
            with agent.opened(store) as host:
                verdict = agent.attest(host)
        except AgentError as error:
            delay = backoff(failures, _random.random())
            failures += 1
            code = error.code if isinstance(error, Refused) else type(error).__name__
            log.warning("not attested: code=%s retry_in=%.0fs %s", code, delay, error)
        else:
            failures = 0
            delay = until_next(verdict, datetime.now(UTC), _random.random())
            log.info("next attestation in %.0fs", delay)
        stop.wait(delay)
    log.info("stopped")


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
