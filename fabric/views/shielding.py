"""A tenant's shielding data: what is kept here of it, which templates it goes with, and what was made from it."""

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_GET, require_http_methods
from django_htmx.http import HttpResponseClientRedirect

from fabric.access import page, person
from fabric.downloads import streamed
from fabric.errors import explained
from fabric.forms import DangerForm
from fabric.machine_orders import may_order
from fabric.models import ShieldingData, TemplateDisk, Tenant
from fabric.shielding import (
    applicability,
    contents_of,
    lines_of,
    upload_shielding_data,
    used_by,
    withdraw_shielding_data,
)
from fabric.shielding_forms import ShieldingDataForm
from fabric.tenancy import speaks_for
from fabric.views.machines import STATEMENTS, answered, brought, newest_statement
from kps import service as kps
from kps.core.release_policy import in_words

PER_PAGE = 25


@require_GET
@login_required
def shielding(request: HttpRequest, slug: str) -> HttpResponse:
    tenant = _tenant(request, slug)
    kept = ShieldingData.objects.filter(tenant=tenant).defer("head").annotate(machine_count=Count("machines"))
    kept = kept.order_by("name", "-version")  # a count leaves the model's own order out
    context = {
        "tenant": tenant,
        "rows": Paginator(kept, PER_PAGE).get_page(request.GET.get("page")),
        "speaks": speaks_for(request.user, tenant),
        "may_order": may_order(person(request), tenant),
    }
    return page(request, "fabric/shielding.html", context)


@require_http_methods(["GET", "POST"])
@login_required
@explained
def upload_shielding(request: HttpRequest, slug: str) -> HttpResponse:
    """Keep a file. A browser that shows how far the upload is takes the answer into its page, any other as a page."""
    tenant = _tenant(request, slug)
    if not speaks_for(request.user, tenant):
        raise PermissionDenied
    form = ShieldingDataForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        data, now = form.cleaned_data, timezone.now()
        kept = upload_shielding_data(
            tenant, data["name"], data["description"], data["file"], by=person(request), now=now
        )
        said = "is kept" if kept.added_at == now else "has taken the place of the one before"
        messages.success(request, f"{kept} {said}. Which templates it goes with stands below.")
        to = kept.get_absolute_url()
        return HttpResponseClientRedirect(to) if getattr(request, "htmx", False) else redirect(to)
    return page(request, "fabric/upload_shielding.html", {"form": form, "tenant": tenant})


@require_GET
@login_required
def shielding_data(request: HttpRequest, data_id: UUID) -> HttpResponse:
    found = _found(request, data_id)
    owner, tenant = found.tenant.owner_fingerprint, found.tenant
    file = None if found.withdrawn else contents_of(found)
    record = kps.protectors_of([(owner, found.protector_id)]).get((owner, found.protector_id))
    told = kps.told(record) if record else None
    context = {
        "data": found,
        "tenant": tenant,
        "file": file,
        "record": record,
        "told": told,
        "policy": in_words(told.chain.statement.policy) if told else (),
        "statements": kps.statements(record, most=STATEMENTS) if record else (),
        "fits": applicability(file, TemplateDisk.objects.filter(retired_at=None)) if file else (),
        "versions": ShieldingData.objects.filter(tenant=tenant, name=found.name).exclude(pk=found.pk).defer("head"),
        "machines": used_by(found),
        "orders": found.orders.filter(machine=None, cancelled_at=None),
        "waiting": kps.pending(owner_fingerprint=owner, now=timezone.now()).filter(
            record__protector_id=found.protector_id
        ),
        "vms": {found.protector_id: found},
        "speaks": speaks_for(request.user, tenant),
        "may_order": may_order(person(request), tenant),
    }
    return page(request, "fabric/shielding_data.html", context)


@require_GET
@login_required
def shielding_file(request: HttpRequest, data_id: UUID) -> StreamingHttpResponse:
    """Give the file as its owner has signed it; a host verifies it anew."""
    found = _found(request, data_id)
    headers = {
        "Content-Disposition": content_disposition_header(True, f"{found.name}.{found.version}.shield"),
        "Content-Length": str(found.size),
    }
    return streamed(request, lines_of(found), kind="application/octet-stream", headers=headers)


@require_GET
@login_required
def shielding_statement(request: HttpRequest, data_id: UUID) -> HttpResponse:
    """Give the owner's newest statement on a file as it was signed, for the owner to change."""
    return newest_statement(_found(request, data_id))


@require_http_methods(["GET", "POST"])
@login_required
@explained
def bring_shielding_statement(request: HttpRequest, data_id: UUID) -> HttpResponse:
    """Show what a newer statement changes for the machines that are made from then on, and only then let it hold."""
    found = _found(request, data_id)
    if not speaks_for(request.user, found.tenant):
        raise PermissionDenied
    return brought(request, found, newest=reverse("shielding-statement", args=[found.pk]))


@require_http_methods(["GET", "POST"])
@login_required
@explained
def withdraw_shielding(request: HttpRequest, data_id: UUID) -> HttpResponse:
    found = _found(request, data_id)
    if not speaks_for(request.user, found.tenant):
        raise PermissionDenied
    form = DangerForm(request.POST or None, request=request, expected=found.name, of="shielding data")
    if request.method == "POST" and form.is_valid():
        withdraw_shielding_data(found, by=person(request), reason=form.cleaned_data["reason"], now=timezone.now())
        messages.success(request, f"{found} is withdrawn, and the file is erased here.")
        return redirect(found)
    context = {
        "form": form,
        "data": found,
        "tenant": found.tenant,
        "machines": used_by(found),
        "orders": found.orders.filter(machine=None, cancelled_at=None),
    }
    return page(request, "fabric/withdraw_shielding.html", context)


@require_http_methods(["GET", "POST"])
@login_required
@explained
def answer_making(request: HttpRequest, data_id: UUID, approval_id: UUID) -> HttpResponse:
    """Let the owner approve or decline that a host makes a machine from this file."""
    found = _found(request, data_id)
    if not speaks_for(request.user, found.tenant):
        raise PermissionDenied
    return answered(request, found, approval_id)


def _tenant(request: HttpRequest, slug: str) -> Tenant:
    return get_object_or_404(Tenant.objects.visible_to(request.user).distinct(), slug=slug)


def _found(request: HttpRequest, data_id: UUID) -> ShieldingData:
    return get_object_or_404(ShieldingData.objects.visible_to(request.user).select_related("tenant"), pk=data_id)
