"""The loop that gives leaves their places: a thread of every process that serves, or `manage.py sequence`.

Any number of loops may run on any number of nodes; whichever is first takes what waits, and the others find nothing.
"""

import logging
from threading import Event
from typing import Final

from django.db import connection
from django.utils import timezone

from ledger.sequencing import MOST, sequence

log = logging.getLogger(__name__)
PAUSE_SECONDS: Final = 1.0
EVERYWHERE_EVERY: Final = 600  # pauses: how often the whole ledger is looked through


def run(stop: Event) -> None:
    """Go on until told to stop. What fails is logged and tried again: a database may be away for a while.

    There is a pause between two batches even where acts never cease: a batch costs the same for one leaf as for a
    hundred, and has an entry of its own.
    """
    rounds, size = 0, 0
    while not stop.is_set():
        try:
            made = sequence(now=timezone.now(), everywhere=rounds % EVERYWHERE_EVERY == 0)
            rounds += 1
            if made is not None:
                grown, size = made.size - size, made.size
                if grown > MOST:  # a full batch, and more may wait
                    continue
        except Exception:
            log.exception("the log does not go on; it is tried again")
            connection.close()
        stop.wait(PAUSE_SECONDS)
    connection.close()
