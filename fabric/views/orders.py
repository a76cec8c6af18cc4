"""New machines: a tenant chooses shielding data and a template and gives the values; a host makes them."""

from collections.abc import Iterable
from typing import TypeVar
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_GET, require_http_methods

from fabric.access import asked, page, person
from fabric.errors import explained
from fabric.forms import ReasonForm
from fabric.machine_orders import cancel_order, may_order, order_file, order_machine
from fabric.models import MachineOrder, ShieldingData, TemplateDisk, Tenant
from fabric.shielding import applicability, contents_of
from fabric.shielding_forms import OrderForm

PER_PAGE = 25
Row = TypeVar("Row", ShieldingData, TemplateDisk)


@require_http_methods(["GET", "POST"])
@login_required
@explained
def new_machine(request: HttpRequest, slug: str) -> HttpResponse:
    """Ask for shielding data, then for a template that it goes with, then for the rest; the address has the choices."""
    tenant = get_object_or_404(Tenant.objects.visible_to(request.user).distinct(), slug=slug)
    if not may_order(person(request), tenant):
        raise PermissionDenied
    data = _chosen(request, "data", ShieldingData.objects.filter(tenant=tenant, withdrawn_at=None))
    if data is None:
        return _choose_data(request, tenant)
    fits = applicability(contents_of(data), TemplateDisk.objects.filter(retired_at=None))
    template = _chosen(request, "template", [each.template for each in fits if each.applies])
    if template is None:
        return page(request, "fabric/new_machine.html", {"tenant": tenant, "data": data, "fits": fits})
    form = OrderForm(request.POST or None, asks_for=data.asks_for)
    if request.method == "POST" and form.is_valid():
        name, memory = form.cleaned_data["name"], form.cleaned_data["memory"]
        order = order_machine(
            data, template, name, memory=memory, values=form.values, by=person(request), now=timezone.now()
        )
        messages.success(request, f"{name} is ordered. It is there once a host has made it.")
        return redirect(order)
    context = {"tenant": tenant, "data": data, "template": template, "form": form}
    return page(request, "fabric/new_machine.html", context)


def _choose_data(request: HttpRequest, tenant: Tenant) -> HttpResponse:
    offered = ShieldingData.objects.filter(tenant=tenant, withdrawn_at=None).defer("head")
    rows = Paginator(offered, PER_PAGE).get_page(request.GET.get("page"))
    return page(request, "fabric/new_machine.html", {"tenant": tenant, "rows": rows})


@require_GET
@login_required
def order(request: HttpRequest, order_id: UUID) -> HttpResponse:
    found = _found(request, order_id)
    context = {
        "order": found,
        "tenant": found.tenant,
        "values": sorted(found.values.items()),
        "may_order": may_order(person(request), found.tenant),
    }
    return page(request, "fabric/order.html", context)


@require_GET
@login_required
def order_download(request: HttpRequest, order_id: UUID) -> HttpResponse:
    """Give the order as `guardhouse host vm provision` reads it."""
    found = _found(request, order_id)
    named = content_disposition_header(True, f"{found.name}.order")
    return HttpResponse(
        order_file(found), content_type="application/octet-stream", headers={"Content-Disposition": named}
    )


@require_http_methods(["GET", "POST"])
@login_required
@explained
def cancel(request: HttpRequest, order_id: UUID) -> HttpResponse:
    found = _found(request, order_id)
    if not may_order(person(request), found.tenant):
        raise PermissionDenied
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        cancel_order(found, by=person(request), reason=form.cleaned_data["reason"], now=timezone.now())
        messages.success(request, f"The order of {found.name} is cancelled.")
        return redirect(found)
    return page(request, "fabric/cancel_order.html", {"form": form, "order": found, "tenant": found.tenant})


def _found(request: HttpRequest, order_id: UUID) -> MachineOrder:
    visible = MachineOrder.objects.visible_to(request.user)
    return get_object_or_404(
        visible.select_related("tenant", "template", "machine", "shielding_data__tenant").defer("shielding_data__head"),
        pk=order_id,
    )


def _chosen(request: HttpRequest, name: str, offered: Iterable[Row]) -> Row | None:
    """Return which of the rows on offer the address names; none for whatever else it says."""
    wanted = asked(request, name)
    return next((row for row in offered if str(row.pk) == wanted), None) if wanted else None
