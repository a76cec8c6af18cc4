"""The ways in and what everybody may read."""

from django.contrib.auth.decorators import login_required
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from fabric.context import THEMES
from fabric.models import Tenant

YEAR = 365 * 24 * 3600


@require_GET
@login_required
def home(request: HttpRequest) -> HttpResponse:
    """Send everybody to the page that is theirs."""
    if request.user.has_perm("fabric.view_fleet"):
        return redirect("fleet")
    tenant = Tenant.objects.visible_to(request.user).first()
    return redirect(tenant) if tenant else render(request, "fabric/no_role.html")


@require_GET
@login_required
def proves(request: HttpRequest) -> HttpResponse:
    return render(request, "fabric/proves.html")


@require_POST
def theme(request: HttpRequest) -> HttpResponse:
    """Keep light, dark or as-the-system in a cookie of this browser."""
    wanted, back = request.POST.get("theme", "auto"), request.POST.get("next", "/")
    if not url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure()):
        back = "/"
    response = redirect(back)
    chosen = wanted if wanted in THEMES else "auto"
    response.set_cookie("theme", chosen, max_age=YEAR, samesite="Lax", secure=request.is_secure(), httponly=True)
    return response


@require_GET
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200 while this node can reach its database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return JsonResponse({"status": "ok"})
