"""A denial that is committed before a release gets there refuses it, however close the two are."""

from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from threading import Event, Thread
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection, transaction

from attestation import service as attestation
from kps import service
from tests.kps.conftest import Host
from tests.kps.parties import ID, OWNERS

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'postgresql'", reason="SQLite has one writer at a time"),
]


@pytest.fixture(autouse=True)
def rows_of_migrations(transactional_db: None) -> None:
    """Put back what migrations put into tables, after a test that has emptied all of them at its end."""
    if not attestation.switches().exists():
        import_module("attestation.migrations.0002_append_only_and_mode").tpm_mode(apps, None)
        import_module("attestation.migrations.0003_host_groups").first_group(apps, None)


Act = Callable[[Host, User, datetime], object]
ACTS: dict[str, tuple[Act, str]] = {
    "protector": (
        lambda host, by, now: service.deny_protector(OWNERS, ID, by=by, reason="leak", now=now),
        "protector_denied",
    ),
    "stop": (lambda host, by, now: attestation.stop_fabric(by=by, reason="leak", now=now), "releases_stopped"),
}


def test_a_release_that_comes_while_a_denial_is_under_way_waits_for_it(
    host: Host, protect: Callable[..., dict[str, Any]]
) -> None:
    document = protect()
    warden = User.objects.create_superuser("wanda")
    assert "wrapped_keys" in host.starts(document)
    for act, code in ACTS.values():  # the second is looked at first, so that the first does not stand before it
        decided, held = Event(), list[int]()

        def denies(act: Act = act, decided: Event = decided, held: list[int] = held) -> None:
            try:
                with transaction.atomic():
                    act(host, warden, datetime.now(UTC))
                    decided.set()
                    held.append(waiting())
            finally:
                connection.close()

        thread = Thread(target=denies)
        thread.start()
        assert decided.wait(20)
        assert host.starts(document)["code"] == code
        thread.join()
        assert held == [1], "the release was held up until the denial had been committed"


def waiting() -> int:
    """Return how many transactions wait for a lock, once one does."""
    for _ in range(200):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            (found,) = cursor.fetchone()
        if found:
            return int(found)
    return 0
