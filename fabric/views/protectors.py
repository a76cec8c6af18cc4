"""Every key protector that this fabric knows: where its key is, and how the fabric's people deny and allow it."""

from typing import Final

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from fabric import known_keys
from fabric.access import asked, needs, page, person
from fabric.decisions import deciders
from fabric.errors import explained
from fabric.forms import APPROVE, REJECT, DecisionForm, DenyKeyForm, FreshForm
from kps import service as kps
from kps.core.release_policy import in_words

PER_PAGE: Final = 25
LIFTS: Final = 10


@require_GET
@needs("fabric.view_fleet")
def protectors(request: HttpRequest) -> HttpResponse:
    query, only = asked(request, "q"), asked(request, "only")
    found = known_keys.search(query, denied=only == "denied")
    rows = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    keys = known_keys.shown(rows, now=timezone.now())
    return page(request, "fabric/protectors.html", {"rows": rows, "keys": keys, "query": query, "only": only})


@require_GET
@needs("fabric.view_fleet")
def protector(request: HttpRequest, record_id: int) -> HttpResponse:
    now = timezone.now()
    key = known_keys.known(record_id, now=now)
    told, of = kps.told(key.record), known_keys.key_of(key.record)
    context = {
        "key": key,
        "record": key.record,
        "told": told,
        "policy": in_words(told.chain.statement.policy),
        "holding": kps.holding(*of, now=now),
        "made": kps.made_from(*of).count(),
        "waiting": kps.lifts(state="open").filter(record=key.record).first(),
        "lifts": kps.lifts().exclude(state="open").filter(record=key.record)[:LIFTS],
    }
    return page(request, "fabric/known_protector.html", context)


@require_http_methods(["GET", "POST"])
@needs("kps.deny")
@explained
def deny(request: HttpRequest, record_id: int) -> HttpResponse:
    """Deny every release under one key protector; its owner's people see who did it and why."""
    now = timezone.now()
    key = known_keys.known(record_id, now=now)
    of = known_keys.key_of(key.record)
    made = kps.made_from(*of).count()
    form = DenyKeyForm(request.POST or None, request=request, expected=key.name, of=_kind(key), made=made)
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        kps.deny_protector(*of, by=person(request), reason=reason, now=now, with_machines=form.with_machines)
        messages.success(request, f"The key of {key.name} is denied. No host gets it from now on.")
        return redirect("protector", record_id)
    return page(request, "fabric/deny_protector.html", {"form": form, "key": key, "record": key.record, "made": made})


@require_http_methods(["GET", "POST"])
@needs("kps.deny")
@explained
def lift(request: HttpRequest, record_id: int) -> HttpResponse:
    """Put forward that it is allowed again; what its owner's people have denied stays denied."""
    now = timezone.now()
    key = known_keys.known(record_id, now=now)
    form = FreshForm(request.POST or None, request=request)
    if request.method == "POST" and form.is_valid():
        of, reason = known_keys.key_of(key.record), form.cleaned_data["reason"]
        proposal = kps.propose_lift(*of, by=person(request), reason=reason, now=now)
        messages.success(request, "It is put forward. Somebody else decides it; until then it stays denied.")
        return redirect("denial-lift", proposal.pk)
    return page(request, "fabric/propose_lift.html", {"form": form, "key": key, "record": key.record})


@require_http_methods(["GET", "POST"])
@needs("fabric.view_fleet")
@explained
def denial_lift(request: HttpRequest, lift_id: int) -> HttpResponse:
    """Show what somebody has put forward; whoever may decide it does so here."""
    found, now = kps.lifts().filter(pk=lift_id).first(), timezone.now()
    if found is None:
        raise Http404
    choices = [(APPROVE, "Allow it again"), (REJECT, "Reject")]
    form = DecisionForm(request.POST or None, request=request, choices=choices)
    if request.method == "POST" and form.is_valid():
        approve, reason = form.cleaned_data["decision"] != REJECT, form.cleaned_data["reason"]
        kps.decide_lift(lift_id, by=person(request), approve=approve, reason=reason, now=now)
        messages.success(request, "The decision is recorded and in force.")
        return redirect("denial-lift", lift_id)
    context = {
        "proposal": found,
        "key": known_keys.shown([found.record], now=now)[0],
        "record": found.record,
        "with_it": kps.denied_with(found.record).count(),
        "form": form,
        "own": found.is_own(request.user),
        "deciders": deciders("kps.decide_lift", found),
    }
    return page(request, "fabric/denial_lift.html", context)


def _kind(key: known_keys.KnownKey) -> str:
    if key.about is None:
        return "key protector"
    return "shielding data" if key.is_file else "VM"
