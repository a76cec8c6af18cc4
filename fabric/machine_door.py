"""The way of a machine's request: straight to its view, past everything that only pages need."""

from collections.abc import Callable
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.template.response import SimpleTemplateResponse
from django.urls import resolve

MACHINES: Final = ("/attestation/v1/", "/kps/v1/", "/ledger/v1/")


class MachineDoor:
    """Middleware: machines bring no session, no cookie and no form, and read no page.

    What stands behind this in `MIDDLEWARE` is for people only; looking for a session that is not there, and writing
    headers for a browser that is not there, cost more than an attestation's own cryptography.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith(MACHINES):
            return self.get_response(request)
        request.get_host()  # or it raises `DisallowedHost`: the name has to be one of ours
        request.resolver_match = found = resolve(request.path_info)
        response: HttpResponse = found.func(request, *found.args, **found.kwargs)
        if isinstance(response, SimpleTemplateResponse):
            response.render()
        response.headers["Content-Length"] = str(len(response.content))
        return response
