"""The fabric's own roles, as Django groups. Tenants' roles are memberships."""

from collections.abc import Iterable

from django.contrib.auth.models import Group, Permission
from django.db import connections

ROLES = {
    "fabric admin": (
        *("attestation.propose", "attestation.revoke", "kps.deny", "kps.rotate", "fabric.offer_templates"),
        *("fabric.view_fleet", "fabric.view_audit"),
    ),
    "approver": (
        *("attestation.decide", "attestation.revoke", "attestation.trust_maker"),
        *("kps.decide_rotation", "kps.decide_lift"),
        *("fabric.view_fleet", "fabric.view_audit"),
    ),
    "auditor": ("fabric.view_fleet", "fabric.view_audit"),
}


_known: dict[str, frozenset[str]] = {}


def note(sender: object, using: str, **kwargs: object) -> None:
    """Receive `pre_migrate`: what permissions there are before an update brings more."""
    if Permission._meta.db_table in connections[using].introspection.table_names():
        _known[using] = _named(Permission.objects.using(using).select_related("content_type"))


def create(sender: object, using: str, **kwargs: object) -> None:
    """Receive `post_migrate`: make the groups that are missing, and give each what an update has brought for its role.

    Of what there was before, a group is left as its operator shaped it.
    """
    before = _known.pop(using, None)
    for name, permissions in ROLES.items():
        group, made = Group.objects.using(using).get_or_create(name=name)
        wanted = set(permissions)
        if not made:
            wanted = set() if before is None else wanted - before
        found = Permission.objects.using(using).select_related("content_type")
        group.permissions.add(*(each for each in found if _name(each) in wanted))


def _named(permissions: Iterable[Permission]) -> frozenset[str]:
    return frozenset(map(_name, permissions))


def _name(permission: Permission) -> str:
    return f"{permission.content_type.app_label}.{permission.codename}"
