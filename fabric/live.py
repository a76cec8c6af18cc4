"""From an act in the ledger to the open pages: who is told, and when (after the commit, never before)."""

from functools import partial
from uuid import UUID

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction

from fabric.models import Membership, VirtualMachine
from ledger.core.leaf import Act

FLEET = "fleet"


def groups_for(user: User | AnonymousUser) -> tuple[str, ...]:
    """Return the channel groups whose news this user may hear; none for a stranger."""
    if not user.is_authenticated:
        return ()
    if user.has_perm("fabric.view_fleet"):
        return (FLEET,)
    return tuple(_tenant_group(pk) for pk in Membership.objects.filter(user=user).values_list("tenant_id", flat=True))


def announce(sender: object, act: Act, **kwargs: object) -> None:
    """Receive `ledger.service.recorded`. A page that is not told is stale for a moment; the act itself must stand."""
    transaction.on_commit(partial(_send, act.act, act.subject), robust=True)


def _send(act: str, subject: str) -> None:
    layer = get_channel_layer()
    message = {"type": "fleet.changed", "act": act, "subject": subject}
    for group in (FLEET, *_tenants_of(subject)):
        async_to_sync(layer.group_send)(group, message)


def _tenants_of(subject: str) -> tuple[str, ...]:
    """Return the group of the tenant whose key protector an act is about; other acts are none of a tenant's news."""
    kind, _, identifier = subject.partition(":")
    if kind != "protector":
        return ()
    owner, _, protector = identifier.partition("/")
    try:
        machines = VirtualMachine.objects.filter(tenant__owner_fingerprint=owner, protector_id=UUID(protector))
    except ValueError:
        return ()
    return tuple(_tenant_group(pk) for pk in machines.values_list("tenant_id", flat=True))


def _tenant_group(pk: int) -> str:
    return f"tenant.{pk}"
