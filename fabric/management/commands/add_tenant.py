"""`manage.py add_tenant SLUG --name NAME --owner FINGERPRINT`: know a tenant by the fingerprint of its owner key."""

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from fabric.models import Tenant
from ledger import service as ledger


class Command(BaseCommand):
    help = "Add a tenant. Compare the owner's fingerprint with the tenant by another way than this network."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("slug")
        parser.add_argument("--name", required=True)
        parser.add_argument("--owner", required=True, help="fingerprint of the owner key, 64 hexadecimal digits")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = Tenant(slug=options["slug"], name=options["name"], owner_fingerprint=options["owner"])
        try:
            tenant.full_clean()
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        with transaction.atomic():
            tenant.save()
            detail: dict[str, object] = {"name": tenant.name, "owner": tenant.owner_fingerprint}
            ledger.record(
                actor="console", act="tenant.added", subject=f"tenant:{tenant.slug}", detail=detail, now=timezone.now()
            )
