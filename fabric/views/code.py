"""Windows' code integrity policies: read in words before they are added, and set side by side afterwards."""

from collections import Counter
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_GET, require_http_methods

from attestation import service as attestation
from attestation.core.ci_difference import PolicyChange, PolicyRow, policy_rows
from attestation.core.ci_policy import CodeIntegrityPolicy, parse_ci_policy
from attestation.core.ci_words import describe_ci_policy
from fabric.access import asked, needs, page, person
from fabric.code_forms import CodePolicyFileForm, CodePolicyForm
from fabric.errors import explained

PER_PAGE = 100
SHOWN_CHANGES = 200


@require_GET
@needs("fabric.view_fleet")
def code_policies(request: HttpRequest) -> HttpResponse:
    named_by = attestation.named_by(now=timezone.now())
    rows = [(row, named_by.get(str(row.pk), ())) for row in attestation.code_policies()]
    return page(request, "fabric/codepolicies.html", {"rows": rows})


@require_GET
@needs("fabric.view_fleet")
def code_policy(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    found = attestation.code_policy(policy_id)
    decoded = attestation.code_policy_decoded(found)
    others = attestation.code_policies().exclude(pk=found.pk)
    other = next((each for each in others if str(each.pk) == asked(request, "with")), None)
    changes: tuple[PolicyChange, ...] = ()
    if other is not None:
        changes = attestation.code_policy_difference(other, found)
    context = {
        "policy": found,
        "others": others,
        "other": other,
        "changes": changes[:SHOWN_CHANGES],
        "more_changes": len(changes[SHOWN_CHANGES:]),
        "groups": attestation.named_by(now=timezone.now()).get(str(found.pk), ()),
        **_words(request, decoded),
    }
    return page(request, "fabric/codepolicy.html", context)


def _words(request: HttpRequest, decoded: CodeIntegrityPolicy) -> dict[str, object]:
    """Return what a policy does, and its lines by where they belong, a page of them."""
    every, part = tuple(policy_rows(decoded)), asked(request, "part")
    shown: tuple[PolicyRow, ...] = tuple(row for row in every if row.where == part) if part else every
    return {
        "decoded": decoded,
        "sentences": describe_ci_policy(decoded),
        "digests": [(name, value) for name, value in decoded.digests.items() if name != "sha1"],
        "parts": tuple(Counter(row.where for row in every).items()),
        "part": part,
        "rows": Paginator(shown, PER_PAGE).get_page(request.GET.get("page")),
    }


@require_GET
@needs("fabric.view_fleet")
def code_policy_file(request: HttpRequest, policy_id: UUID) -> HttpResponse:
    """Give the file as it was uploaded."""
    found = attestation.code_policy(policy_id)
    named = content_disposition_header(True, f"{found.name}.p7b")
    content = attestation.code_policy_file(found)
    return HttpResponse(content, content_type="application/octet-stream", headers={"Content-Disposition": named})


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def add_code_policy(request: HttpRequest) -> HttpResponse:
    """Show what a file allows, and only then ask whether to add it; nothing is kept before that."""
    if "content" in request.POST:
        return _add(request)
    form = CodePolicyFileForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        content = form.cleaned_data["file"]
        decoded = parse_ci_policy(content)
        name = decoded.name or decoded.measured_name or form.file_name
        asking = CodePolicyForm.of(content, file_name=form.file_name, name=f"{name} {decoded.version}")
        return _preview(request, decoded, asking)
    return page(request, "fabric/codepolicy_add.html", {"form": form})


def _add(request: HttpRequest) -> HttpResponse:
    form = CodePolicyForm(request.POST)
    valid = form.is_valid()
    if not {"content", "file_name"} <= form.cleaned_data.keys():
        raise BadRequest("The page that was shown did not come back whole.")
    if request.method == "POST" and valid:
        data = form.cleaned_data
        made = attestation.add_code_policy(
            data["content"], name=data["name"], file_name=data["file_name"], by=person(request), now=timezone.now()
        )
        messages.success(request, f"{made.name} is registered. It counts once a group’s policy names it.")
        return redirect("code-policy", made.pk)
    return _preview(request, parse_ci_policy(form.cleaned_data["content"]), form)


def _preview(request: HttpRequest, decoded: CodeIntegrityPolicy, form: CodePolicyForm) -> HttpResponse:
    return page(request, "fabric/codepolicy_preview.html", {"form": form, **_words(request, decoded)})
