"""What happened: verdicts, releases, and the ledger itself. Nothing here changes anything."""

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from attestation import service as attestation
from fabric import feed
from fabric.access import asked, needs, page
from fabric.logbook import places_of_releases
from kps import service as kps
from ledger import service as ledger

PER_PAGE = 50
STATUSES = ("Passed", "InsecureHostConfiguration", "TpmError", "UnauthorizedHost")


@require_GET
@needs("fabric.view_fleet")
def attestations(request: HttpRequest) -> HttpResponse:
    query, status = asked(request, "q"), asked(request, "status")
    found = attestation.attestations(query=query, status=status)
    context = {
        "rows": Paginator(found, PER_PAGE).get_page(request.GET.get("page")),
        "query": query,
        "status": status,
        "statuses": STATUSES,
    }
    return page(request, "fabric/attestations.html", context)


@require_GET
@needs("fabric.view_fleet")
def attestation_detail(request: HttpRequest, attestation_id: int) -> HttpResponse:
    found = attestation.attestation(attestation_id)
    comparison = attestation.compare(found)
    context = {
        "found": found,
        "comparison": comparison,
        "known": attestation.known_in(comparison),
        "events": attestation.events(found),
        "checks": attestation.checks_of(found),
        "acceptable": attestation.acceptable(found),
    }
    return page(request, "fabric/attestation.html", context)


@require_GET
@needs("fabric.view_fleet")
def releases(request: HttpRequest) -> HttpResponse:
    rows = Paginator(kps.releases(), PER_PAGE).get_page(request.GET.get("page"))
    return page(request, "fabric/releases.html", {"rows": rows, "places": places_of_releases(list(rows))})


@require_GET
@needs("fabric.view_audit")
def audit(request: HttpRequest) -> HttpResponse:
    wanted = {name: asked(request, name) for name in ("act", "actor", "subject")}
    found = ledger.leaves(act_prefix=wanted["act"], actor=wanted["actor"], subject=wanted["subject"])
    rows = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    entries = [(feed.line(leaf), leaf, "intact" if ledger.intact(leaf) else "altered") for leaf in rows]
    altered = sum(verdict == "altered" for _, _, verdict in entries)
    context = {
        "rows": rows,
        "entries": entries,
        "altered": altered,
        "places": {leaf: entry.index for leaf, entry in ledger.entries_of(list(rows)).items()},
        "checkpoint": ledger.latest_checkpoint(),
        "key": ledger.log_verifier(),
        "begun": ledger.beginnings(),
        **wanted,
    }
    return page(request, "fabric/audit.html", context)
