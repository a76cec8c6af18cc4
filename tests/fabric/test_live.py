"""The live channel: who hears what, and when."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction
from django.test import TestCase

from fabric.consumers import REFUSED, FleetConsumer
from fabric.live import groups_for
from fabric.models import Tenant, VirtualMachine
from ledger import service as ledger
from tests.kps.parties import OWNERS, STRANGERS, SUBJECT, TWIN_SUBJECT


@pytest.fixture(autouse=True)
def one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the test's own connection open, as Django's test client does for requests."""
    monkeypatch.setattr("channels.db.close_old_connections", lambda: None)


class Interrupted(Exception):
    """Ends a transaction."""


class Channel:
    """A browser's end of the websocket."""

    def __init__(self, user: User | AnonymousUser) -> None:
        scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/ws/fleet/",
            "headers": [],
            "subprotocols": [],
            "user": user,
        }
        self.wire = ApplicationCommunicator(FleetConsumer.as_asgi(), scope)

    async def open(self) -> None:
        await self.wire.send_input({"type": "websocket.connect"})
        assert (await self.wire.receive_output(1))["type"] == "websocket.accept"

    async def told(self) -> Any:
        return json.loads((await self.wire.receive_output(1))["text"])

    async def silent(self) -> bool:
        return bool(await self.wire.receive_nothing())

    async def close(self) -> None:
        await self.wire.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.wire.wait()


async def opened(user: User | AnonymousUser) -> Channel:
    channel = Channel(user)
    await channel.open()
    return channel


def act(name: str, subject: str, *, fails: bool = False, **detail: object) -> None:
    """Record an act in a transaction of its own; what waits for the commit then runs."""
    with TestCase.captureOnCommitCallbacks(execute=True), transaction.atomic():
        ledger.record(actor="system", act=name, subject=subject, detail=detail, now=datetime.now(UTC))
        if fails:
            raise Interrupted


def test_a_stranger_and_someone_without_a_role_hear_nothing(nobody: User) -> None:
    assert groups_for(AnonymousUser()) == ()
    assert groups_for(nobody) == ()


def test_staff_hear_the_fleet_and_tenants_only_their_own(
    admin: User, auditor: User, owner: User, tenant: Tenant, stranger_tenant: User
) -> None:
    assert groups_for(admin) == groups_for(auditor) == ("fleet",)
    assert groups_for(owner) == (f"owner.{tenant.owner_fingerprint}",)
    assert groups_for(stranger_tenant) != groups_for(owner)


def test_a_stranger_is_turned_away(db: None) -> None:
    async def scene() -> None:
        channel = await opened(AnonymousUser())
        assert (await channel.wire.receive_output(1))["code"] == REFUSED

    async_to_sync(scene)()


def test_an_act_is_told_once_it_is_committed(auditor: User) -> None:
    async def scene() -> None:
        channel = await opened(auditor)
        with pytest.raises(Interrupted):
            await sync_to_async(act)("host.approved", "host:1", fails=True)
        assert await channel.silent()
        await sync_to_async(act)("host.approved", "host:1")
        told = await channel.told()
        assert told == {"type": "fleet.changed", "act": "host.approved", "subject": "host:1"}
        await channel.close()

    async_to_sync(scene)()


def test_a_tenant_hears_of_its_own_protectors_and_orders_only(owner: User, machine: VirtualMachine) -> None:
    """An open list of orders fetches them anew, also those that a colleague gave or cancelled."""

    async def scene() -> None:
        channel = await opened(owner)
        for others in (STRANGERS, "", None, 7, machine.tenant.slug, OWNERS.upper()):
            await sync_to_async(act)("key.released", TWIN_SUBJECT, owner=others)
            await sync_to_async(act)("machine.ordered", "order:1", owner=others)
        await sync_to_async(act)("key.released", SUBJECT)
        assert await channel.silent()
        for name, subject in (
            ("key.released", SUBJECT),
            ("machine.ordered", "order:2"),
            ("machine.order_cancelled", "order:2"),
        ):
            await sync_to_async(act)(name, subject, owner=OWNERS)
            assert await channel.told() == {"type": "fleet.changed", "act": name, "subject": subject}
        await channel.close()

    async_to_sync(scene)()


def test_what_a_page_says_is_dropped(auditor: User) -> None:
    async def scene() -> None:
        channel = await opened(auditor)
        await channel.wire.send_input({"type": "websocket.receive", "text": '{"type": "fleet.changed"}'})
        assert await channel.silent()
        await channel.close()

    async_to_sync(scene)()
