"""What the fabric's roles may do: set when they are made, left as their operator shaped them, added to by an update."""

import pytest
from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission

from fabric import roles

pytestmark = pytest.mark.django_db
LATER = "decide_lift"  # as if an update brought it


def update() -> None:
    """Do what `migrate` does around its migrations."""
    sender = apps.get_app_config("fabric")
    roles.note(sender, "default")
    create_permissions(apps.get_app_config("kps"), verbosity=0)
    roles.create(sender, "default")


def permissions(name: str) -> set[str]:
    return {f"{each.content_type.app_label}.{each.codename}" for each in Group.objects.get(name=name).permissions.all()}


def test_each_role_may_what_is_written_here() -> None:
    assert {name: permissions(name) for name in roles.ROLES} == {name: set(may) for name, may in roles.ROLES.items()}


def test_an_update_gives_a_role_what_it_brings_for_it() -> None:
    Permission.objects.get(codename=LATER).delete()
    update()
    assert permissions("approver") == set(roles.ROLES["approver"])
    assert f"kps.{LATER}" not in permissions("fabric admin") | permissions("auditor")


def test_what_an_operator_has_taken_from_a_role_stays_taken() -> None:
    group = Group.objects.get(name="approver")
    group.permissions.remove(Permission.objects.get(codename="trust_maker"))
    Permission.objects.get(codename=LATER).delete()
    update()
    update()
    assert permissions("approver") == set(roles.ROLES["approver"]) - {"attestation.trust_maker"}


def test_a_role_that_was_deleted_comes_back_whole() -> None:
    Group.objects.get(name="auditor").delete()
    update()
    assert permissions("auditor") == set(roles.ROLES["auditor"])
