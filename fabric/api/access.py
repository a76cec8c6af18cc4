"""Who may ask the API: a person by a token, or by the session of a browser. Either way with that person's role.

A token needs no password beside it. A session does, for every act: a screen left unlocked decides nothing, as on pages.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.utils import timezone
from knox.auth import TokenAuthentication
from rest_framework import exceptions
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from attestation.errors import Refusal
from fabric.models import ApiToken

SIGNED_IN: Final = "signed in"
"""What a view needs that tells each person what concerns them, by other means than roles."""
TOKEN: Final = re.compile(rb"guard_[0-9a-f]{64}")


class CsrfFailed(Refusal):
    code: ClassVar[str] = "csrf_failed"


class WrongPassword(Refusal):
    code: ClassVar[str] = "wrong_password"


class NotConfirmed(Refusal):
    """What proves less, or cannot be undone, is confirmed by its name, so that nobody gets there by a slip."""

    code: ClassVar[str] = "not_confirmed"
    status: ClassVar[int] = 409


class ByToken(TokenAuthentication):  # type: ignore[misc]  # knox ships no types
    """`Authorization: Bearer guard_…`. Ended, expired, or of a person who may not sign in: all the same 401."""

    def authenticate_credentials(self, token: bytes) -> tuple[User, ApiToken]:
        if not TOKEN.fullmatch(token):  # so that nothing else reaches the database
            raise exceptions.AuthenticationFailed("This is no token of this fabric.")
        user, found = super().authenticate_credentials(token)
        found.used(now=timezone.now())
        user.by_token = str(found.pk)  # what the ledger names beside the person
        return user, found


class BySession(SessionAuthentication):
    """The portal's own session, with its CSRF token."""

    def enforce_csrf(self, request: Request) -> None:
        try:
            super().enforce_csrf(request)
        except exceptions.PermissionDenied:
            raise CsrfFailed("Send the CSRF token of this session as X-CSRFToken, or use a token.") from None


class Role(BasePermission):
    """Lets through whose role has what the view needs for this method; for others the view has no answer."""

    def has_permission(self, request: Request, view: object) -> bool:
        if not request.user.is_authenticated:
            return False
        method = "GET" if request.method == "HEAD" else str(request.method)
        needs: Mapping[str, str] = getattr(view, "needs", {})
        if method not in needs:
            raise exceptions.MethodNotAllowed(method)
        return needs[method] == SIGNED_IN or request.user.has_perm(needs[method])


def acting(request: Request, body: Mapping[str, Any]) -> User:
    """Return who acts. In a session the password is asked for again, and wrong guesses count towards the lock."""
    person = request.user
    if not isinstance(person, User):
        raise exceptions.NotAuthenticated
    if isinstance(request.auth, ApiToken):
        return person
    password = body.get("password", "")
    if authenticate(request._request, username=person.get_username(), password=password) != person:
        raise WrongPassword("Send your password with each act; a token of yours needs none.")
    return person


def require_confirmed(given: str | None, expected: str, why: str) -> None:
    if given != expected:
        raise NotConfirmed(f"{why}. Send “{expected}” as `confirm`, if that is what you mean.")
