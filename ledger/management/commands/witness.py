"""manage.py witness"""

from argparse import ArgumentParser

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from ledger import service
from ledger.errors import Refusal


class Command(BaseCommand):
    help = "Say who outside may cosign this fabric's checkpoints: list them, add one by its verifier key, remove one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        acts.add_parser("list", help="the witnesses, and the newest checkpoint that each has cosigned")
        add = acts.add_parser("add", help="let somebody cosign")
        add.add_argument("vkey", help="name+id+key, as `guardhouse audit witness` prints it")
        remove = acts.add_parser("remove", help="take no more cosignatures of a witness")
        remove.add_argument("name")

    def handle(self, *args: object, **options: str) -> None:
        try:
            {"list": self._list, "add": self._add, "remove": self._remove}[options["act"]](options)
        except Refusal as refusal:
            raise CommandError(str(refusal)) from refusal

    def _list(self, options: dict[str, str]) -> None:
        for witness in service.witnesses():
            newest = witness.cosignatures.order_by("-checkpoint").first()
            seen = (
                "nothing yet"
                if newest is None
                else f"{newest.checkpoint_id} entries, {newest.signed_at:%Y-%m-%d %H:%M:%S} UTC"
            )
            self.stdout.write(f"{witness.name}  {seen}")

    def _add(self, options: dict[str, str]) -> None:
        witness = service.add_witness(options["vkey"], by="system", now=timezone.now())
        self.stdout.write(f"{witness.name} may witness the log.")

    def _remove(self, options: dict[str, str]) -> None:
        service.remove_witness(options["name"], by="system", now=timezone.now())
        self.stdout.write(f"{options['name']} witnesses the log no more.")
