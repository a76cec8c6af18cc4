"""Makers of TPMs: whose EK certificates count here, why, since when, and what would change if they did not."""

from datetime import timedelta

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from attestation import service as attestation
from attestation.core.authority_words import EXCEPTIONS, authority_facts
from attestation.core.certificate_reader import Tolerance, read_certificate
from fabric.access import asked, needs, page, person
from fabric.errors import explained
from fabric.forms import DangerForm, FreshForm
from fabric.maker_forms import AuthorityForm

PER_PAGE = 50
BUNDLES = 10
SOON = timedelta(days=90)


@require_GET
@needs("fabric.view_fleet")
def makers(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    context = {
        "lines": attestation.makers(now=now),
        "missing": attestation.missing_makers(),
        "bundles": Paginator(attestation.authority_bundles(), BUNDLES).get_page(request.GET.get("page")),
        "soon": now + SOON,
    }
    return page(request, "fabric/makers.html", context)


@require_GET
@needs("fabric.view_fleet")
def maker(request: HttpRequest, vendor_id: int) -> HttpResponse:
    now, query = timezone.now(), asked(request, "q")
    found = attestation.maker(vendor_id)
    resting = attestation.hosts_of_maker(found)
    exceptions = attestation.exceptions_of(found, resting)
    shown = Paginator(attestation.maker_authorities(found, query=query), PER_PAGE).get_page(request.GET.get("page"))
    hosts = attestation.hosts_per_authority(resting)
    context = {
        "maker": found,
        "query": query,
        "rows": shown,
        "listed": [(row, hosts[row.pk]) for row in shown],
        "orphans": attestation.without_issuer(shown),
        "hosts": resting,
        "exceptions": [(each, EXCEPTIONS[each.tolerance]) for each in exceptions],
        "soon": now + SOON,
    }
    return page(request, "fabric/maker.html", context)


@require_GET
@needs("fabric.view_fleet")
def authority(request: HttpRequest, fingerprint: str) -> HttpResponse:
    now = timezone.now()
    found = attestation.authority(fingerprint)
    issued = attestation.issued_by(found).select_related("vendor").defer("certificate")
    below = Paginator(issued, PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "authority": found,
        "facts": authority_facts(read_certificate(bytes(found.certificate))),
        "chain": attestation.chain_of(found, now=now),
        "issued": below,
        "orphans": attestation.without_issuer([found, *below]),
        "hosts": attestation.hosts_resting_on({found.pk}),
        "exceptions": [EXCEPTIONS[Tolerance(word)] for word in found.tolerances],
        "soon": now + SOON,
    }
    return page(request, "fabric/authority.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.trust_maker")
@explained
def switch_maker(request: HttpRequest, vendor_id: int, *, enabled: bool) -> HttpResponse:
    """Ask whether a maker's authorities are to count, or to count no more, beside what that would do."""
    found, now = attestation.maker(vendor_id), timezone.now()
    form = DangerForm(request.POST or None, request=request, expected=found.name, of="maker")
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        changed = attestation.switch_maker(vendor_id, enabled=enabled, by=person(request), reason=reason, now=now)
        messages.success(request, f"{found.name} {_counts(enabled=enabled)} {_judged(changed)}")
        return redirect("maker", vendor_id)
    effect = attestation.effect_of_maker(found, enabled=enabled, now=now)
    context = {"form": form, "maker": found, "enabled": enabled, "effect": effect, "moot": found.enabled == enabled}
    return page(request, "fabric/switch_maker.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.trust_maker")
@explained
def switch_authority(request: HttpRequest, fingerprint: str, *, enabled: bool) -> HttpResponse:
    found, now = attestation.authority(fingerprint), timezone.now()
    form = AuthorityForm(request.POST or None, request=request, fingerprint=found.pk)
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        changed = attestation.switch_authority(fingerprint, enabled=enabled, by=person(request), reason=reason, now=now)
        messages.success(request, f"{found.title} {_counts(enabled=enabled)} {_judged(changed)}")
        return redirect("authority", fingerprint)
    effect = attestation.effect_of_authority(found, enabled=enabled, now=now)
    context = {"form": form, "authority": found, "enabled": enabled, "effect": effect, "moot": found.enabled == enabled}
    return page(request, "fabric/switch_authority.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.trust_maker")
@explained
def switch_exception(request: HttpRequest, vendor_id: int, name: str, *, allowed: bool) -> HttpResponse:
    """Ask whether one malformation is to be forgiven in a maker's certificates, or forgiven no more."""
    found, now = attestation.maker(vendor_id), timezone.now()
    if name not in set(Tolerance):
        raise Http404
    exception = Tolerance(name)
    form = FreshForm(request.POST or None, request=request)
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        changed = attestation.switch_exception(
            vendor_id, exception, allowed=allowed, by=person(request), reason=reason, now=now
        )
        messages.success(request, f"Recorded for {found.name}. {_judged(changed)}")
        return redirect("maker", vendor_id)
    then = found.tolerated() | {exception} if allowed else found.tolerated() - {exception}
    context = {
        "form": form,
        "maker": found,
        "exception": exception,
        "words": EXCEPTIONS[exception],
        "allowed": allowed,
        "effect": attestation.effect_of_exceptions(found, then, now=now),
        "moot": (exception in found.tolerated()) == allowed,
    }
    return page(request, "fabric/switch_exception.html", context)


def _counts(*, enabled: bool) -> str:
    return "counts again." if enabled else "counts no more."


def _judged(changed: int) -> str:
    if not changed:
        return "No host’s EK certificate is judged otherwise by it."
    return f"{changed} host{'s are' if changed > 1 else ' is'} judged otherwise by it; the audit log has each."
