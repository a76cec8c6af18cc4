"""The fabric's own roles, as Django groups. Tenants' roles are memberships."""

from django.contrib.auth.models import Group, Permission
from django.db.models import Q

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


def create(sender: object, using: str, **kwargs: object) -> None:
    """Receive `post_migrate`: make the groups that are missing. One that exists is left as its operator shaped it."""
    for name, permissions in ROLES.items():
        group, made = Group.objects.using(using).get_or_create(name=name)
        if made:
            wanted = Q()
            for permission in permissions:
                app, _, codename = permission.partition(".")
                wanted |= Q(content_type__app_label=app, codename=codename)
            group.permissions.set(Permission.objects.using(using).filter(wanted))
