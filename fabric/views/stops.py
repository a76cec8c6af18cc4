"""Emergency stop: no key to a host, a group or anybody; what that means before it happens, and how it ends."""

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods

from attestation import service as attestation
from fabric.access import needs, page, person
from fabric.errors import explained
from fabric.forms import DangerForm, FreshForm
from fabric.stopping import denied_keys, impact_of, impacts_of, scope_of

ENDED = 20


@require_GET
@needs("fabric.view_fleet")
def stops(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    scopes = [scope_of("fabric", "", now=now)]
    scopes += [scope_of("group", str(group.pk), now=now) for group in attestation.groups()]
    context = {
        "in_force": attestation.stops_in_force(),
        "ended": attestation.stops().exclude(lifted_at=None)[:ENDED],
        "denied": denied_keys(now=now),
        "scopes": zip(scopes, impacts_of(scopes, now=now), strict=True),
    }
    return page(request, "fabric/stops.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.revoke")
@explained
def stop(request: HttpRequest, scope: str, target: object = "") -> HttpResponse:
    now = timezone.now()
    found = scope_of(scope, str(target), now=now)
    form = DangerForm(request.POST or None, request=request, expected=found.name, of=scope)
    if request.method == "POST" and form.is_valid():
        found.stop(by=person(request), reason=form.cleaned_data["reason"], now=now)
        messages.success(request, f"No key is released to {found.title} from now on.")
        return redirect("stops")
    context = {"form": form, "scope": found, "impact": impact_of(found, now=now)}
    return page(request, "fabric/stop.html", context)


@require_http_methods(["GET", "POST"])
@needs("attestation.revoke")
@explained
def lift(request: HttpRequest, stop_id: int) -> HttpResponse:
    found = attestation.stops_in_force().filter(pk=stop_id).first()
    if found is None:
        raise Http404
    form = FreshForm(request.POST or None, request=request)
    if request.method == "POST" and form.is_valid():
        proposal = attestation.propose_lift(
            stop_id, by=person(request), reason=form.cleaned_data["reason"], now=timezone.now()
        )
        messages.success(request, "The lift is put forward. Somebody else decides it.")
        return redirect("proposal", proposal.pk)
    return page(request, "fabric/lift_stop.html", {"form": form, "stop": found})
