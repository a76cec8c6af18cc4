"""`manage.py custody`: make, move, back up and bring back what holds this service's own keys."""

import getpass
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import transaction
from django.utils import timezone

from attestation import service as attestation
from attestation.management.acts import ActsCommand
from kps import service as kps
from ledger import moving
from ledger.custody import HeldKey, custody
from ledger.custody.choice import NAMES
from ledger.custody.errors import CustodyUnavailable
from ledger.log_key import require_opened


class Command(ActsCommand):
    help = (
        "What holds this service's own keys. Acts of whoever runs this node; each is a leaf of the log. Passphrases and"
        " recovery shares are asked for, or read from standard input, one line; they are never arguments."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        acts.add_parser("show", help="every key, where it rests, and whether it opens here; fails when one does not")
        create = acts.add_parser("create", help="make the first root key of a new fabric, where the settings say")
        move = acts.add_parser("move", help="re-seal every key for another custody")
        move.add_argument("to", choices=NAMES)
        move.add_argument(
            "--new-root",
            action="store_true",
            help="under a root key that was never where the keys rest now; stop the service on every node first",
        )
        backup = acts.add_parser("backup", help="write the root key to a file, under a passphrase")
        restore = acts.add_parser("restore", help="put a backup's root key where the settings say")
        for each in (backup, restore):
            each.add_argument("file", type=Path)
        recover = acts.add_parser("recover", help="after a firmware update: seal the root key to this TPM anew")
        share = acts.add_parser("share", help="make another recovery share; the one before opens nothing more")
        for each in (create, move, backup, restore, recover, share):
            each.add_argument("--reason", required=True, help="goes to the audit log for good")

    def _show(self, options: dict[str, Any]) -> None:
        self._settle()
        here, closed = custody(), 0
        self.stdout.write(f"custody {settings.CUSTODY}")
        with transaction.atomic():
            keys = _held()
        tries: list[tuple[str, bool, Callable[[], object]]] = [
            (key.name, key.in_token, partial(here.open, key.sealed, key.purpose)) for key in keys
        ]
        tries.append(("log", False, partial(require_opened, here)))
        for name, in_token, opening in tries:
            where = "in the token" if in_token else "under the root key"
            try:
                opening()
            except CustodyUnavailable as refusal:
                closed, where = closed + 1, f"DOES NOT OPEN: {refusal} ({refusal.code})"
            self.stdout.write(f"  {name}  {where}")
        if closed:
            raise CommandError(f"{closed} keys do not open here.")

    def _create(self, options: dict[str, Any]) -> None:
        self._tell(moving.create(settings.CUSTODY, held=_held, who=_who(options)))

    def _move(self, options: dict[str, Any]) -> None:
        self._settle()
        done = moving.move(options["to"], new_root=options["new_root"], held=_held, who=_who(options))
        for name in done.moved:
            self.stdout.write(f"  {name}  moved")
        for name in done.left:
            self.stdout.write(f"  {name}  stays in the token; leave the token set until nothing rests there")
        self._tell(done)
        if done.custody != settings.CUSTODY:
            self.stdout.write(f"Set GUARDHOUSE_CUSTODY to {done.custody} on every node, and start the service anew.")

    def _backup(self, options: dict[str, Any]) -> None:
        moving.backup(options["file"], self._asked("Passphrase: "), who=_who(options))
        self.stdout.write("Keep the file and its passphrase apart; with a copy of the database they open every key.")

    def _restore(self, options: dict[str, Any]) -> None:
        try:
            content = options["file"].read_bytes()
        except OSError as error:
            raise CommandError(f"{options['file']} cannot be read: {error.strerror}.") from error
        self._tell(moving.restore(content, self._asked("Passphrase: "), held=_held, who=_who(options)))

    def _recover(self, options: dict[str, Any]) -> None:
        pcrs = moving.recover(self._asked("Recovery share: "), held=_held, who=_who(options))
        named = ", ".join(str(pcr) for pcr in pcrs)
        self.stdout.write(f"Sealed to this TPM and to what PCR {named} are now. Start the service anew.")

    def _share(self, options: dict[str, Any]) -> None:
        self._tell_share(moving.renew_share(who=_who(options)))

    def _settle(self) -> None:
        done = moving.settle(held=_held)
        if done:
            self.stdout.write(f"{done} If nobody has its recovery share, `manage.py custody share` makes another.")

    def _tell(self, done: moving.Done) -> None:
        self.stdout.write(f"The keys rest in custody {done.custody}.")
        if done.kept is not None:
            self.stdout.write(
                f"The root key of before is {done.kept}; destroy it when no backup of the database needs it."
            )
        if done.share:
            self._tell_share(done.share)

    def _tell_share(self, share: str) -> None:
        self.stdout.write("Recovery share, shown this once; write it down and keep it away from this node:")
        self.stdout.write(share)

    def _asked(self, prompt: str) -> str:
        """Ask a person who sits there, or read one line from a program."""
        return getpass.getpass(prompt) if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")


def _held() -> list[HeldKey]:
    return [*attestation.held_keys(now=timezone.now()), *kps.held_keys()]


def _who(options: dict[str, Any]) -> moving.Who:
    return moving.Who(f"console:{getpass.getuser()}", options["reason"], timezone.now())
