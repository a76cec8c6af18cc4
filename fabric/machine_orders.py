"""Orders of new machines: what a tenant wants, as a file that a host's operator takes along."""

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from attestation.errors import NotAllowed, Refusal
from fabric.models import MachineOrder, Membership, ShieldingData, TemplateDisk, Tenant, VirtualMachine
from fabric.shielding import contents_of
from kps import service as kps
from kps.core.catalog import parse_catalog
from kps.core.order import Order, build_order
from kps.core.shielding_data import require_applicable
from kps.core.substitution import require_values
from ledger import service as ledger


class NameTaken(Refusal):
    """A machine of this name is there or ordered already."""

    code: ClassVar[str] = "name_taken"
    status: ClassVar[int] = 409


class OrderSettled(Refusal):
    """The order was cancelled, or its machine is there."""

    code: ClassVar[str] = "order_settled"
    status: ClassVar[int] = 409


class TemplateRetired(Refusal):
    code: ClassVar[str] = "template_retired"
    status: ClassVar[int] = 409


def may_order(user: User, tenant: Tenant) -> bool:
    """Say whether this person is of this tenant: an owner or an operator. The fabric's own people order nothing."""
    return Membership.objects.filter(tenant=tenant, user=user).exists()


class ShieldingDataDenied(Refusal):
    """No host gets the key of this shielding data, so none could make what is ordered from it."""

    code: ClassVar[str] = "shielding_data_denied"
    status: ClassVar[int] = 409


def order_machine(
    data: ShieldingData,
    template: TemplateDisk,
    name: str,
    *,
    memory: int,
    values: Mapping[str, str],
    by: User,
    now: datetime,
) -> MachineOrder:
    """Note that a tenant wants a machine, after all that could keep a host from making it was looked at.

    Raises `NotAllowed`, `ShieldingDataWithdrawn`, `ShieldingDataDenied`, `TemplateRetired`, `TemplateNotAllowed`,
    `SubstitutionRefused`, `MalformedDocument` for a name or a memory that no machine has, or `NameTaken`.
    """
    tenant = data.tenant
    if not may_order(by, tenant):
        raise NotAllowed("Only people of this tenant order its machines.")
    file = contents_of(data)
    _require_not_denied(data)
    if template.retired:
        raise TemplateRetired(f"{template} is retired. Choose a template that is on offer.")
    require_applicable(file, parse_catalog(template.catalog))
    require_values(file.label.asks_for, values)
    order = MachineOrder(
        tenant=tenant,
        name=name,
        template=template,
        shielding_data=data,
        memory=memory,
        values=dict(values),
        ordered_at=now,
        ordered_by=by.get_username(),
    )
    order_file(order)
    try:
        with transaction.atomic():
            if VirtualMachine.objects.filter(tenant=tenant, name=name).exists():
                raise IntegrityError
            order.save(force_insert=True)
            _record("machine.ordered", order, {"template": str(template), "shielding_data": str(data)}, by=by, now=now)
    except IntegrityError:
        raise NameTaken(f"{tenant.name} has a machine or an open order of the name {name} already.") from None
    return order


def cancel_order(order: MachineOrder, *, by: User, reason: str, now: datetime) -> None:
    """Take an open order back. A host that has its file by now can still make the machine."""
    if not may_order(by, order.tenant):
        raise NotAllowed("Only people of this tenant cancel its orders.")
    with transaction.atomic():
        still_open = MachineOrder.objects.filter(pk=order.pk, machine=None, cancelled_at=None)
        if still_open.update(cancelled_at=now, cancelled_by=by.get_username()) != 1:
            raise OrderSettled("This order is cancelled already, or its machine was made.")
        _record("machine.order_cancelled", order, {"reason": reason}, by=by, now=now)


def order_file(order: MachineOrder) -> bytes:
    """Return the order as a host reads it."""
    return build_order(
        Order(
            name=order.name,
            memory=order.memory,
            template=order.template.root,
            shielding_data=order.shielding_data.digest,
            values=order.values,
        )
    )


def open_orders(tenant: Tenant) -> QuerySet[MachineOrder]:
    """Return what a tenant has ordered and no host has made yet, the newest first."""
    return MachineOrder.objects.filter(tenant=tenant, machine=None, cancelled_at=None)


def _record(act: str, order: MachineOrder, detail: dict[str, object], *, by: User, now: datetime) -> None:
    tenant = order.tenant
    said = {"name": order.name, "tenant": tenant.slug, "owner": tenant.owner_fingerprint, **detail}
    ledger.record(actor=f"user:{by.get_username()}", act=act, subject=order.subject, detail=said, now=now)


def _require_not_denied(data: ShieldingData) -> None:
    record = kps.protectors_of([data.key]).get(data.key)
    if record is None or not (record.denied_at or record.owner_denied_at):
        return
    who, reason = (
        ("The fabric", record.denied_reason) if record.denied_at else ("Your tenant", record.owner_denied_reason)
    )
    raise ShieldingDataDenied(
        f"{who} denies the key of {data} to every host: “{reason}” So no host could make this machine. Have it allowed"
        " again, or order from other shielding data."
    )
