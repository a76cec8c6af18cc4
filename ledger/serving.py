"""Whether a process that serves sequences the log too. Imported before apps are loaded, so no model is named here."""

from threading import Event, Thread

from django.conf import settings
from django.core.signals import request_started


def sequence_when_serving() -> None:
    """Have this process sequence from its first request on, if it is set up to."""
    if settings.SEQUENCER == "thread":
        request_started.connect(_start, dispatch_uid="ledger.sequencer")


def _start(sender: object, **kwargs: object) -> None:
    from ledger.sequencer import run

    request_started.disconnect(dispatch_uid="ledger.sequencer")
    Thread(target=run, args=(Event(),), name="sequencer", daemon=True).start()
