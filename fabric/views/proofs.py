"""What a tenant checks for itself: the fabric's guardian, what a host had proved, and what was recorded about it."""

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.utils.text import slugify
from django.views.decorators.http import require_GET

from attestation import service as attestation
from fabric import feed, tenant_log
from fabric.access import asked, page
from fabric.models import ShieldingData, Tenant, VirtualMachine, sees_templates
from kps import service as kps
from ledger import service as ledger

PER_PAGE = 50
GROUP, GROUPS_A_LINE = 4, 4


@require_GET
@login_required
def guardian(request: HttpRequest) -> HttpResponse:
    _require_role(request)
    fingerprint = kps.guardian_fingerprint(now=timezone.now())
    groups = [fingerprint[at : at + GROUP] for at in range(0, len(fingerprint), GROUP)]
    context = {
        "fingerprint": fingerprint,
        "lines": [groups[at : at + GROUPS_A_LINE] for at in range(0, len(groups), GROUPS_A_LINE)],
        "pairs": kps.pairs(),
        "file_name": _guardian_file(),
    }
    return page(request, "fabric/guardian.html", context)


@require_GET
@login_required
def guardian_file(request: HttpRequest) -> HttpResponse:
    """Give the fabric's guardian as it signs itself; whoever takes it compares the fingerprint."""
    _require_role(request)
    named = content_disposition_header(True, _guardian_file())
    return HttpResponse(
        f"{kps.metadata(now=timezone.now())}\n",
        content_type="application/octet-stream",
        headers={"Content-Disposition": named},
    )


@require_GET
@login_required
def evidence(request: HttpRequest, slug: str, attestation_id: int) -> HttpResponse:
    """Show what a host had proved when it asked for a key of this tenant's; other attestations are not the tenant's."""
    tenant = _tenant(request, slug)
    releases = kps.releases(owner_fingerprint=tenant.owner_fingerprint).filter(attestation_id=attestation_id)
    if not releases.exists():
        raise Http404
    found = attestation.attestation(attestation_id)
    context = {
        "tenant": tenant,
        "found": found,
        "checks": attestation.checks_of(found),
        "asked_for": releases[:PER_PAGE],
    }
    return page(request, "fabric/evidence.html", context)


@require_GET
@login_required
def log(request: HttpRequest, slug: str) -> HttpResponse:
    """Show what the log has about this tenant."""
    tenant = _tenant(request, slug)
    machines = list(VirtualMachine.objects.filter(tenant=tenant).select_related("tenant"))
    files = ShieldingData.objects.filter(tenant=tenant).select_related("tenant").defer("head")
    names = ("kind", "outcome", "machine", "since", "until")
    wanted = tenant_log.read({name: asked(request, name) for name in names}, machines)
    rows = Paginator(tenant_log.entries(tenant, wanted), PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "tenant": tenant,
        "machines": machines,
        "vms": {machine.subject: machine for machine in machines} | {file.subject: file for file in files},
        "asked": wanted,
        "kinds": tenant_log.KINDS,
        "outcomes": tenant_log.OUTCOMES,
        "rows": rows,
        "lines": [(feed.line(row.leaf), row, "intact" if ledger.intact(row.leaf) else "altered") for row in rows],
        "checkpoint": ledger.latest_checkpoint(),
        "key": ledger.log_verifier(),
        "begun": ledger.beginnings(),
    }
    return page(request, "fabric/tenant_log.html", context)


def _require_role(request: HttpRequest) -> None:
    if not sees_templates(request.user):  # who decides about templates decides about guardians
        raise PermissionDenied


def _tenant(request: HttpRequest, slug: str) -> Tenant:
    return get_object_or_404(Tenant.objects.visible_to(request.user).distinct(), slug=slug)


def _guardian_file() -> str:
    return f"{slugify(settings.FABRIC_NAME) or 'fabric'}.guardian"
