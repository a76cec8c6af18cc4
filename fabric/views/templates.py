"""Template disks: what is on offer, who vouches for it, and the catalog to check it with."""

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_GET, require_http_methods

from fabric.access import needs, page, person
from fabric.errors import explained
from fabric.forms import ReasonForm
from fabric.models import TemplateDisk, sees_templates
from fabric.template_disks import OFFER, add_template, switch_template
from fabric.template_forms import CatalogForm


@require_GET
@login_required
def templates(request: HttpRequest) -> HttpResponse:
    if not sees_templates(request.user):
        raise PermissionDenied
    return page(request, "fabric/templates.html", {"templates": TemplateDisk.objects.visible_to(request.user)})


@require_GET
@login_required
def template(request: HttpRequest, template_id: UUID) -> HttpResponse:
    found = _found(request, template_id)
    others = TemplateDisk.objects.filter(name=found.name, signer=found.signer).exclude(pk=found.pk)
    return page(request, "fabric/template.html", {"template": found, "others": others})


@require_GET
@login_required
def template_catalog(request: HttpRequest, template_id: UUID) -> HttpResponse:
    """Give the catalog as it was signed; whoever gets it checks the signature anew."""
    found = _found(request, template_id)
    named = content_disposition_header(True, f"{found.name}-{found.version}.catalog")
    return HttpResponse(
        f"{found.catalog}\n", content_type="application/octet-stream", headers={"Content-Disposition": named}
    )


@require_http_methods(["GET", "POST"])
@needs(OFFER)
@explained
def offer_template(request: HttpRequest) -> HttpResponse:
    form = CatalogForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        made = add_template(form.cleaned_data["catalog"], by=person(request), now=timezone.now())
        messages.success(request, f"{made} is on offer. Hosts hash the disk before they make a machine of it.")
        return redirect(made)
    return page(request, "fabric/offer_template.html", {"form": form})


@require_http_methods(["GET", "POST"])
@needs(OFFER)
@explained
def retire_template(request: HttpRequest, template_id: UUID, *, retired: bool) -> HttpResponse:
    found = _found(request, template_id)
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        switch_template(found, retired=retired, by=person(request), reason=reason, now=timezone.now())
        messages.success(request, f"{found} is {'retired' if retired else 'on offer again'}.")
        return redirect(found)
    return page(request, "fabric/retire_template.html", {"form": form, "template": found, "retired": retired})


def _found(request: HttpRequest, template_id: UUID) -> TemplateDisk:
    return get_object_or_404(TemplateDisk.objects.visible_to(request.user), pk=template_id)
