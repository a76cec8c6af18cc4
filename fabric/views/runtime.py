"""Runtime policies: which files may run on Linux hosts, and how a finding about one becomes a draft that accepts it."""

from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_GET, require_http_methods

from attestation import service as attestation
from fabric.access import asked, needs, page, person
from fabric.code_forms import AcceptForm, RuntimeForm, UploadRuntimeForm
from fabric.errors import explained

PER_PAGE = 200
VERSIONS = 20


@require_GET
@needs("fabric.view_fleet")
def runtime_policies(request: HttpRequest) -> HttpResponse:
    named_by = attestation.named_by(now=timezone.now())
    counting = attestation.runtime_policies().filter(pk__in=named_by)
    uses: dict[str, list[tuple[object, object]]] = {}
    for policy in counting:
        uses.setdefault(policy.name, []).extend((policy, group) for group in named_by[str(policy.pk)])
    rows = [(row, uses.get(row.name, ())) for row in attestation.newest_runtime_policies()]
    return page(request, "fabric/runtime_policies.html", {"rows": rows})


@require_GET
@needs("fabric.view_fleet")
def runtime_policy(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    found, query = attestation.runtime_policy(policy_id), asked(request, "file")
    versions = attestation.runtime_policies().filter(name=found.name)
    before = versions.filter(version=found.version - 1).first()
    context = {
        "policy": found,
        "query": query,
        "rows": Paginator(attestation.runtime_lines(found, query), PER_PAGE).get_page(request.GET.get("page")),
        "signers": attestation.runtime_signers(found),
        "groups": attestation.named_by(now=timezone.now()).get(str(found.pk), ()),
        "versions": versions[:VERSIONS],
        "before": before,
        "change": None if before is None else attestation.runtime_difference(before, found),
    }
    return page(request, "fabric/runtime_policy.html", context)


@require_GET
@needs("fabric.view_fleet")
def runtime_policy_text(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    """Give the accepted files as text, in the form that is uploaded."""
    found = attestation.runtime_policy(policy_id)
    named = content_disposition_header(True, f"{found.name}-v{found.version}.txt")
    text = attestation.runtime_policy_text(found)
    return HttpResponse(text, content_type="text/plain; charset=us-ascii", headers={"Content-Disposition": named})


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def add_runtime_policy(request: HttpRequest) -> HttpResponse:
    form = UploadRuntimeForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        made = attestation.runtime_policy_from_text(
            data["listing"],
            name=data["name"],
            excludes=data["excludes"],
            signers=data["signers"],
            origin=f"Uploaded from {form.file_name}",
            by=person(request),
            now=timezone.now(),
        )
        messages.success(request, f"{made} is there. It counts once a group’s policy names it.")
        return redirect("runtime-policy", made.pk)
    return page(request, "fabric/runtime_add.html", {"form": form})


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def runtime_from_host(request: HttpRequest, attestation_id: int) -> HttpResponse:
    source = attestation.attestation(attestation_id)
    form = RuntimeForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        made = attestation.runtime_policy_from_host(
            attestation_id,
            name=data["name"],
            excludes=data["excludes"],
            signers=data["signers"],
            by=person(request),
            now=timezone.now(),
        )
        messages.success(request, f"{made} is there. It counts once a group’s policy names it.")
        return redirect("runtime-policy", made.pk)
    return page(request, "fabric/runtime_from_host.html", {"form": form, "source": source})


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def accept_finding(request: HttpRequest, attestation_id: int, number: int) -> HttpResponse:
    """Ask whether the file that a finding is about may run from now on, and begin the draft that says so."""
    source = attestation.attestation(attestation_id)
    about = sorted(attestation.acceptable(source))
    if number not in about:
        raise Http404
    others = [each for each in about if each != number]
    form = AcceptForm(request.POST, others=others)
    if request.method == "POST" and form.is_valid():
        draft = attestation.accept_finding(
            attestation_id, number, also=form.cleaned_data["also"], by=person(request), now=timezone.now()
        )
        messages.success(request, "The draft accepts it. Try it on the stored evidence, then put it forward.")
        return redirect("draft", draft.pk)
    context = {
        "source": source,
        "form": form,
        "files": attestation.files_of(source.findings[number]),
        "others": [(each, each in form.chosen, attestation.files_of(source.findings[each])) for each in others],
        "policy": attestation.runtime_policy_of(source),
    }
    return page(request, "fabric/runtime_accept.html", context)
