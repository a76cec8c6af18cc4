"""Who may open a page: strangers are sent to sign in, signed-in people without the permission get a 403 page."""

from collections.abc import Callable, Mapping
from typing import Concatenate, ParamSpec

from django.contrib.auth.decorators import login_required, permission_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers

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
