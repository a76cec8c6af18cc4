"""Baselines: what hosts may have booted, captured from their Evidence, uploaded, amended and retired."""

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from attestation import service as attestation
from fabric.access import needs, page, person
from fabric.baseline_forms import AmendForm, CaptureForm, UploadForm
from fabric.errors import explained
from fabric.forms import DangerForm, ReasonForm


@require_GET
@needs("fabric.view_fleet")
def baselines(request: HttpRequest) -> HttpResponse:
    return page(request, "fabric/baselines.html", {"rows": attestation.listed(now=timezone.now())})


@require_GET
@needs("fabric.view_fleet")
def baseline(request: HttpRequest, baseline_id: UUID) -> HttpResponse:
    found = attestation.baseline(baseline_id)
    fits, differs = attestation.matching(found)
    context = {
        "baseline": found,
        "time": attestation.times_of_baselines(now=timezone.now()).get(str(found.pk)),
        "rules": attestation.rules_of(found),
        "sources": attestation.sources_of(found),
        "steps": attestation.amendments_of(found),
        "successor": attestation.amended_by(found),
        "proofs": attestation.proofs_of(found),
        "drafts": attestation.drafts_naming(found),
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
    form = CaptureForm(request.POST or None, initial={"group": source.attester.group_id})
    if request.method == "POST" and form.is_valid():
        filled = form.cleaned_data
        proposal = attestation.capture_baseline(
            attestation_id,
            name=filled["name"],
            by=person(request),
            reason=filled["reason"],
            now=timezone.now(),
            others=filled["others"],
            by_events=filled["by_events"],
            group=filled["group"] or None,
        )
        messages.success(request, "Captured and put forward. It counts once an approver accepts it.")
        return redirect("proposal", proposal.pk)
    return page(request, "fabric/capture_baseline.html", {"form": form, "source": source})


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def upload_baseline(request: HttpRequest) -> HttpResponse:
    """Make a draft of an uploaded log; its page says what the log proves before anybody puts it forward."""
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        filled = form.cleaned_data
        drafted = attestation.upload_baseline(
            filled["event_log"],
            filled["pcr_values"],
            name=filled["name"],
            group=filled["group"],
            platform=filled["platform"],
            by=person(request),
            now=timezone.now(),
            by_events=filled["by_events"],
        )
        messages.success(request, "Read. Look at what the log proves, then put it forward or drop it.")
        return redirect("baseline", drafted.pk)
    return page(request, "fabric/upload_baseline.html", {"form": form})


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def propose_baseline(request: HttpRequest, baseline_id: UUID) -> HttpResponse:
    found = attestation.baseline(baseline_id)
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        proposal = attestation.propose_baseline(baseline_id, by=person(request), reason=reason, now=timezone.now())
        messages.success(request, "Put forward. It counts once an approver accepts it.")
        return redirect("proposal", proposal.pk)
    context = {"form": form, "baseline": found, "proofs": attestation.proofs_of(found)}
    return page(request, "fabric/propose_baseline.html", context)


@require_POST
@needs("attestation.propose")
def drop_baseline(request: HttpRequest, baseline_id: UUID) -> HttpResponse:
    attestation.drop_baseline(baseline_id, by=person(request), now=timezone.now())
    messages.success(request, "Dropped. It stays readable, and nobody can put it forward any more.")
    return redirect("baseline", baseline_id)


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def amend_baseline(request: HttpRequest, baseline_id: UUID) -> HttpResponse:
    """Write down what an approved baseline is to accept more, for good or announced for a time."""
    found = attestation.baseline(baseline_id)
    form = AmendForm(request.POST or None, rules=attestation.rules_of(found))
    if request.method == "POST" and form.is_valid():
        amendments, reason, now = form.amendments(), form.cleaned_data["reason"], timezone.now()
        if form.time is None:
            proposal = attestation.amend_baseline(baseline_id, amendments, by=person(request), reason=reason, now=now)
            messages.success(request, "Put forward. The amended baseline counts once an approver accepts it.")
            return redirect("proposal", proposal.pk)
        begins, ends = form.time
        drafted = attestation.announce_change(
            baseline_id, amendments, begins=begins, ends=ends, by=person(request), reason=reason, now=now
        )
        messages.success(request, "Drafted. Try it on the stored evidence of the group’s hosts, then put it forward.")
        return redirect("baseline", drafted.pk)
    return page(request, "fabric/amend_baseline.html", {"form": form, "baseline": found})
