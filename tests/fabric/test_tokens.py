"""API tokens: made with a password, shown once, kept as a hash, ended by their person or by those who may revoke."""

import re
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import IntegrityError
from django.test import Client
from django.utils import timezone

from attestation.errors import NotFound
from fabric.models import ApiToken
from fabric.tokens import TokenKnown, TokenTooLong, end_token, make_token
from ledger import service as ledger
from tests.fabric.conftest import PASSWORD, REASON
from tests.fabric.test_modes import text

Browse = Callable[[User | None], Client]
MAKE = {"name": "ci", "lifetime": "30", "reason": REASON, "password": PASSWORD}
SHOWN = re.compile(r"guard_[0-9a-f]{64}")


def made(user: User, name: str = "ci", **lifetime: int) -> tuple[ApiToken, str]:
    return make_token(name, lifetime=timedelta(**(lifetime or {"days": 1})), by=user, reason=REASON, now=timezone.now())


def asked(secret: str) -> int:
    return Client().get("/api/v1/mode", headers={"authorization": f"Bearer {secret}"}).status_code


def test_a_token_is_made_on_its_page_and_shown_there_once(browse: Browse, admin: User) -> None:
    ada = browse(admin)
    answer = ada.post("/tokens/make/", MAKE)
    (secret,) = SHOWN.findall(answer.content.decode())
    assert "no-store" in answer["Cache-Control"]
    assert asked(secret) == 200
    page = ada.get("/tokens/").content.decode()
    assert "ci" in page
    assert not SHOWN.search(page)
    assert not any(secret in str(session.get_decoded()) for session in Session.objects.all())


def test_a_token_is_kept_as_a_hash(admin: User) -> None:
    token, secret = made(admin)
    kept = " ".join(str(value) for value in ApiToken.objects.filter(pk=token.pk).values_list()[0])
    assert secret[15:] not in kept
    assert len(token.digest) == 128


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"password": "wrong"}, "This is not your password"),
        ({"password": ""}, "Type your password"),
        ({"reason": "short"}, "Write a reason of at least a sentence"),
        ({"name": ""}, "Give the token a name"),
        ({"name": "n" * 61}, "at most 60"),
        ({"lifetime": "365"}, "Select a valid choice"),
    ],
)
def test_no_token_is_made_without_password_and_reason(
    browse: Browse, admin: User, changes: dict[str, str], said: str
) -> None:
    answer = browse(admin).post("/tokens/make/", {**MAKE, **changes})
    assert said in text(answer)
    assert not ApiToken.objects.exists()
    assert not ledger.leaves(act_prefix="token.").exists()


def test_a_person_has_one_token_of_a_name(browse: Browse, admin: User, approver: User) -> None:
    made(admin)
    answer = browse(admin).post("/tokens/make/", MAKE)
    assert answer.status_code == 409
    assert "You have a token called ci" in text(answer)
    made(approver)
    assert ApiToken.objects.count() == 2
    with pytest.raises(TokenKnown):
        made(admin)
    assert ledger.leaves(act_prefix="token.made").count() == 2


def test_the_name_of_a_token_that_has_expired_can_be_taken_again(admin: User) -> None:
    old, _ = made(admin)
    ApiToken.objects.update(expiry=timezone.now() - timedelta(seconds=1))
    new, _ = made(admin)
    assert [row.pk for row in ApiToken.objects.all()] == [new.pk]
    assert new.pk != old.pk


@pytest.mark.parametrize("lifetime", [timedelta(), timedelta(seconds=-1), timedelta(days=90, seconds=1)])
def test_every_token_ends_within_ninety_days(admin: User, lifetime: timedelta) -> None:
    with pytest.raises(TokenTooLong):
        make_token("ci", lifetime=lifetime, by=admin, reason=REASON, now=timezone.now())
    with pytest.raises(IntegrityError):
        ApiToken.objects.create(name="ci", user=admin, digest="0", token_key="0", expiry=None)


def test_an_ended_token_is_refused_at_once(browse: Browse, admin: User) -> None:
    token, secret = made(admin)
    assert asked(secret) == 200
    ada = browse(admin)
    assert "Whoever holds it" not in text(ada.post(f"/tokens/{token.pk}/end/", {"reason": REASON, "password": "no"}))
    assert asked(secret) == 200
    answer = ada.post(f"/tokens/{token.pk}/end/", {"reason": REASON, "password": PASSWORD}, follow=True)
    assert "Whoever holds it is refused from now on" in text(answer)
    assert asked(secret) == 401


def test_the_ledger_says_who_made_and_who_ended_a_token(admin: User, approver: User) -> None:
    token, secret = made(admin)
    end_token(token.pk, by=approver, reason=REASON, now=timezone.now())
    ended, begun = ledger.leaves(act_prefix="token.")
    assert (begun.act, begun.actor, begun.subject) == ("token.made", "user:ada", f"token:{token.pk}")
    assert (ended.act, ended.actor, ended.subject) == ("token.ended", "user:ben", f"token:{token.pk}")
    assert ended.detail["person"] == "ada"
    assert not any(secret[15:] in str(leaf.detail) for leaf in (ended, begun))


def test_others_end_a_token_only_if_they_may_revoke(
    browse: Browse, admin: User, approver: User, auditor: User, owner: User, nobody: User
) -> None:
    token, secret = made(admin)
    for user in (auditor, owner, nobody):
        assert "Other people" not in text(browse(user).get("/tokens/"))
        assert browse(user).get(f"/tokens/{token.pk}/end/").status_code == 404
        assert (
            browse(user).post(f"/tokens/{token.pk}/end/", {"reason": REASON, "password": PASSWORD}).status_code == 404
        )
        with pytest.raises(NotFound):
            end_token(token.pk, by=user, reason=REASON, now=timezone.now())
    assert asked(secret) == 200
    assert "ada" in text(browse(approver).get("/tokens/"))
    answer = browse(approver).post(f"/tokens/{token.pk}/end/", {"reason": REASON, "password": PASSWORD})
    assert answer.status_code == 302
    assert asked(secret) == 401


def test_a_token_that_is_gone_cannot_be_ended(admin: User) -> None:
    token, _ = made(admin)
    end_token(token.pk, by=admin, reason=REASON, now=timezone.now())
    with pytest.raises(NotFound):
        end_token(token.pk, by=admin, reason=REASON, now=timezone.now())
    assert ledger.leaves(act_prefix="token.ended").count() == 1


def test_whether_a_token_is_used_is_shown_to_the_minute(browse: Browse, admin: User) -> None:
    token, secret = made(admin)
    assert "never" in text(browse(admin).get("/tokens/"))
    asked(secret)
    first = ApiToken.objects.get(pk=token.pk).used_at
    assert first is not None
    asked(secret)
    assert ApiToken.objects.get(pk=token.pk).used_at == first
    token.used(now=first + timedelta(seconds=61))
    assert ApiToken.objects.get(pk=token.pk).used_at == first + timedelta(seconds=61)


def console(*words: str) -> str:
    out = StringIO()
    call_command("api_token", *words, stdout=out)
    return out.getvalue().strip()


def test_the_console_makes_lists_and_ends_tokens(admin: User) -> None:
    secret = console("make", "nightly", "--by", "ada", "--reason", "the rehearsal of each night")
    assert asked(secret) == 200
    listed = console("list")
    assert re.search(r"ada  until .* UTC  last used .* UTC  nightly", listed)
    assert secret[15:] not in listed
    assert console("end", listed.split()[0], "--by", "ada", "--reason", "no longer") == "it counts no more"
    assert asked(secret) == 401
    assert console("list") == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("make", "ci", "--by", "nemo", "--reason", "x"), "There is no person nemo"),
        (("make", "ci", "--by", "ada", "--reason", "x", "--days", "91"), "invalid choice"),
        (("end", str(uuid4()), "--by", "ada", "--reason", "x"), "not_found"),
        (("end", "guard_" + "0" * 64, "--by", "ada", "--reason", "x"), "invalid UUID"),
    ],
)
def test_the_console_says_what_it_cannot_do(admin: User, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        console(*words)


def test_a_disabled_person_makes_no_token_from_the_console(admin: User) -> None:
    User.objects.update(is_active=False)
    with pytest.raises(CommandError, match="There is no person ada"):
        console("make", "ci", "--by", "ada", "--reason", "x")
