"""`manage.py api_token`: people's tokens for the API, from a console."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.utils import timezone

from attestation.management.acts import ActsCommand, ask_for_person, person
from fabric.models import ApiToken
from fabric.tokens import LONGEST, end_token, make_token


class Command(ActsCommand):
    help = "List tokens for the API, make one, or end one. Each act is that of a person, with that person's rights."

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        acts.add_parser("list", help="every token that counts now")
        make = acts.add_parser("make", help="make a token and write it to standard output, once")
        make.add_argument("name", help="so that people know it again")
        make.add_argument("--days", type=int, choices=range(1, LONGEST.days + 1), default=30, metavar="DAYS")
        end = acts.add_parser("end", help="end a token, at once")
        end.add_argument("token", type=UUID, help="as `list` names it; never the token itself")
        ask_for_person(make, end)

    def _list(self, options: dict[str, Any]) -> None:
        for each in ApiToken.objects.alive(now=timezone.now()).select_related("user"):
            used = f"{each.used_at:%Y-%m-%d %H:%M} UTC" if each.used_at else "never"
            until = f"{each.expiry:%Y-%m-%d %H:%M} UTC"
            self.stdout.write(f"{each.pk}  {each.user}  until {until}  last used {used}  {each.name}")

    def _make(self, options: dict[str, Any]) -> None:
        _, text = make_token(
            options["name"],
            lifetime=timedelta(days=options["days"]),
            by=person(options["by"]),
            reason=options["reason"],
            now=timezone.now(),
        )
        self.stdout.write(text)

    def _end(self, options: dict[str, Any]) -> None:
        end_token(options["token"], by=person(options["by"]), reason=options["reason"], now=timezone.now())
        self.stdout.write("it counts no more")
