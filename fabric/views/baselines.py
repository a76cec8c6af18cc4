"""Baselines: what hosts may have booted, captured from their Evidence, amended and retired."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from attestation import service as attestation
from fabric.access import needs, page, person
from fabric.errors import explained
from fabric.forms import CaptureForm, DangerForm


@require_GET
@needs("fabric.view_fleet")
def baselines(request: HttpRequest) -> HttpResponse:
    return page(request, "fabric/baselines.html", {"baselines": attestation.baselines()})


@require_GET
@needs("fabric.view_fleet")
def baseline(request: HttpRequest, baseline_id: UUID) -> HttpResponse:
    found = attestation.baseline(baseline_id)
    fits, differs = attestation.matching(found)
    context = {
        "baseline": found,
        "fits": fits,
        "hosts_compared": len(fits) + len(differs),
        "events": attestation.baseline_events(found),
        "proposals": attestation.proposals().filter(baseline=found),
    }
    return page(request, "fabric/baseline.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.revoke")
@explained
def retire_baseline(request: HttpRequest, baseline_id: UUID) -> HttpResponse:
    found = attestation.baseline(baseline_id)
    form = DangerForm(request.POST or None, request=request, expected=found.name, of="baseline")
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        attestation.retire_baseline(baseline_id, by=person(request), reason=reason, now=timezone.now())
        messages.success(request, f"{found.name} is retired. Hosts that match no other baseline get no more keys.")
        return redirect("baseline", baseline_id)
    context = {"form": form, "baseline": found, "loses": attestation.losing(found)}
    return page(request, "fabric/retire_baseline.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def capture_baseline(request: HttpRequest, attestation_id: int) -> HttpResponse:
    source = attestation.attestation(attestation_id)
    form = CaptureForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        proposal = attestation.capture_baseline(
            attestation_id,
            name=form.cleaned_data["name"],
            by=person(request),
            reason=form.cleaned_data["reason"],
            now=timezone.now(),
        )
        messages.success(request, "Captured and put forward. It counts once an approver accepts it.")
        return redirect("proposal", proposal.pk)
    return page(request, "fabric/capture_baseline.html", {"form": form, "source": source})
