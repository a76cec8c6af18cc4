"""API tokens: a person's own keys to the API, which carry that person's role and no more.

A token is shown once and kept as a hash (`knox`); the ledger says who made and ended it, and which acts came by it.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import ClassVar, Final
from uuid import UUID

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from knox.models import get_digest_token
from knox.settings import CONSTANTS

from attestation.errors import NotFound, Refusal
from fabric.models import ApiToken
from ledger import service as ledger

LONGEST: Final = timedelta(days=90)


class TokenKnown(Refusal):
    code: ClassVar[str] = "token_known"
    status: ClassVar[int] = 409


class TokenTooLong(Refusal):
    code: ClassVar[str] = "token_too_long"
    status: ClassVar[int] = 409


def make_token(name: str, *, lifetime: timedelta, by: User, reason: str, now: datetime) -> tuple[ApiToken, str]:
    """Make a token of this person and return it with its text, which nobody can be shown again."""
    if not timedelta() < lifetime <= LONGEST:
        raise TokenTooLong(f"A token lasts {LONGEST.days} days at most. Make another one before it ends.")
    digest, text = get_digest_token()
    with transaction.atomic():
        ApiToken.objects.filter(user=by, expiry__lte=now).delete()
        token = _new(ApiToken(name=name, user=by, digest=digest, token_key=_key(text), expiry=now + lifetime))
        detail = {"name": name, "until": token.expiry.isoformat(), "reason": reason}
        _record(by, "token.made", token, detail, now)
    return token, text


def _key(text: str) -> str:
    """Return the part of a token that it is looked up by; the other 220 bits or so are in the hash alone."""
    return text[: CONSTANTS.TOKEN_KEY_LENGTH]


def _new(token: ApiToken) -> ApiToken:
    try:
        with transaction.atomic():
            token.save(force_insert=True)
    except IntegrityError:
        raise TokenKnown(f"You have a token called {token.name}. End it first, or take another name.") from None
    return token


def end_token(token_id: UUID, *, by: User, reason: str, now: datetime) -> None:
    """End a token at once: one’s own, or anybody’s for those who may revoke hosts."""
    with transaction.atomic():
        token = ApiToken.objects.visible_to(by).filter(pk=token_id).first()
        if token is None or ApiToken.objects.filter(pk=token.pk).delete()[0] != 1:
            raise NotFound("There is no such token, or it is not yours to end.")
        _record(by, "token.ended", token, {"name": token.name, "person": str(token.user), "reason": reason}, now)


def _record(by: User, act: str, token: ApiToken, detail: Mapping[str, object], now: datetime) -> None:
    ledger.record(actor=f"user:{by.get_username()}", act=act, subject=token.subject, detail=detail, now=now)
