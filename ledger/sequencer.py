"""The loop that gives leaves their places: a thread of every process that serves, or `manage.py sequence`.

Any number of loops may run on any number of nodes; whichever is first takes what waits, and the others find nothing.
"""

import logging
from threading import Event
from typing import Final

from django.db import connection
from django.utils import timezone

from ledger.sequencing import sequence

log = logging.getLogger(__name__)
PAUSE_SECONDS: Final = 1.0
EVERYWHERE_EVERY: Final = 600  # pauses: how often the whole ledger is looked through


def run(stop: Event) -> None:
    """Go on until told to stop. What fails is logged and tried again: a database may be away for a while."""
    rounds = 0
    while not stop.is_set():
        try:
            while sequence(now=timezone.now(), everywhere=rounds % EVERYWHERE_EVERY == 0):
                pass
            rounds += 1
        except Exception:
            log.exception("the log does not go on; it is tried again")
            connection.close()
        stop.wait(PAUSE_SECONDS)
    connection.close()
