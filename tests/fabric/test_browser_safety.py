"""What a browser keeps, where it may be sent, and who can lock whom out."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from tests.fabric.conftest import PASSWORD

pytestmark = pytest.mark.django_db
Browse = Callable[[User | None], Client]


@pytest.mark.parametrize(
    "path", ["/fleet/", "/hosts/", "/proposals/", "/releases/", "/audit/", "/proves/", "/nowhere/"]
)
def test_no_cache_keeps_a_page_of_a_signed_in_person(browse: Browse, admin: User, path: str) -> None:
    assert "no-store" in browse(admin).get(path)["Cache-Control"]


def test_what_is_public_may_be_cached(client: Client) -> None:
    assert not client.get("/attestation/v1/info").has_header("Cache-Control")


def fail_to_sign_in(name: str, forwarded: str, times: int = 5) -> None:
    for _ in range(times):
        Client().post("/login/", {"username": name, "password": "guess"}, headers={"x-forwarded-for": forwarded})


def signs_in(user: User, forwarded: str) -> bool:
    body = {"username": user.get_username(), "password": PASSWORD}
    return Client().post("/login/", body, headers={"x-forwarded-for": forwarded}).status_code == 302


def test_a_stranger_behind_the_same_proxy_does_not_lock_an_approver_out(approver: User, settings: Settings) -> None:
    settings.BEHIND_PROXY = True
    fail_to_sign_in("ben", "198.51.100.7")
    assert not signs_in(approver, "198.51.100.7")
    assert signs_in(approver, "203.0.113.5")


def test_a_stranger_does_not_choose_whose_address_is_locked(approver: User, settings: Settings) -> None:
    """Everything before the last address was written by whoever sent the request."""
    settings.BEHIND_PROXY = True
    fail_to_sign_in("ben", "203.0.113.5, 198.51.100.7")
    assert signs_in(approver, "203.0.113.5")


def test_without_a_proxy_forwarded_addresses_are_not_believed(approver: User) -> None:
    for number in range(5):
        fail_to_sign_in("ben", f"198.51.100.{number}", times=1)
    assert not signs_in(approver, "203.0.113.5")


@pytest.mark.parametrize("forwarded", ["", "unknown", "999.1.1.1", "a, b"])
def test_a_forwarded_address_that_is_none_falls_back_to_the_connection(
    approver: User, settings: Settings, forwarded: str
) -> None:
    settings.BEHIND_PROXY = True
    assert signs_in(approver, forwarded)


@pytest.mark.parametrize("path", ["/login/?next=https://evil.example/", "/login/?next=//evil.example/"])
def test_signing_in_does_not_lead_to_another_site(approver: User, path: str) -> None:
    answer = Client().post(path, {"username": "ben", "password": PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, "/")


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", "/\\evil.example"])
def test_choosing_a_theme_does_not_lead_to_another_site(client: Client, back: str) -> None:
    assert client.post("/theme/", {"theme": "dark", "next": back})["Location"] == "/"


@pytest.mark.parametrize(
    "path",
    [
        "/certificates/a%00b/revoke/",
        "/hosts/?q=a%00b&status=%00",
        "/attestations/?q=%00",
        "/audit/?act=%00&actor=%00&subject=%00&page=%00",
        f"/proposals/{10**30}/",
        f"/attestations/{10**30}/",
        f"/attestations/{10**30}/capture/",
        "/releases/?page=" + "9" * 5000,
    ],
)
def test_an_odd_address_breaks_no_page(browse: Browse, admin: User, path: str) -> None:
    assert browse(admin).get(path).status_code in {200, 404}
