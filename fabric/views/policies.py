"""Policies by group of hosts: what is in force, drafts of what shall be, and what they would do to the fleet."""

from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from attestation import service as attestation
from fabric.access import asked, needs, page, person
from fabric.errors import explained
from fabric.forms import ReasonForm
from fabric.policy_forms import DraftForm, ExceptionForm, GroupForm
from fabric.posture import weak_settings

PER_PAGE = 50
VERSIONS = 20


@require_GET
@needs("fabric.view_fleet")
def policies(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    in_force, standings = attestation.versions_in_force(now=now), attestation.standings(now=now)
    rows = [
        (group, in_force.get(str(group.pk)), *standings.get(str(group.pk), (0, 0))) for group in attestation.groups()
    ]
    context = {"rows": rows, "drafts": attestation.drafts().filter(state__in=("draft", "proposed"))}
    return page(request, "fabric/policies.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def add_group(request: HttpRequest) -> HttpResponse:
    groups = [(group.pk, group.name) for group in attestation.groups() if group.canary_of_id is None]
    form = GroupForm(request.POST or None, groups=groups)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        attestation.add_group(
            data["slug"],
            data["name"],
            description=data["description"],
            canary_of=data["canary_of"] or None,
            by=person(request),
            now=timezone.now(),
        )
        messages.success(request, f"The group {data['name']} is there. Without a policy it trusts nothing.")
        return redirect("group", data["slug"])
    return page(request, "fabric/add_group.html", {"form": form})


@require_GET
@needs("fabric.view_fleet")
def group(request: HttpRequest, slug: str) -> HttpResponse:
    now = timezone.now()
    found = attestation.group(slug)
    in_force = attestation.policy_now(slug, now=now)
    newest = list(attestation.versions(slug)[: VERSIONS + 1])
    history = [
        (version, attestation.changes_between(before, version))
        for version, before in zip(newest, [*newest[1:], None], strict=True)
    ][:VERSIONS]
    content = in_force.content() if in_force else None
    context = {
        "group": found,
        "in_force": in_force,
        "content": content,
        "names": attestation.names_of([content] if content else []),
        "checks": [check for code, check in attestation.CHECKS.items() if content and code in content.required],
        "history": history,
        "coming": [version for version in newest if version.effective_at > now],
        "drafts": attestation.drafts(slug).filter(state__in=("draft", "proposed")),
        "canaries": found.canaries.all(),
        "hosts": Paginator(attestation.attesters(group=slug, now=now), PER_PAGE).get_page(request.GET.get("page")),
        "posture": weak_settings(content, now=now),
    }
    return page(request, "fabric/group.html", context)


@require_POST
@needs("attestation.propose")
def start_draft(request: HttpRequest, slug: str) -> HttpResponse:
    """Begin a change, or the way back to an older version; it changes nothing by itself."""
    restores = request.POST.get("restores", "")
    draft = attestation.start_draft(
        slug,
        title=f"Back to v{restores}" if restores else "A change",
        by=person(request),
        now=timezone.now(),
        restores=int(restores) if restores.isdecimal() and len(restores) < 9 else None,
    )
    return redirect("draft", draft.pk)


@require_POST
@needs("attestation.propose")
def promote(request: HttpRequest, slug: str) -> HttpResponse:
    """Begin a change that gives a group what this one, its canary, has tried."""
    found = attestation.group(slug)
    draft = attestation.promote(slug, to=str(found.canary_of_id), by=person(request), now=timezone.now())
    return redirect("draft", draft.pk)


@require_http_methods(["GET", "POST"])
@needs("fabric.view_fleet")
@explained
def draft(request: HttpRequest, draft_id: UUID) -> HttpResponse:
    found = attestation.draft(draft_id)
    candidates = attestation.candidates(str(found.group_id))
    form = DraftForm(request.POST or None, draft=found, candidates=candidates)
    if request.method == "POST" and form.is_valid():
        attestation.change_draft(
            draft_id,
            form.document(),
            revision=form.cleaned_data["revision"],
            by=person(request),
            now=timezone.now(),
            title=form.cleaned_data["title"],
            effective_at=form.cleaned_data["effective_at"],
        )
        messages.success(request, "Kept. Nothing is in force by it; try it on the stored evidence next.")
        return redirect("draft", draft_id)
    run = attestation.newest_run(found)
    context = {
        "draft": found,
        "form": form,
        "changes": attestation.changes_of(found),
        "run": run,
        "tally": attestation.tally_dry_run(attestation.dry_run_rows(run)) if run and run.finished_at else None,
        "names": attestation.names_of([found.content()]),
        "checks": attestation.CHECKS,
        "proposal": found.proposals.first(),
    }
    return page(request, "fabric/draft.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def add_exception(request: HttpRequest, draft_id: UUID) -> HttpResponse:
    found = attestation.draft(draft_id)
    hosts = [(str(host.pk), host.name) for host in attestation.candidates(str(found.group_id)).hosts]
    form = ExceptionForm(request.POST or None, draft=found, hosts=hosts)
    if request.method == "POST" and form.is_valid():
        document = attestation.document_json(found.content())
        document["exceptions"].append(form.entry(person(request).get_username()))
        attestation.change_draft(
            draft_id,
            document,
            revision=form.cleaned_data["revision"],
            by=person(request),
            now=timezone.now(),
            effective_at=found.effective_at,
        )
        return redirect("draft", draft_id)
    return page(request, "fabric/add_exception.html", {"form": form, "draft": found})


@require_POST
@needs("attestation.propose")
def drop_draft(request: HttpRequest, draft_id: UUID) -> HttpResponse:
    found = attestation.draft(draft_id)
    attestation.drop_draft(draft_id, by=person(request), now=timezone.now())
    messages.success(request, f"The draft “{found.title}” is dropped.")
    return redirect("group", found.group_id)


@require_POST
@needs("attestation.propose")
def start_dry_run(request: HttpRequest, draft_id: UUID) -> HttpResponse:
    run = attestation.start_dry_run(draft_id, by=person(request), now=timezone.now())
    return redirect("dry-run", run.pk)


@require_http_methods(["GET", "POST"])
@needs("fabric.view_fleet")
def dry_run(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Show a dry run; each POST tries the next hosts, so the page itself works it off, with or without a script."""
    if request.method == "POST":
        attestation.go_on_dry_run(run_id, now=timezone.now())
        if not getattr(request, "htmx", False):
            return redirect("dry-run", run_id)
    run = attestation.dry_run(run_id)
    rows = attestation.dry_run_rows(run)
    wanted = asked(request, "show")
    shown = {"loses": rows.filter(passes=True, would_pass=False), "fails": rows.filter(would_pass=False)}
    context = {
        "run": run,
        "tally": attestation.tally_dry_run(rows),
        "rows": Paginator(shown.get(wanted, rows), PER_PAGE).get_page(request.GET.get("page")),
        "show": wanted,
        "stale": run.revision != run.draft.revision,
        "percent": 100 * run.done // run.total if run.total else 100,
    }
    return page(request, "fabric/dry_run.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def propose_draft(request: HttpRequest, draft_id: UUID) -> HttpResponse:
    found = attestation.draft(draft_id)
    form = ReasonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        proposal = attestation.propose_draft(
            draft_id, by=person(request), reason=form.cleaned_data["reason"], now=timezone.now()
        )
        messages.success(request, "Put forward. An approver decides it; you cannot.")
        return redirect("proposal", proposal.pk)
    run = attestation.newest_run(found)
    context = {
        "form": form,
        "draft": found,
        "changes": attestation.changes_of(found),
        "run": run,
        "tally": attestation.tally_dry_run(attestation.dry_run_rows(run)) if run else None,
    }
    return page(request, "fabric/propose_draft.html", context)
