"""`manage.py export_log FILE [--owner FINGERPRINT] [--since SIZE]`: the log with its proofs and Evidence, sealed."""

import os
import re
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from fabric.exports import export
from ledger.errors import Refusal


class Command(BaseCommand):
    help = "Write the log into a file that `guardhouse audit verify` reads: all of it, or what concerns some owners."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--owner", action="append", help="only what concerns this owner; may be given more than once"
        )
        parser.add_argument("--since", type=int, default=0, help="the size of the checkpoint that the reader has kept")

    def handle(self, *args: Any, **options: Any) -> None:
        owners: list[str] | None = options["owner"]
        if any(re.fullmatch("[0-9a-f]{64}", each) is None for each in owners or ()):
            raise CommandError("An owner is named by its fingerprint, in 64 hexadecimal digits.")
        path: Path = options["file"]
        try:
            lines = export(owners=owners, since=options["since"], now=timezone.now())
            # Whoever reads it sees who got which key: it is for its owner's eyes, as every file that is made here.
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.writelines(lines)
        except Refusal as refusal:
            raise CommandError(str(refusal)) from refusal
        except FileExistsError:
            raise CommandError(f"{path} is there already.") from None
        self.stdout.write(f"{path}: {path.stat().st_size} bytes.")
