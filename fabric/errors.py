"""Errors in one place: what a machine, a page and a form are told when something is refused or breaks.

Views hold no `try`: a service raises, and what it raised is put into words here. The codes are part of the wire.
"""

import logging
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template import loader
from rest_framework import exceptions
from rest_framework.response import Response

from attestation.errors import Refusal

logger = logging.getLogger("guardhouse.errors")
Params = ParamSpec("Params")

PROBLEM = "application/problem+json"
MACHINES = ("/attestation/v1/", "/kps/v1/", "/ledger/v1/", "/api/")
TITLES = {
    400: "Malformed request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict",
    410: "Gone",
    413: "Too large",
    415: "Unsupported media type",
    422: "Evidence refused",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available",
}
CODES = {
    exceptions.NotAuthenticated: "not_authenticated",
    exceptions.AuthenticationFailed: "not_authenticated",
    exceptions.PermissionDenied: "not_allowed",
    exceptions.NotFound: "not_found",
    exceptions.MethodNotAllowed: "method_not_allowed",
    exceptions.NotAcceptable: "not_acceptable",
    exceptions.UnsupportedMediaType: "unsupported_media_type",
    exceptions.Throttled: "too_many_requests",
}


def problem(exc: Exception, context: Mapping[str, Any]) -> Response:
    """Answer every exception of the API as RFC 9457 problem details; what we did not foresee gets a bland 500.

    Each leaves a line with its code: a message that cannot be read never reaches the service that records refusals.
    """
    answer = _answer(exc, context)
    logger.info("refused by %s: code %s", type(context.get("view")).__name__, answer.data["code"])
    return answer


def _answer(exc: Exception, context: Mapping[str, Any]) -> Response:
    if isinstance(exc, Refusal):
        response = _problem(exc.status, exc.code, str(exc))
        if exc.scheme:
            response["WWW-Authenticate"] = exc.scheme
        return response
    if isinstance(exc, Http404):
        return _problem(404, "not_found", "There is no such resource.")
    if isinstance(exc, PermissionDenied):
        return _problem(403, "not_allowed", "You may not do this.")
    if isinstance(exc, RequestDataTooBig):
        return _problem(413, "too_large", "The message is larger than this service reads.")
    if isinstance(exc, SuspiciousOperation):
        return _problem(400, "malformed_request", "The message cannot be read.")
    if isinstance(exc, exceptions.APIException):
        response = _problem(exc.status_code, _code(exc), _sentence(exc.detail))
        for header, value in _headers(exc).items():
            response[header] = value
        return response
    logger.error("unforeseen error in %s", type(context.get("view")).__name__, exc_info=exc)
    return _problem(500, "internal_error", "Something broke on our side. It is in the log of this node.")


def _problem(status: int, code: str, detail: str) -> Response:
    return Response(_body(status, code, detail), status=status, content_type=PROBLEM)


def _body(status: int, code: str, detail: str) -> dict[str, str | int]:
    title = TITLES.get(status, "Refused")
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}


def _code(exc: exceptions.APIException) -> str:
    if isinstance(exc, exceptions.ValidationError) and "too_large" in _codes(exc.get_codes()):
        return "too_large"
    return CODES.get(type(exc), "malformed_request")


def _codes(codes: object) -> set[str]:
    if isinstance(codes, Mapping):
        return set().union(*(_codes(inner) for inner in codes.values()))
    if isinstance(codes, list):
        return set().union(*(_codes(inner) for inner in codes))
    return {str(codes)}


def _sentence(detail: object, field: str = "") -> str:
    """Fold DRF's tree of field errors into one line: `quote: This field is required.`"""
    if isinstance(detail, Mapping):
        return " ".join(
            _sentence(inner, "" if name == "non_field_errors" else str(name)) for name, inner in detail.items()
        )
    if isinstance(detail, list):
        return " ".join(_sentence(inner, field) for inner in detail)
    return f"{field}: {detail}" if field else str(detail)


def _headers(exc: exceptions.APIException) -> dict[str, str]:
    headers = {}
    if getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = str(exc.auth_header)  # type: ignore[attr-defined]  # set by DRF's views
    if getattr(exc, "wait", None):
        headers["Retry-After"] = str(int(exc.wait))  # type: ignore[attr-defined]  # only `Throttled` has it
    return headers


# --- pages -------------------------------------------------------------------------------------------------------


class RefusalPages:
    """Middleware: a refusal that a page's view lets through becomes a page that says it, with the refusal's status."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, Refusal):
            return None
        return _page(request, exception.status, str(exception), code=exception.code)


View = Callable[Concatenate[HttpRequest, Params], HttpResponse]


def explained(view: View[Params]) -> View[Params]:
    """Show a refused act on the page where it was asked for: answers kept, reason in a box, the refusal's status.

    The view runs again as a reading; its form is still filled from `request.POST`.
    """

    @wraps(view)
    def inner(request: HttpRequest, /, *args: Params.args, **kwargs: Params.kwargs) -> HttpResponse:
        if request.method != "POST":
            return view(request, *args, **kwargs)
        try:
            return view(request, *args, **kwargs)
        except Refusal as refusal:
            request.refusal = refusal  # type: ignore[attr-defined]  # read by the base template
            request.method = "GET"
            response = view(request, *args, **kwargs)
            response.status_code = refusal.status
            return response

    return inner


def _page(request: HttpRequest, status: int, message: str, *, code: str) -> HttpResponse:
    """Say it as a page, or as a problem document where machines ask."""
    if request.path.startswith(MACHINES):
        return JsonResponse(_body(status, code, message), status=status, content_type=PROBLEM)
    context = {"status": status, "title": TITLES.get(status, "Refused"), "message": message, "code": code}
    return render(request, "fabric/problem.html", context, status=status)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _page(request, 400, "The browser sent something that this page cannot read.", code="malformed_request")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _page(request, 403, "Your role does not reach this page.", code="not_allowed")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _page(request, 404, "There is nothing at this address that you may see.", code="not_found")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    message = "The form was too old or came from another site. Open the page again, then send it once more."
    return _page(request, 403, message, code="csrf_failed")


def locked_out(
    request: HttpRequest, response: HttpResponse | None, credentials: Mapping[str, object] | None
) -> HttpResponse:
    """Answer whoever has typed too many wrong passwords; called by axes, in place of what the view had answered."""
    if request.path.startswith(MACHINES):
        message = "Too many wrong passwords from this address. It is open again in 15 minutes; tokens go on working."
        return _page(request, 429, message, code="locked_out")
    return render(request, "registration/locked.html", status=429)


def server_error(request: HttpRequest) -> HttpResponse:
    """Say it without the request's context: whatever broke may be what the ordinary page needs."""
    if request.path.startswith(MACHINES):
        return _page(request, 500, "Something broke on our side. It is in the log of this node.", code="internal_error")
    return HttpResponse(loader.render_to_string("fabric/broken.html"), status=500)
