"""Hosts: what they proved, and the acts on one of them."""

from collections.abc import Iterable
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from attestation import service as attestation
from fabric import feed
from fabric.access import asked, needs, page, person
from fabric.errors import explained
from fabric.forms import AnnounceForm, DangerForm, HostForm
from fabric.models import Host, MachineOrder, VirtualMachine
from fabric.pictures import chart
from fabric.tenancy import usage

LAPSING, FEED, HISTORY, STRIP, TRIALS = 6, 12, 10, 45, 5
PER_PAGE = 50
STATUSES = (
    "Passed",
    "Expired",
    "InsecureHostConfiguration",
    "TpmError",
    "Unknown",
    "pending",
    "NotInForce",
    "rejected",
    "revoked",
)


@require_GET
@needs("fabric.view_fleet")
def fleet(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    tally = attestation.status_counts(now=now)
    causes = attestation.failing(now=now)
    context = {
        "tally": tally,
        "enrolled": sum(
            count for status, count in tally.items() if status not in {"rejected", "revoked", "NotInForce"}
        ),
        "causes": causes,
        "changes": attestation.acceptable_changes() if causes else 0,
        "last_failure": None if causes else attestation.last_failure(),
        "waiting": attestation.waiting(),
        "chart": chart(attestation.per_hour(now=now)),
        "endings": attestation.endings(now=now),
        "turnover": attestation.turnover(now=now),
        "lapsing": attestation.lapsing(now=now, limit=LAPSING),
        "feed": feed.newest(FEED),
        "policy": attestation.policy_version(),
    }
    return page(request, "fabric/fleet.html", context)


@require_GET
@needs("fabric.view_fleet")
def hosts(request: HttpRequest) -> HttpResponse:
    query, status, group = (asked(request, name) for name in ("q", "status", "group"))
    now = timezone.now()
    found = attestation.attesters(query=query, status=status, group=group, now=now)
    rows = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    context = {
        "rows": rows,
        "certified": attestation.certified_among([row.pk for row in rows], now=now),
        "group": group,
        "groups": attestation.groups(),
        "query": query,
        "status": status,
        "statuses": STATUSES,
        "without_status": attestation.attesters(query=query, now=now).count() if status else 0,
    }
    return page(request, "fabric/hosts.html", context)


@require_GET
@needs("fabric.view_fleet")
def host(request: HttpRequest, attester_id: UUID) -> HttpResponse:
    now = timezone.now()
    entry = get_object_or_404(Host.objects.visible_to(request.user), attester_id=attester_id)
    attester = attestation.attester(attester_id)
    history = attestation.attestations(attester_id=attester_id)
    comparison = attestation.compare(attester.latest) if attester.latest else None
    status = attestation.shown_status(attester, now=now)
    # Those of the mode before go on counting for a while after a switch.
    waiting_out = status == "NotInForce" and attestation.mode_counts(attester.mode, now=now)
    context = {
        "host": entry,
        "attester": attester,
        "status": status,
        "usable": status == "Passed" or (waiting_out and attester.status == "Passed"),
        "waiting_out": attestation.switches()[0].before_until if waiting_out else None,
        "certificate": attestation.live_certificate(attester_id, now=now),
        "comparison": comparison,
        "known": attestation.known_in(comparison),
        "endorsers": attestation.endorsers(attester),
        "acceptable": attestation.acceptable(attester.latest) if attester.latest else (),
        "open_proposal": attestation.open_proposal_for(attester_id),
        "history": history[:HISTORY],
        "strip": _strip(history[:STRIP]),
        "trials": attestation.trials(attester_id)[:TRIALS],
    }
    return page(request, "fabric/host.html", context)


def _strip(newest: Iterable[object]) -> list[object]:
    """Return the picture's places, oldest first; places without an attestation are on the left."""
    shown = [*newest][::-1]
    return [None] * (STRIP - len(shown)) + shown


@require_GET
@needs("fabric.view_fleet")
def machines(request: HttpRequest) -> HttpResponse:
    ordered = MachineOrder.objects.visible_to(request.user).filter(machine=None, cancelled_at=None)
    ordered = ordered.select_related("tenant", "template", "shielding_data").defer("shielding_data__head")
    context = {
        "machines": usage(VirtualMachine.objects.visible_to(request.user)),
        "orders": ordered.select_related("tenant", "template", "shielding_data").defer("shielding_data__head")[
            :PER_PAGE
        ],
    }
    return page(request, "fabric/machines.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def announce_host(request: HttpRequest) -> HttpResponse:
    """Announce a host by the file that Get-PlatformIdentifier wrote on it."""
    form = AnnounceForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        host = attestation.announce_host(
            form.cleaned_data["identifier"],
            by=person(request),
            reason=form.cleaned_data["reason"],
            now=timezone.now(),
        )
        messages.success(request, f"{host.name} is announced. Once it enrols, its page says so.")
        return redirect("announce-host")
    return page(request, "fabric/announce_host.html", {"form": form, "expected": attestation.expected_hosts()})


@require_http_methods(["GET", "POST"])
@needs("attestation.propose")
@explained
def propose_host(request: HttpRequest, attester_id: UUID) -> HttpResponse:
    """Put a waiting host forward, into a group, or an approved one for another group."""
    attester = attestation.attester(attester_id)
    groups = [(each.pk, each.name) for each in attestation.groups()]
    form = HostForm(request.POST or None, groups=groups, initial={"group": attester.group_id})
    if request.method == "POST" and form.is_valid():
        proposal = attestation.propose_host(
            attester_id,
            by=person(request),
            reason=form.cleaned_data["reason"],
            now=timezone.now(),
            group=form.cleaned_data["group"] or str(attester.group_id),
        )
        messages.success(request, "Put forward. An approver decides it; you cannot.")
        return redirect("proposal", proposal.pk)
    return page(request, "fabric/propose_host.html", {"form": form, "attester": attester})


@require_http_methods(["GET", "POST"])
@needs("attestation.revoke")
@explained
def revoke_certificate(request: HttpRequest, serial: str) -> HttpResponse:
    certificate = attestation.certificate(serial)
    form = DangerForm(request.POST or None, request=request, expected=certificate.attester.name)
    if request.method == "POST" and form.is_valid():
        attestation.revoke_certificate(
            serial, by=person(request), reason=form.cleaned_data["reason"], now=timezone.now()
        )
        messages.success(request, f"Certificate {serial[:8]} is revoked. No key is released with it any more.")
        return redirect("host", certificate.attester_id)
    context = {"form": form, "certificate": certificate, "attester": certificate.attester}
    return page(request, "fabric/revoke_certificate.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.revoke")
@explained
def revoke_host(request: HttpRequest, attester_id: UUID) -> HttpResponse:
    attester = attestation.attester(attester_id)
    form = DangerForm(request.POST or None, request=request, expected=attester.name)
    if request.method == "POST" and form.is_valid():
        attestation.revoke_host(attester_id, by=person(request), reason=form.cleaned_data["reason"], now=timezone.now())
        messages.success(request, f"{attester.name} is revoked. It gets no certificate and no key any more.")
        return redirect("host", attester_id)
    return page(request, "fabric/revoke_host.html", {"form": form, "attester": attester})
