"""manage.py sequence"""

import signal
from threading import Event

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from ledger import service
from ledger.sequencer import run


class Command(BaseCommand):
    help = "Put what was recorded into the log, and go on doing so until stopped. Any number of these may run."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="Put in what waits now, and end.")

    def handle(self, *args: object, **options: object) -> None:
        if options["once"]:
            made = service.sequence_all(now=timezone.now())
            self.stdout.write("Nothing waits." if made is None else f"The log has {made.size} entries.")
            return
        stop = Event()
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda *_: stop.set())
        run(stop)
