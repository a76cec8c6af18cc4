"""Stops on pages: what they mean is said before, and two persons lift them."""

from collections.abc import Callable
from datetime import UTC, datetime

from django.contrib.auth.models import User
from django.test import Client

from attestation import service
from tests.attestation.conftest import Portal

Browse = Callable[[User | None], Client]


def test_a_lift_is_decided_on_its_page(fabric: Portal, browse: Browse, admin: User, approver: User) -> None:
    now = datetime.now(UTC)
    stop = service.stop_fabric(by=admin, reason="a key has leaked", now=now)
    proposal = service.propose_lift(stop.pk, by=admin, reason="the key is changed", now=now)
    client = browse(approver)
    page = client.get(f"/proposals/{proposal.pk}/").content.decode()
    assert "Lift the stop of the whole fabric" in page
    assert "a key has leaked" in page
    assert "the whole fabric" in client.get("/proposals/").content.decode()
    assert "ada wants to lift the stop of the whole fabric" in client.get("/audit/").content.decode()
