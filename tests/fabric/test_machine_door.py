"""The machines' way past the pages: what their answers carry, and what they do not."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

pytestmark = pytest.mark.django_db
INFO = "/attestation/v1/info"


def test_an_answer_is_measured_and_guarded_and_starts_no_session(client: Client) -> None:
    answer = client.get(INFO)
    assert answer["Content-Length"] == str(len(answer.content))
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert not answer.cookies
    assert "Content-Security-Policy" not in answer  # for people's browsers


def test_who_is_signed_in_makes_no_difference(client: Client, admin: User) -> None:
    before = client.get(INFO).content
    client.force_login(admin)
    answer = client.get(INFO)
    assert answer.content == before
    assert "Vary" not in answer or "Cookie" not in answer["Vary"]


def test_tls_is_asked_of_machines_too(client: Client, settings: object) -> None:
    settings.SECURE_SSL_REDIRECT = True  # type: ignore[attr-defined]  # pytest-django's
    answer = Client().get(INFO)
    assert answer.status_code == 301
    assert answer["Location"].startswith("https://")


@pytest.mark.parametrize("path", ["/attestation/v1/", "/attestation/v1/nothing", "/kps/v1/releases/", "/kps/v1/../x"])
def test_an_unknown_address_is_a_problem_document(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"


def test_a_wrong_method_is_a_problem_document(client: Client) -> None:
    answer = client.delete(INFO)
    assert answer.status_code == 405
    assert answer.json()["code"] == "method_not_allowed"


def test_an_unknown_host_name_is_refused_before_any_view(client: Client) -> None:
    answer = client.get(INFO, headers={"host": "elsewhere.example"})
    assert answer.status_code == 400
