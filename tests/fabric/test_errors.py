"""What machines and people are told when something is refused or breaks."""

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.test import Client, RequestFactory
from rest_framework import exceptions

from attestation.errors import ChallengeSpent, Refusal, WrongNonce
from fabric import errors
from kps.errors import ProtectorSeal


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        (ChallengeSpent("used"), 409, "challenge_spent"),
        (WrongNonce("other nonce"), 422, "wrong_nonce"),
        (ProtectorSeal("no seal"), 422, "protector_seal"),
        (Http404(), 404, "not_found"),
        (PermissionDenied(), 403, "not_allowed"),
        (exceptions.NotAuthenticated(), 401, "not_authenticated"),
        (exceptions.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (exceptions.UnsupportedMediaType("text/plain"), 415, "unsupported_media_type"),
        (exceptions.ParseError(), 400, "malformed_request"),
        (exceptions.ValidationError({"quote": ["This field is required."]}), 400, "malformed_request"),
        (exceptions.ValidationError({"log": [exceptions.ErrorDetail("Too large.", "too_large")]}), 400, "too_large"),
        (KeyError("secret"), 500, "internal_error"),
    ],
)
def test_every_error_of_the_api_has_a_stable_code(raised: Exception, status: int, code: str) -> None:
    answer = errors.problem(raised, {})
    assert answer.data is not None
    assert (answer.status_code, answer.data["status"], answer.data["code"]) == (status, status, code)
    assert answer.data.keys() == {"type", "title", "status", "detail", "code"}
    assert answer.content_type == "application/problem+json"


def test_what_we_did_not_foresee_is_not_told() -> None:
    answer = errors.problem(KeyError("secret"), {})
    assert answer.data is not None
    assert "secret" not in str(answer.data)


def test_a_field_error_names_the_field() -> None:
    answer = errors.problem(exceptions.ValidationError({"quote": ["This field is required."]}), {})
    assert answer.data is not None
    assert answer.data["detail"] == "quote: This field is required."


def test_the_api_answers_with_problem_details(db: None) -> None:
    answer = Client().post("/attestation/v1/challenges", b"{", content_type="application/json")
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "malformed_request"


def test_a_missing_page_is_in_the_look(db: None) -> None:
    user = User.objects.create_user("ada")
    client = Client()
    client.force_login(user)
    for answer in (Client().get("/nothing/"), client.get("/nothing/")):
        assert answer.status_code == 404
        assert "There is nothing at this address" in answer.content.decode()


def test_a_refusal_that_a_view_lets_through_becomes_a_page(db: None, rf: RequestFactory) -> None:
    request = rf.get("/")
    request.user = User.objects.create_user("ada")
    answer = errors.RefusalPages(lambda _: errors.server_error(request)).process_exception(request, Refusal("No."))
    assert answer is not None
    assert answer.status_code == 403
    assert "No." in answer.content.decode()


def test_other_exceptions_are_left_to_django(rf: RequestFactory) -> None:
    middleware = errors.RefusalPages(errors.server_error)
    assert middleware.process_exception(rf.get("/"), ValueError()) is None


def test_the_page_for_what_broke_needs_no_database(rf: RequestFactory) -> None:
    answer = errors.server_error(rf.get("/"))
    assert answer.status_code == 500
    assert "No key is released by a request that broke" in answer.content.decode()


def test_guessing_at_sign_in_locks(db: None) -> None:
    User.objects.create_user("ada", password="right")
    client = Client()
    answers = [client.post("/login/", {"username": "ada", "password": f"guess {n}"}).status_code for n in range(6)]
    assert answers[0] == 200
    assert answers[-1] == 429
    assert client.post("/login/", {"username": "ada", "password": "right"}).status_code == 429


def test_signing_out_is_a_post(db: None) -> None:
    assert Client().get("/logout/").status_code == 405


@pytest.mark.parametrize("path", ["/attestation/v1/nothing", "/kps/v1/nothing", "/api/nothing"])
def test_a_machine_that_asks_at_the_wrong_address_is_told_in_its_own_words(client: Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer["content-type"]) == (404, "application/problem+json")
    assert answer.json()["code"] == "not_found"


def test_a_message_that_cannot_be_read_leaves_a_line_with_its_code(
    client: Client, db: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    client.post("/attestation/v1/challenges", b"{", content_type="application/json")
    assert "refused by ChallengesView: code malformed_request" in caplog.text
