"""API tokens: a person’s own; made, shown once, and ended."""

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_GET, require_http_methods

from fabric.access import page, person
from fabric.errors import explained
from fabric.forms import FreshForm
from fabric.models import ApiToken
from fabric.token_forms import TokenForm
from fabric.tokens import end_token, make_token


@require_GET
@login_required
def api_tokens(request: HttpRequest) -> HttpResponse:
    found = ApiToken.objects.visible_to(request.user).alive(now=timezone.now()).select_related("user")
    context = {
        "own": found.filter(user=person(request)),
        "others": found.exclude(user=person(request)),
    }
    return page(request, "fabric/api_tokens.html", context)


@require_http_methods(["GET", "POST"])
@login_required
@explained
@sensitive_variables("text")
def make_api_token(request: HttpRequest) -> HttpResponse:
    """Make a token and show it in this one answer: it is kept nowhere that it could be read from again."""
    form = TokenForm(request.POST or None, request=request)
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        made, text = make_token(
            data["name"],
            lifetime=data["lifetime"],
            by=person(request),
            reason=data["reason"],
            now=timezone.now(),
        )
        return page(request, "fabric/made_api_token.html", {"token": made, "text": text})
    return page(request, "fabric/make_api_token.html", {"form": form})


@require_http_methods(["GET", "POST"])
@login_required
@explained
def end_api_token(request: HttpRequest, token_id: UUID) -> HttpResponse:
    found = ApiToken.objects.visible_to(request.user).select_related("user").filter(pk=token_id).first()
    if found is None:
        raise Http404
    form = FreshForm(request.POST or None, request=request)
    if request.method == "POST" and form.is_valid():
        end_token(token_id, by=person(request), reason=form.cleaned_data["reason"], now=timezone.now())
        messages.success(request, f"The token {found.name} is ended. Whoever holds it is refused from now on.")
        return redirect("api-tokens")
    return page(request, "fabric/end_api_token.html", {"form": form, "token": found})
