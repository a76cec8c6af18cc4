"""Patch day: what hosts measure and no baseline knows, accepted once for all of them; and what single digests are."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from attestation import service as attestation
from fabric.access import needs, page, person
from fabric.baseline_forms import TimedForm, VouchForm
from fabric.errors import explained


@require_GET
@needs("fabric.view_fleet")
def changes(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    context = {
        "changes": attestation.changes(),
        "otherwise": attestation.failing_otherwise(),
        "baselines": [each for each in attestation.listed(now=now) if each.baseline.state == "approved"],
        "last_failure": attestation.last_failure(),
    }
    return page(request, "fabric/changes.html", context)


@require_GET
@needs("fabric.view_fleet")
def change(request: HttpRequest, signature: str) -> HttpResponse:
    """Show one change whole: its difference once, and every host that has it."""
    found = attestation.change(signature)
    context = {
        "change": found,
        "comparison": attestation.compare(found.sample),
        "known": found.known,
        "outlook": attestation.outlook(found, now=timezone.now()),
    }
    return page(request, "fabric/change.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def accept_change(request: HttpRequest, signature: str) -> HttpResponse:
    """Put a change forward as it was shown: for good, or drafted from one moment to another."""
    form = TimedForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        accepted = attestation.accept_change(
            signature, by=person(request), reason=form.cleaned_data["reason"], now=timezone.now(), time=form.time
        )
        if isinstance(accepted, attestation.Baseline):
            messages.success(request, "Drafted. Try it on the stored evidence of the group, then put it forward.")
            return redirect("baseline", accepted.pk)
        messages.success(request, "Put forward. These hosts pass at their next attestation once it is approved.")
        return redirect("proposal", accepted.pk)
    found = attestation.change(signature)
    context = {"form": form, "change": found, "outlook": attestation.outlook(found, now=timezone.now())}
    return page(request, "fabric/accept_change.html", context)


@require_GET
@needs("fabric.view_fleet")
def component(request: HttpRequest, digest: str) -> HttpResponse:
    return page(request, "fabric/component.html", {"known": attestation.component(digest)})


@require_http_methods(["GET", "POST"])
@needs("attestation.decide")
@explained
def vouch(request: HttpRequest, digest: str) -> HttpResponse:
    """Say which package a digest is of; a label for people, which no verdict rests on."""
    found = attestation.component(digest)
    form = VouchForm(request.POST or None, request=request, initial={"package": found.component.package})
    if request.method == "POST" and form.is_valid():
        filled = form.cleaned_data
        attestation.vouch(digest, filled["package"], by=person(request), reason=filled["reason"], now=timezone.now())
        messages.success(request, f"Recorded: this digest is {filled['package']}, in your words.")
        return redirect("component", digest)
    return page(request, "fabric/vouch.html", {"form": form, "known": found})
