"""`manage.py log`: which logs this fabric has had, and the end of one that lost entries."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from attestation.errors import NotAllowed
from attestation.management.acts import ActsCommand, ask_for_person, person
from ledger import service as ledger
from ledger.core.note import NOTE_LIMIT
from ledger.core.strict_json import read_json, text

MAY = "kps.rotate"  # who puts changes of the fabric's keys forward


class Command(ActsCommand):
    help = "Show this fabric's logs, or begin a new one in the place of one that lost entries (docs/ledger.md)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        acts.add_parser("list", help="the keys of all logs, the one in use last, and why each began")
        begin = acts.add_parser("begin", help="end the log, and begin one with another name and another key")
        begin.add_argument(
            "--seen",
            type=Path,
            help="the newest checkpoint that somebody outside has kept: a note, or their guardhouse-log.json",
        )
        ask_for_person(begin)

    def _list(self, options: dict[str, Any]) -> None:
        for key in ledger.verifiers():
            self.stdout.write(str(key))
        for begun in reversed(ledger.beginnings()):
            self.stdout.write(f"entry {begun.index} began {begun.leaf.detail.get('name')}: {begun.reason}")

    def _begin(self, options: dict[str, Any]) -> None:
        by = person(options["by"])
        if not by.has_perm(MAY):
            raise NotAllowed("Only those who put changes of the fabric's keys forward begin a new log.")
        seen = None if options["seen"] is None else _note_in(options["seen"])
        actor = f"user:{by.get_username()}"
        begun = ledger.begin_log(seen=seen, by=actor, reason=options["reason"], now=timezone.now())
        self.stdout.write(f"{begun.before.name} has ended after {begun.left.size} entries that are here.")
        if begun.lost:
            self.stdout.write(f"At least {begun.lost} entries that it had signed are gone.")
        self.stdout.write(f"{begun.key.name} has begun with them. Tell its key to everybody who keeps checkpoints, and")
        self.stdout.write("to witnesses, by another way than the portal:")
        self.stdout.write(f"  {begun.key}")


def _note_in(path: Path) -> str:
    """Return the checkpoint in a file: a note, or what a tenant or a witness keeps of a log."""
    try:
        with path.open("rb") as file:
            content = file.read(4 * NOTE_LIMIT + 1)
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
    if content.lstrip().startswith(b"{"):
        return text(read_json(content, limit=4 * NOTE_LIMIT).get("checkpoint"), what="A checkpoint", longest=NOTE_LIMIT)
    return content.decode(errors="replace")
