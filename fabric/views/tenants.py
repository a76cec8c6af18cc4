"""The tenants' side: their machines, and who got their keys."""

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from fabric.access import needs, page, person
from fabric.custody_words import WORDS
from fabric.errors import explained
from fabric.forms import MachineForm
from fabric.key_queue import waiting_machines
from fabric.logbook import places_of_releases
from fabric.models import Tenant, VirtualMachine
from fabric.tenancy import add_machine as add
from fabric.tenancy import may_add, usage
from kps import service as kps

PER_PAGE = 25


@require_GET
@needs("fabric.view_fleet")
def tenants(request: HttpRequest) -> HttpResponse:
    found = Tenant.objects.visible_to(request.user).annotate(machine_count=Count("machines"))
    return page(request, "fabric/tenants.html", {"tenants": found})


@require_GET
@login_required
def tenant(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Tenant.objects.visible_to(request.user).distinct(), slug=slug)
    releases = kps.releases(owner_fingerprint=found.owner_fingerprint)
    rows = Paginator(releases, PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "tenant": found,
        "machines": usage(VirtualMachine.objects.visible_to(request.user).filter(tenant=found)),
        "rows": rows,
        "places": places_of_releases(list(rows)),
        "may_add": may_add(request.user, found),
        "custody": WORDS[settings.CUSTODY],
        "waiting": waiting_machines(kps.waiting_for(found.owner_fingerprint)),
        "guardian": kps.guardian_fingerprint(now=timezone.now()),
    }
    return page(request, "fabric/tenant.html", context)


@require_http_methods(["GET", "POST"])
@login_required
@explained
def add_machine(request: HttpRequest, slug: str) -> HttpResponse:
    found = get_object_or_404(Tenant.objects.visible_to(request.user).distinct(), slug=slug)
    if not may_add(request.user, found):
        raise PermissionDenied
    form = MachineForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        name, protector = form.cleaned_data["name"], form.cleaned_data["protector"]
        add(found, name, protector, by=person(request), now=timezone.now())
        messages.success(request, f"{name} is registered. Its key goes to hosts that pass, and to nobody else.")
        return redirect(found)
    return page(request, "fabric/add_machine.html", {"tenant": found, "form": form})
