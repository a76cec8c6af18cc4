"""Puts what ends a host's right to keys, and the releases that rest on it, into one order.

A release reads the host's standing and commits a moment later. Under PostgreSQL's READ COMMITTED a revocation could
commit in between, and a key would leave after the person was told that none does. So releases share a lock that
revocations take alone; the database gives it in the order of asking, and ends it with the transaction. SQLite's
IMMEDIATE transactions wait for one another by themselves.
"""

from django.db import connection

LOCK = 0x47485354  # "GHST"; PostgreSQL's advisory locks are numbers of one's own choice


def hold() -> None:
    """Keep every standing as it is until the caller's transaction ends."""
    _lock("pg_advisory_xact_lock_shared")


def change() -> None:
    """Wait for the transactions that rest on a standing, and let new ones wait for the caller's."""
    _lock("pg_advisory_xact_lock")


def _lock(function: str) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {function}(%s)", [LOCK])
