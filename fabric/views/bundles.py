"""Files of CA certificates: looked into, reported certificate by certificate, and only then trusted, by maker."""

from collections import Counter
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from attestation import service as attestation
from attestation.core.authority import Reason
from attestation.core.authority_words import REMEDIES
from fabric.access import asked, needs, page, person
from fabric.errors import explained
from fabric.maker_forms import BundleFileForm, ImportForm

PER_PAGE = 100
OUTCOMES = ("added", "known", "refused")


@require_http_methods(["GET", "POST"])
@needs("attestation.trust_maker")
@explained
def upload_bundle(request: HttpRequest) -> HttpResponse:
    form = BundleFileForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        bundle = attestation.upload_bundle(
            form.cleaned_data["file"], file_name=form.file_name, by=person(request), now=timezone.now()
        )
        return redirect("import-bundle", bundle.pk)
    return page(request, "fabric/upload_bundle.html", {"form": form})


@require_http_methods(["GET", "POST"])
@needs("attestation.trust_maker")
@explained
def import_bundle(request: HttpRequest, bundle_id: UUID) -> HttpResponse:
    """Show what a file would add, and ask whose authorities of it are to be trusted."""
    found = attestation.authority_bundle(bundle_id)
    report = _report(request, found)
    if found.imported_at is not None and request.method == "GET":
        return page(request, "fabric/bundle.html", report)
    offered = [each for each in attestation.bundle_tallies(attestation.bundle_report(found)) if each.added]
    form = ImportForm(request.POST or None, request=request, makers=[(each.maker, each.maker) for each in offered])
    if request.method == "POST" and form.is_valid():
        done = attestation.import_bundle(
            bundle_id,
            makers=form.cleaned_data["makers"],
            by=person(request),
            reason=form.cleaned_data["reason"],
            now=timezone.now(),
        )
        added = sum(line.outcome == "added" for line in attestation.bundle_report(done))
        messages.success(request, f"{added} certificate{'s' if added != 1 else ''} of {done.file_name} trusted.")
        return redirect("bundle", bundle_id)
    ticked = form["makers"].value() or ()
    context = {
        "form": form,
        "offered": [(each, each.maker in ticked) for each in offered],
        "effect": attestation.effect_of_bundle(found, now=timezone.now()),
    }
    return page(request, "fabric/import_bundle.html", {**report, **context})


@require_GET
@needs("fabric.view_fleet")
def bundle(request: HttpRequest, bundle_id: UUID) -> HttpResponse:
    return page(request, "fabric/bundle.html", _report(request, attestation.authority_bundle(bundle_id)))


def _report(request: HttpRequest, found: attestation.AuthorityBundle) -> dict[str, object]:
    """Return what became of a file's certificates, or would: counted, and a page of those that were asked for."""
    lines = attestation.bundle_report(found)
    asks = {name: asked(request, name) for name in ("outcome", "reason", "maker")}
    shown = [line for line in lines if all(getattr(line, name) == wanted for name, wanted in asks.items() if wanted)]
    outcomes, reasons = Counter(line.outcome for line in lines), Counter(line.reason for line in lines if line.reason)
    return {
        "bundle": found,
        "total": len(lines),
        "tallies": attestation.bundle_tallies(lines),
        "outcomes": [(name, outcomes[name]) for name in OUTCOMES],
        "reasons": [(name, count, REMEDIES[Reason(name)]) for name, count in reasons.most_common()],
        "asks": asks,
        "filtered": any(asks.values()),
        "rows": Paginator(shown, PER_PAGE).get_page(request.GET.get("page")),
        "remedies": REMEDIES,
    }
