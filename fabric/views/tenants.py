"""The tenants' side: their machines, what waits for them, and who got their keys."""

from datetime import timedelta
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from fabric.access import asked, needs, page, person
from fabric.custody_words import WORDS
from fabric.errors import explained
from fabric.forms import MachineForm
from fabric.key_queue import waiting_machines
from fabric.logbook import places_of_releases
from fabric.machine_orders import may_order, open_orders
from fabric.models import ShieldingData, Tenant, VirtualMachine
from fabric.refusal_words import words_for
from fabric.tenancy import add_machine as add
from fabric.tenancy import speaks_for, usage_of
from kps import service as kps

PER_PAGE, SOME = 25, 8
LATELY = timedelta(days=7)


@require_GET
@needs("fabric.view_fleet")
def tenants(request: HttpRequest) -> HttpResponse:
    found = Tenant.objects.visible_to(request.user).annotate(machine_count=Count("machines"))
    return page(request, "fabric/tenants.html", {"tenants": found})


@require_GET
@login_required
def tenant(request: HttpRequest, slug: str) -> HttpResponse:
    found, now = _found(request, slug), timezone.now()
    owner = found.owner_fingerprint
    machines = _machines(found)
    rows = Paginator(kps.releases(owner_fingerprint=owner), PER_PAGE).get_page(request.GET.get("page"))
    waiting = kps.pending(owner_fingerprint=owner, now=now)
    queue = kps.waiting_for(owner)
    refused = kps.refused_lately(owner, since=now - LATELY, most=SOME)
    context = {
        "tenant": found,
        "machines": usage_of(machines[:SOME]),
        "machine_count": machines.count(),
        "waiting": waiting[:SOME],
        "more_waiting": max(0, waiting.count() - SOME),
        "queue": waiting_machines(kps.awaited(queue[:SOME])),
        "more_in_queue": max(0, queue.count() - SOME),
        "refused": [(each, words_for(each.newest.code)) for each in refused],
        "vms": _by_protector(
            found,
            *(row.machine_id for row in rows),
            *(each.newest.protector_id for each in refused),
            *(each.record.protector_id for each in waiting[:SOME]),
        ),
        "rows": rows,
        "places": places_of_releases(list(rows)),
        "may_order": may_order(person(request), found),
        "custody": WORDS[settings.CUSTODY],
        "speaks": speaks_for(request.user, found),
        "guardian": kps.guardian_fingerprint(now=now),
    }
    return page(request, "fabric/tenant.html", context)


@require_GET
@login_required
def tenant_machines(request: HttpRequest, slug: str) -> HttpResponse:
    found, query = _found(request, slug), asked(request, "q")
    machines = _machines(found)
    if query:
        machines = machines.filter(name__icontains=query)
    rows = Paginator(machines, PER_PAGE).get_page(request.GET.get("page"))
    orders = open_orders(found).select_related("template", "shielding_data")
    context = {
        "tenant": found,
        "rows": rows,
        "machines": usage_of(list(rows)),
        "query": query,
        "orders": orders.defer("shielding_data__head")[:PER_PAGE],
        "may_order": may_order(person(request), found),
        "speaks": speaks_for(request.user, found),
    }
    return page(request, "fabric/tenant_machines.html", context)


@require_GET
@login_required
def key_queue(request: HttpRequest, slug: str) -> HttpResponse:
    """List the key protectors that depend on keys of this fabric's which newer ones took the place of."""
    found, now = _found(request, slug), timezone.now()
    rows = Paginator(kps.waiting_for(found.owner_fingerprint), PER_PAGE).get_page(request.GET.get("page"))
    queue = waiting_machines(kps.awaited(rows))
    context = {"tenant": found, "rows": rows, "queue": queue, "guardian": kps.guardian_fingerprint(now=now)}
    return page(request, "fabric/key_queue.html", context)


@require_http_methods(["GET", "POST"])
@login_required
@explained
def add_machine(request: HttpRequest, slug: str) -> HttpResponse:
    found = _found(request, slug)
    if not speaks_for(request.user, found):
        raise PermissionDenied
    form = MachineForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        name, protector = form.cleaned_data["name"], form.cleaned_data["protector"]
        made = add(found, name, protector, by=person(request), now=timezone.now())
        messages.success(request, f"{name} is registered. Its key goes to hosts that pass, and to nobody else.")
        return redirect(made)
    return page(request, "fabric/add_machine.html", {"tenant": found, "form": form})


def _found(request: HttpRequest, slug: str) -> Tenant:
    return get_object_or_404(Tenant.objects.visible_to(request.user).distinct(), slug=slug)


def _machines(tenant: Tenant) -> QuerySet[VirtualMachine]:
    return VirtualMachine.objects.filter(tenant=tenant).select_related("tenant")


def _by_protector(tenant: Tenant, *wanted: UUID | None) -> dict[UUID, VirtualMachine | ShieldingData]:
    """Return this tenant's machines and shielding data by their key protectors, those of them that a page names."""
    named = {"tenant": tenant, "protector_id__in": {each for each in wanted if each}}
    files = ShieldingData.objects.filter(**named).defer("head")
    return {each.protector_id: each for each in (*files, *VirtualMachine.objects.filter(**named))}
