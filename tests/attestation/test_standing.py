"""A release and a revocation have an order: once a person is told that no key goes out, none does."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection
from psycopg.conninfo import make_conninfo

from attestation import service, standing
from attestation.models import Baseline
from tests.attestation.conftest import Portal
from tests.machines import Machine

pytestmark = pytest.mark.django_db
ALONE, SHARED = "pg_try_advisory_xact_lock", "pg_try_advisory_xact_lock_shared"


@pytest.fixture
def other_node(db: None) -> Callable[[str], bool]:
    """Return what another node's transaction does: try the lock, and say whether it got it."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite's transactions wait for one another by themselves")
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    where = {name: str(connection.settings_dict[key]) for name, key in names.items() if connection.settings_dict[key]}

    def tries(function: str) -> bool:
        with psycopg.connect(make_conninfo(**where)) as node:
            found = node.execute(f"SELECT {function}(%s)", [standing.LOCK]).fetchone()
        return bool(found and found[0])

    return tries


def test_a_revocation_waits_for_a_release_that_looks_at_the_certificate(other_node: Callable[[str], bool]) -> None:
    assert other_node(ALONE)
    assert service.held_certificate("ab" * 16, now=datetime.now(UTC)) is None
    assert not other_node(ALONE)
    assert other_node(SHARED), "releases do not wait for one another"


def test_a_release_waits_for_a_revocation_that_is_under_way(other_node: Callable[[str], bool]) -> None:
    standing.change()
    assert not other_node(SHARED)


@pytest.mark.parametrize("act", ["host", "certificate", "deny", "baseline", "stop"])
def test_whatever_ends_a_standing_waits_for_the_releases_that_rest_on_it(
    fabric: Portal, healthy: Machine, admin: User, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    fabric.attest(healthy)
    now, host = datetime.now(UTC) + timedelta(seconds=1), UUID(healthy.attester)
    serial = service.certificates(host)[0].serial
    acts: dict[str, Callable[[], object]] = {
        "host": lambda: service.revoke_host(host, by=admin, reason="stolen", now=now),
        "certificate": lambda: service.revoke_certificate(serial, by=admin, reason="stolen", now=now),
        "deny": lambda: service.deny_issued_before(now, by=admin, reason="stolen", now=now),
        "stop": lambda: service.stop_group("default", by=admin, reason="stolen", now=now),
        "baseline": lambda: service.retire_baseline(Baseline.objects.get().id, by=admin, reason="hole", now=now),
    }
    waited: list[bool] = []
    monkeypatch.setattr(standing, "change", lambda: waited.append(connection.in_atomic_block))
    acts[act]()
    assert waited == [True]
