"""`manage.py add_person NAME --role ROLE [--tenant SLUG]`: let a person in; the password comes on standard input."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import Group, User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from fabric.models import Membership, Tenant
from ledger import service as ledger

FABRIC_ROLES = ("fabric admin", "approver", "auditor")
TENANT_ROLES = tuple(role.value for role in Membership.Role)


class Command(BaseCommand):
    help = "Add a person with one role. The password is read from standard input, one line."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--role", required=True, choices=[*FABRIC_ROLES, *TENANT_ROLES])
        parser.add_argument("--tenant", help="the tenant's short name, for the roles owner and operator")

    def handle(self, *args: Any, **options: Any) -> None:
        name, role, slug = options["name"], options["role"], options["tenant"]
        if (role in TENANT_ROLES) != bool(slug):
            raise CommandError("The roles owner and operator belong to a tenant (--tenant), and no other role does.")
        if User.objects.filter(username=name).exists():
            raise CommandError(f"There is a person called {name} already.")
        password = sys.stdin.readline().rstrip("\n")
        try:
            validate_password(password, User(username=name))
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        with transaction.atomic():
            user = User.objects.create_user(name, password=password)
            if slug:
                self._join(user, role, slug)
            else:
                user.groups.add(Group.objects.get(name=role))
            detail: dict[str, object] = {"role": role, "tenant": slug or ""}
            ledger.record(
                actor="console", act="person.added", subject=f"user:{name}", detail=detail, now=timezone.now()
            )

    def _join(self, user: User, role: str, slug: str) -> None:
        tenant = Tenant.objects.filter(slug=slug).first()
        if tenant is None:
            raise CommandError(f"There is no tenant called {slug}; add it with `manage.py add_tenant`.")
        Membership.objects.create(tenant=tenant, user=user, role=role)
