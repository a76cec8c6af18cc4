"""What people decide: proposals, and the end of every certificate."""

from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from attestation import service as attestation
from fabric import known_keys
from fabric.access import needs, page, person
from fabric.decisions import deciders, offered
from fabric.errors import explained
from fabric.forms import APPROVE_UNENDORSED, REJECT, DecisionForm, DenyCertificatesForm
from fabric.stopping import impact_of_denial
from fabric.views.modes import plan_context
from kps import service as kps

DECIDED = 30
DRY_RUN_ROWS = 50


@require_GET
@needs("fabric.view_fleet")
def proposals(request: HttpRequest) -> HttpResponse:
    context = {
        "open": attestation.proposals(state="open"),
        "rotations": kps.rotations(state="open"),
        "lifts": known_keys.lifts(kps.lifts(state="open"), now=timezone.now()),
        "decided": attestation.proposals().exclude(state="open")[:DECIDED],
        "waiting": attestation.waiting().exclude(proposals__state="open"),
    }
    return page(request, "fabric/proposals.html", context)


@require_http_methods(["GET", "POST"])
@needs("fabric.view_fleet")
@explained
def proposal(request: HttpRequest, proposal_id: int) -> HttpResponse:
    found = attestation.proposal(proposal_id)
    form = DecisionForm(request.POST or None, request=request, choices=offered(found))
    if request.method == "POST" and form.is_valid():
        decision = form.cleaned_data["decision"]
        attestation.decide(
            proposal_id,
            by=person(request),
            approve=decision != REJECT,
            accept_without_certificate=decision == APPROVE_UNENDORSED,
            reason=form.cleaned_data["reason"],
            now=timezone.now(),
        )
        messages.success(request, "The decision is recorded and in force.")
        return redirect("proposal", proposal_id)
    context = {
        "proposal": found,
        "form": form,
        "effect": attestation.effect_of(found),
        "endorsers": attestation.endorsers(found.attester) if found.attester else (),
        "comparison": attestation.compare(found.attester.latest) if found.attester and found.attester.latest else None,
        "own": found.is_own(request.user),
        "deciders": deciders("attestation.decide", found),
        "moves": found.attester is not None and found.attester.state == "approved" and found.state == "open",
        **(plan_context(found.plan) if found.plan else {}),
        **(_policy_context(found.draft) if found.draft else {}),
        **(_baseline_context(found.baseline) if found.baseline else {}),
    }
    return page(request, "fabric/proposal.html", context)


def _policy_context(draft: attestation.PolicyDraft) -> dict[str, object]:
    """What a policy change would do, as its dry run had found it: those first that would lose."""
    run = attestation.newest_run(draft)
    rows = attestation.dry_run_rows(run) if run else None
    return {
        "changes": attestation.changes_of(draft),
        "run": run,
        "tally": attestation.tally_dry_run(rows) if rows is not None else None,
        "rows": Paginator(rows, DRY_RUN_ROWS).get_page(1) if rows is not None else None,
        "brings": [(each, attestation.amendments_of(each)[0]) for each in attestation.drafted_in(draft)],
    }


def _baseline_context(baseline: attestation.Baseline) -> dict[str, object]:
    """What whoever decides about a baseline has to see: its rules, what it brings, and what its log proves."""
    return {
        "baseline": baseline,
        "rules": attestation.rules_of(baseline),
        "sources": attestation.sources_of(baseline),
        "steps": attestation.amendments_of(baseline),
        "proofs": attestation.proofs_of(baseline),
        "values": attestation.baseline_events(baseline),
    }


@require_http_methods(["GET", "POST"])
@needs("attestation.revoke")
@explained
def deny_certificates(request: HttpRequest) -> HttpResponse:
    """Void every certificate of the fabric that was issued before a moment, which is now unless said otherwise."""
    now = timezone.now()
    form = DenyCertificatesForm(request.POST or None, request=request, expected=settings.FABRIC_NAME, of="fabric")
    if request.method == "POST" and form.is_valid():
        moment = form.cleaned_data["before"] or now
        attestation.deny_issued_before(moment, by=person(request), reason=form.cleaned_data["reason"], now=now)
        messages.success(
            request, f"Every certificate issued before {moment:%Y-%m-%d %H:%M:%S} UTC is void. Hosts attest again."
        )
        return redirect("fleet")
    context = {"form": form, "impact": impact_of_denial(now, now=now)}
    return page(request, "fabric/deny_certificates.html", context)
