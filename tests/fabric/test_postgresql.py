"""The database backend: whether a kept connection still stands, seen without asking the server."""

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor != 'postgresql'", reason="a file has no connection that could break"),
]


def end_from_outside() -> None:
    """Have the server end this test's own connection, as a restart does."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            assert cursor.fetchone() == (True,)
    finally:
        other.close()


def test_a_connection_that_stands_is_not_asked() -> None:
    connection.ensure_connection()
    with CaptureQueriesContext(connection) as asked:
        assert connection.is_usable()
    assert not asked


def test_a_connection_that_the_server_has_ended_is_seen_to_be_broken() -> None:
    end_from_outside()
    assert not connection.is_usable()
    connection.close()


def test_the_next_request_after_an_ended_connection_gets_another_one() -> None:
    end_from_outside()
    connection.health_check_enabled = True  # type: ignore[attr-defined]  # as a request begins
    connection.health_check_done = False  # type: ignore[attr-defined]
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_a_connection_amid_a_failed_transaction_is_not_usable() -> None:
    connection.set_autocommit(False)
    try:
        with connection.cursor() as cursor, pytest.raises(Exception, match="nothing_like_it"):
            cursor.execute("SELECT nothing_like_it")
        assert not connection.is_usable()
    finally:
        connection.rollback()
        connection.set_autocommit(True)
