"""`manage.py add_tenant NAME FINGERPRINT --owner USER`: make a tenant and say who speaks for it."""

from argparse import ArgumentParser

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone
from django.utils.text import slugify

from fabric.models import Membership, Tenant
from ledger import service as ledger


class Command(BaseCommand):
    help = "Make a tenant, known by the fingerprint of its owner key, and name the users who own it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("fingerprint", help="64 hexadecimal digits, as `guardhouse tenant owner new` printed them")
        parser.add_argument("--owner", action="append", default=[], help="a user name; may be given again")

    def handle(self, *args: object, **options: object) -> None:
        name, owners = str(options["name"]), list(options["owner"])  # type: ignore[call-overload]  # argparse's list
        tenant = Tenant(name=name, slug=slugify(name), owner_fingerprint=str(options["fingerprint"]).lower())
        try:
            tenant.full_clean()
        except ValidationError as error:
            raise CommandError("; ".join(error.messages)) from error
        users = list(User.objects.filter(username__in=owners))
        if len(users) != len(set(owners)):
            raise CommandError("One of the owners is not a user here.")
        with transaction.atomic():
            tenant.save()
            for user in users:
                Membership.objects.create(tenant=tenant, user=user, role=Membership.Role.OWNER)
            detail = {"name": name, "owner": tenant.owner_fingerprint, "users": owners}
            ledger.record(
                actor="system", act="tenant.added", subject=f"tenant:{tenant.slug}", detail=detail, now=timezone.now()
            )
        self.stdout.write(f"{name} is a tenant now.")
