"""The live channel: it says that something changed, never what; the page fetches that for itself, with its rights."""

import asyncio
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from fabric.live import closed, groups_for, opened

REFUSED = 4403


class FleetConsumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]  # channels ships no types
    """Tell an open page that the fleet, or the tenant's part of it, changed."""

    joined: tuple[str, ...] = ()

    async def connect(self) -> None:
        self.joined = await database_sync_to_async(groups_for)(self.scope["user"])
        opened(asyncio.get_running_loop())
        for group in self.joined:  # before the page hears that it is connected, and fetches what it may have missed
            await self.channel_layer.group_add(group, self.channel_name)
        await self.accept()
        if not self.joined:
            await self.close(REFUSED)

    async def disconnect(self, code: int) -> None:
        closed(asyncio.get_running_loop())
        for group in self.joined:
            await self.channel_layer.group_discard(group, self.channel_name)

    async def receive_json(self, content: object, **kwargs: object) -> None:
        """Nothing is asked over this channel, so what arrives is dropped."""

    async def fleet_changed(self, event: dict[str, Any]) -> None:
        await self.send_json({"type": "fleet.changed", "subject": event["subject"], "act": event["act"]})
