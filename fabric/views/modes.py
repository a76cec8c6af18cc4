"""The attestation mode: what is in force, who is ready for another, and the switch."""

from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from attestation import service as attestation
from fabric.access import needs, page, person
from fabric.errors import explained
from fabric.forms import DangerForm
from fabric.impact import impact_now, impact_of, rehearsed
from fabric.mode_forms import DirectoryGroupForm, switch_form
from fabric.mode_words import MODES, words_of

PER_PAGE = 50
HISTORY = 20


@require_GET
@needs("fabric.view_fleet")
def mode(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    history = attestation.switches()[:HISTORY]
    current = history[0]
    others = [(words, impact_now(words.mode, now=now)) for words in MODES if words.mode != current.mode]
    context = {
        "current": current,
        "words": words_of(current.mode),
        "others": others,
        "history": history,
        "can_roll_back": attestation.can_roll_back(current, now=now),
        "open": attestation.proposals(state="open").filter(plan__isnull=False).first(),
        "weak": current.mode != attestation.Mode.TPM,
    }
    return page(request, "fabric/mode.html", context)


@require_GET
@needs("fabric.view_fleet")
def rehearsal(request: HttpRequest, slug: str) -> HttpResponse:
    wanted = _wanted(slug)
    rows = rehearsed(wanted, now=timezone.now())
    context = {
        "words": words_of(wanted),
        "current": attestation.mode_in_force(),
        "impact": impact_of(rows),
        "rows": Paginator(rows, PER_PAGE).get_page(request.GET.get("page")),
        "open": attestation.proposals(state="open").filter(plan__isnull=False).first(),
    }
    return page(request, "fabric/rehearsal.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def propose_mode(request: HttpRequest, slug: str) -> HttpResponse:
    wanted = _wanted(slug)
    current = attestation.mode_in_force()
    weakens = attestation.weakens(wanted, current)
    form = switch_form(request.POST or None, request=request, weakens=weakens, mode=wanted.label)
    if request.method == "POST" and form.is_valid():
        proposal = attestation.propose_switch(
            wanted,
            grace=form.cleaned_data["grace"],
            by=person(request),
            reason=form.cleaned_data["reason"],
            now=timezone.now(),
        )
        messages.success(request, "The switch is put forward. Somebody else decides it.")
        return redirect("proposal", proposal.pk)
    context = {
        "form": form,
        "words": words_of(wanted),
        "current": words_of(current),
        "impact": impact_now(wanted, now=timezone.now()),
        "weakens": weakens,
    }
    return page(request, "fabric/propose_mode.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.decide")
@explained
def roll_back_mode(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    current = attestation.switches()[0]
    words = words_of(current.before or current.mode)
    form = DangerForm(request.POST or None, request=request, expected=words.mode.label, of="mode")
    if request.method == "POST" and form.is_valid():
        attestation.roll_back(by=person(request), reason=form.cleaned_data["reason"], now=now)
        messages.success(request, f"The fabric is in {words.mode.label} mode again, on every node.")
        return redirect("mode")
    context = {
        "form": form,
        "words": words,
        "current": current,
        "possible": attestation.can_roll_back(current, now=now),
        "impact": impact_now(words.mode, now=now),
    }
    return page(request, "fabric/roll_back_mode.html", context)


@require_GET
@needs("fabric.view_fleet")
def directory_groups(request: HttpRequest) -> HttpResponse:
    context = {
        "groups": attestation.kerberos_groups(),
        "in_force": attestation.mode_in_force() == "kerberos",
        "controllers": attestation.controllers(),
    }
    return page(request, "fabric/directory_groups.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def propose_directory_group(request: HttpRequest) -> HttpResponse:
    groups = [(group.pk, group.name) for group in attestation.groups()]
    form = DirectoryGroupForm(request.POST or None, request=request, groups=groups)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        proposal = attestation.propose_kerberos_group(
            data["sid"],
            data["name"],
            group=data["group"],
            by=person(request),
            reason=data["reason"],
            now=timezone.now(),
        )
        messages.success(request, f"{data['name']} is put forward. Somebody else decides it.")
        return redirect("proposal", proposal.pk)
    return page(request, "fabric/propose_directory_group.html", {"form": form})


@require_http_methods(["GET", "POST"])
@needs("attestation.revoke")
@explained
def retire_directory_group(request: HttpRequest, group_id: UUID) -> HttpResponse:
    found = attestation.kerberos_groups().filter(pk=group_id).first()
    if found is None:
        raise Http404
    form = DangerForm(request.POST or None, request=request, expected=found.name, of="group")
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        attestation.retire_kerberos_group(group_id, by=person(request), reason=reason, now=timezone.now())
        messages.success(request, f"{found.name} is retired. Certificates that rest on it alone count no more.")
        return redirect("directory-groups")
    return page(request, "fabric/retire_directory_group.html", {"form": form, "directory_group": found})


def _wanted(slug: str) -> attestation.Mode:
    """Return the mode of an address; the one in force cannot be switched to, so it has no page here."""
    if slug not in attestation.Mode.values or slug == attestation.mode_in_force():
        raise Http404
    return attestation.Mode(slug)


def plan_context(plan: attestation.ModePlan) -> dict[str, object]:
    """What the page of a proposal shows of a switch, as things stand now."""
    current = attestation.mode_in_force()
    return {
        "impact": impact_now(attestation.Mode(plan.mode), now=timezone.now()),
        "wanted": words_of(plan.mode),
        "current": words_of(current),
        "weakens": attestation.weakens(plan.mode, current),
    }
