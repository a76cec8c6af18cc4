"""Starts without the fabric: what a release allows, and what the fabric writes down when the host is back."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, transaction
from rest_framework.test import APIClient

from kps import service
from kps.core.offline import Grant, grant_of
from kps.core.release_policy import NO_POLICY, Offline, ReleasePolicy
from kps.models import KeyRelease, OfflineAccount
from ledger import service as ledger
from tests.kps.conftest import Host
from tests.kps.parties import OWNERS, STRANGERS, SUBJECT

Protect = Callable[..., dict[str, Any]]
ALIEN = UUID(int=7)
TWICE = ReleasePolicy(offline=Offline(starts=2, hours=4))


def now() -> datetime:
    return datetime.now(UTC)


def a_moment_ago() -> int:
    return int(now().timestamp()) - 1


def acts() -> list[str]:
    return [leaf.act for leaf in ledger.leaves(act_prefix="offline.")]


@pytest.fixture
def allowed(host: Host, protect: Protect) -> KeyRelease:
    """A release that allows its host two more starts."""
    assert host.posts(host.asks(protect(policy=TWICE))).status_code == 200
    return service.releases().get()


def test_a_release_says_what_it_allows_and_so_does_its_leaf(allowed: KeyRelease) -> None:
    assert allowed.offline_until is not None
    assert (allowed.offline_starts, allowed.offline_until - allowed.at) == (2, timedelta(hours=4))
    detail = ledger.leaves(act_prefix="key.released").get().detail
    assert (detail["offline_starts"], detail["offline_until"]) == (2, allowed.offline_until.isoformat())


def test_a_release_without_a_word_of_the_owners_allows_nothing(host: Host, protect: Protect) -> None:
    host.posts(host.asks(protect()))
    row = service.releases().get()
    assert (row.offline_starts, row.offline_until) == (None, None)


@pytest.mark.parametrize("mode", ["kerberos", "hostkey"])
def test_a_mode_without_a_tpm_allows_nothing(mode: str) -> None:
    assert grant_of(TWICE, mode=mode, now=now()) is None
    assert grant_of(NO_POLICY, mode="tpm", now=now()) is None
    assert isinstance(grant_of(TWICE, mode="tpm", now=now()), Grant)


def test_an_account_within_bounds_is_a_row_and_a_leaf_of_the_owners(host: Host, allowed: KeyRelease) -> None:
    started = a_moment_ago()
    assert host.tells(started).json() == {"exceeded": False}
    row = service.accounts(owner_fingerprint=OWNERS).get()
    assert (row.starts, row.counted, row.exceeded, row.release_id) == ([started], 1, False, allowed.pk)
    leaf = ledger.leaves(act_prefix="offline.").get()
    assert (leaf.act, leaf.subject, leaf.detail["owner"]) == ("offline.accounted", SUBJECT, OWNERS)
    assert (leaf.detail["starts"], leaf.detail["allowed"]) == ([started], 2)


def test_the_same_account_again_is_not_written_twice_and_a_longer_one_is(host: Host, allowed: KeyRelease) -> None:
    first = a_moment_ago() - 5
    assert [host.tells(first).status_code for _ in range(2)] == [200, 200]
    host.tells(first, a_moment_ago())
    assert [row.counted for row in service.accounts(owner_fingerprint=OWNERS)] == [2, 1]


@pytest.mark.parametrize(
    ("starts", "late", "counted"),
    [(3, 0, 3), (1, 0, 3), (1, 5 * 3600, 1)],
    ids=["listed too many", "counted too many", "too late"],
)
def test_more_than_was_allowed_is_written_as_that(
    host: Host, allowed: KeyRelease, starts: int, late: int, counted: int
) -> None:
    told = [a_moment_ago() + late] * starts
    assert host.tells(*told, counted=counted).json() == {"exceeded": True}
    assert acts() == ["offline.exceeded"]
    assert service.accounts(owner_fingerprint=OWNERS).get().exceeded


def test_starts_that_nobody_allowed_are_written_as_that(host: Host, protect: Protect) -> None:
    host.posts(host.asks(protect()))
    assert host.tells(a_moment_ago()).json() == {"exceeded": True}
    assert acts() == ["offline.exceeded"]


@pytest.mark.parametrize(
    "change",
    [{"protector": ALIEN}, {"owner_fingerprint": STRANGERS}, {"roll": 0}, {"roll": 9}],
    ids=["protector", "owner", "no roll", "another roll"],
)
def test_an_account_of_a_key_that_the_host_was_not_given_is_refused(
    host: Host, allowed: KeyRelease, change: dict[str, Any]
) -> None:
    answer = host.tells(a_moment_ago(), **change)
    assert (answer.status_code, answer.json()["code"]) == (404, "offline_unknown")
    assert not OfflineAccount.objects.exists()


def test_nobody_gives_an_account_for_another_host(host: Host, second: Host, allowed: KeyRelease) -> None:
    assert second.tells(a_moment_ago()).json()["code"] == "offline_unknown"
    assert second.tells(a_moment_ago(), serial=host.serial).json()["code"] == "release_request_refused"
    assert not OfflineAccount.objects.exists()


@pytest.mark.parametrize("seconds", [-90, 90])
def test_a_stale_account_is_refused(host: Host, allowed: KeyRelease, seconds: int) -> None:
    assert host.tells(a_moment_ago(), at=int(now().timestamp()) + seconds).json()["code"] == "release_stale"


def test_a_nonce_serves_once(host: Host, allowed: KeyRelease) -> None:
    host.tells(a_moment_ago(), nonce=b"n" * 32)
    answer = host.tells(a_moment_ago(), a_moment_ago(), nonce=b"n" * 32)
    assert (answer.status_code, answer.json()["code"]) == (409, "release_replayed")


@pytest.mark.parametrize("token", ["", "a.b.c", "x" * 9000, None, 7, "ü.ü.ü"], ids=lambda token: str(token)[:8])
def test_what_is_no_account_is_malformed(db: None, token: object) -> None:
    answer = APIClient().post("/kps/v1/offline-starts", {"message": token}, format="json")
    assert answer.status_code in {400, 413}
    assert answer.json()["code"] in {"malformed_request", "too_large"}


def test_an_account_cannot_be_changed_or_removed(host: Host, allowed: KeyRelease) -> None:
    host.tells(a_moment_ago())
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        OfflineAccount.objects.update(counted=0)
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        OfflineAccount.objects.all().delete()
