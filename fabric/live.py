"""From an act in the ledger to the open pages: who is told, and when (after the commit, never before)."""

import asyncio
import logging
from collections import Counter
from collections.abc import Collection
from concurrent.futures import Future
from functools import cache, partial
from threading import Thread
from typing import Final

from channels.layers import InMemoryChannelLayer, get_channel_layer
from django.contrib.auth.models import AnonymousUser, User
from django.db import transaction

from fabric.models import Membership
from ledger.core.leaf import Act

FLEET = "fleet"
MOST_UNSENT: Final = 1000  # news that wait for a slow Redis; a page that is not told is stale for a moment

log = logging.getLogger(__name__)
_pages: "Counter[asyncio.AbstractEventLoop]" = Counter()  # the open pages of this process, by the loop they live in
_unsent: "set[Future[None]]" = set()


def groups_for(user: User | AnonymousUser) -> tuple[str, ...]:
    """Return the channel groups whose news this user may hear; none for a stranger."""
    if not user.is_authenticated:
        return ()
    if user.has_perm("fabric.view_fleet"):
        return (FLEET,)
    mine = Membership.objects.filter(user=user).exclude(tenant__owner_fingerprint="")
    return tuple(map(_owner_group, mine.values_list("tenant__owner_fingerprint", flat=True)))


def announce(sender: object, act: Act, **kwargs: object) -> None:
    """Receive `ledger.service.recorded`. A page that is not told is stale for a moment; the act itself must stand.

    A tenant hears of what concerns its owner, as the leaf says. No database is asked: a release of a key is an act too,
    and shall not wait.
    """
    owners = [act.owner] if act.owner else []
    transaction.on_commit(partial(_send, act.act, act.subject, owners), robust=True)


def announce_log(sender: object, size: int, owners: Collection[str], **kwargs: object) -> None:
    """Receive `ledger.service.sequenced`: entries that were shown as on their way have their places now."""
    _send("ledger.sequenced", "log", [owner for owner in owners if owner])


def opened(loop: asyncio.AbstractEventLoop) -> None:
    """Count a page that listens in this process."""
    _pages[loop] += 1


def closed(loop: asyncio.AbstractEventLoop) -> None:
    _pages[loop] -= 1
    if _pages[loop] <= 0:  # also where connecting had failed before the page was counted
        del _pages[loop]


def _send(act: str, subject: str, owners: Collection[str]) -> None:
    """Hand the news over and go on: whoever recorded the act does not wait for the pages."""
    layer = get_channel_layer()
    loop = _loop_of_pages() if isinstance(layer, InMemoryChannelLayer) else _own_loop()
    if loop is None or len(_unsent) >= MOST_UNSENT:
        return
    message = {"type": "fleet.changed", "act": act, "subject": subject}
    for group in (FLEET, *map(_owner_group, owners)):
        sent = asyncio.run_coroutine_threadsafe(layer.group_send(group, message), loop)
        _unsent.add(sent)
        sent.add_done_callback(_sent)


def _sent(sent: "Future[None]") -> None:
    _unsent.discard(sent)
    if not sent.cancelled() and (error := sent.exception()) is not None:
        log.warning("pages were not told of an act: %s", type(error).__name__)


def _loop_of_pages() -> asyncio.AbstractEventLoop | None:
    """Return where the open pages of this process live: a layer in memory reaches no others."""
    return next((loop for loop in list(_pages) if loop.is_running()), None)


@cache
def _own_loop() -> asyncio.AbstractEventLoop:
    """Return this process's loop for what it says to others, so that one connection to Redis serves every act."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="live", daemon=True).start()
    return loop


def _owner_group(fingerprint: str) -> str:
    return f"owner.{fingerprint}"
