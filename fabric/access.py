"""Who may open a page: strangers are sent to sign in, signed-in people without the permission get a 403 page.

Also whose failed log-ins are counted together, and that no cache keeps what a person was shown.
"""

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Concatenate, ParamSpec

from django.conf import settings
from django.contrib.auth.decorators import login_required, permission_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import add_never_cache_headers, patch_vary_headers

Params = ParamSpec("Params")
View = Callable[Concatenate[HttpRequest, Params], HttpResponse]


def needs(permission: str) -> Callable[[View[Params]], View[Params]]:
    def decorate(view: View[Params]) -> View[Params]:
        return login_required(permission_required(permission, raise_exception=True)(view))

    return decorate


def asked(request: HttpRequest, name: str) -> str:
    """Return what the address asks for; a NUL would end the pattern on one database and break the other."""
    return request.GET.get(name, "").replace("\0", "").strip()


def person(request: HttpRequest) -> User:
    """Return who is acting."""
    if not isinstance(request.user, User):
        raise PermissionDenied
    return request.user


def page(request: HttpRequest, template: str, context: Mapping[str, object]) -> HttpResponse:
    """Render a page, or only its live fragments when the page itself asks for them."""
    if getattr(request, "htmx", False) and not request.htmx.boosted:  # type: ignore[attr-defined]  # HtmxMiddleware
        template += "#live"
    response = render(request, template, dict(context))
    patch_vary_headers(response, ["HX-Request"])
    return response


def address(request: HttpRequest) -> str | None:
    """Return the address that log-in failures count against.

    Behind a proxy every request has the proxy's own; were that counted, five wrong passwords from anywhere would lock
    an approver out. The last forwarded address is the one that our proxy has written itself.
    """
    direct: str | None = request.META.get("REMOTE_ADDR")
    if not settings.BEHIND_PROXY:
        return direct
    try:
        return str(ip_address(request.META.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()))
    except ValueError:
        return direct


class PrivatePages:
    """Middleware: what a signed-in person is shown stays in no cache, of a proxy or of a laptop that gets stolen."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.user.is_authenticated and not response.has_header("Cache-Control"):
            add_never_cache_headers(response)
        return response
