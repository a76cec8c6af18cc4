"""Acts to be put into the log."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.db import transaction

from ledger import service
from ledger.models import Leaf

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
OWNER, OTHER_OWNER = "a" * 64, "b" * 64


def act(count: int = 1, *, owner: str = "") -> list[Leaf]:
    """Record so many acts, which concern the fabric alone or an owner."""
    detail = {"owner": owner} if owner else {}
    with transaction.atomic():
        return [
            service.record(actor="user:ada", act="host.approved", subject="host:1", detail={**detail, "n": n}, now=NOW)
            for n in range(count)
        ]


Acting = Callable[..., list[Leaf]]


@pytest.fixture
def acting(db: None) -> Acting:
    return act
