"""Acts of people from a console: each names the person whose it is, and has that person's rights and no more."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from attestation import service
from attestation.errors import Refusal
from attestation.models import Proposal


class ActsCommand(BaseCommand):
    """A command with several acts; `act` names the method that does it, with an underscore before it."""

    def handle(self, *args: object, **options: Any) -> None:
        try:
            getattr(self, f"_{options['act']}")(options)
        except Refusal as refusal:
            raise CommandError(f"{refusal} ({refusal.code})") from refusal

    def agreed(self, options: dict[str, Any]) -> bool:
        """Ask whoever sits there, after what would happen was said; `--yes` has answered, `--dry-run` ends it here."""
        if options["dry_run"]:
            self.stdout.write("nothing was done")
            return False
        if not options["yes"]:
            try:
                answer = input("Go on? Type yes: ")
            except EOFError:
                raise CommandError("Nothing was done: nobody answered. Where nobody can, say --yes.") from None
            if answer.strip() != "yes":
                raise CommandError("Nothing was done.")
        return True

    def put_forward(self, proposal: Proposal) -> None:
        self.stdout.write(f"proposal {proposal.pk}: somebody else decides it")


def ask_for_person(*parsers: ArgumentParser) -> None:
    for parser in parsers:
        parser.add_argument("--by", required=True, help="the person whose act it is")
        parser.add_argument("--reason", required=True, help="goes to the audit log for good")


def ask_before(*parsers: ArgumentParser) -> None:
    for parser in parsers:
        answer = parser.add_mutually_exclusive_group()
        answer.add_argument("--dry-run", action="store_true", help="only say what it would reach")
        answer.add_argument("--yes", action="store_true", help="do not ask whether to go on")


def ask_for_decision(parser: ArgumentParser) -> None:
    parser.add_argument("proposal", type=int)
    parser.add_argument("--reject", action="store_true")


def decide(options: dict[str, Any]) -> None:
    service.decide(
        options["proposal"],
        by=person(options["by"]),
        approve=not options["reject"],
        reason=options["reason"],
        now=timezone.now(),
    )


def person(name: str) -> User:
    found = User.objects.filter(username=name, is_active=True).first()
    if found is None:
        raise CommandError(f"There is no person {name} in the portal.")
    return found
