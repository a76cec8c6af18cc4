"""How much those may leave here whom nobody has approved: something to see, not as much as they like.

Anyone can be refused, enrol a TPM of their own making and attest with it. The ledger and the attestations can never be
pruned, so what strangers add to them is bounded here; the log of the node has every line.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from typing import Final

from django.db import transaction
from django.db.models import Model, QuerySet

from attestation.errors import Refusal
from attestation.models import Attestation, Attester, Blob
from ledger import service as ledger

STRANGER: Final = "stranger"
MOST_LEAVES: Final = 30  # of one act in a minute
MOST_LOGS: Final = 1024  # boot logs kept for all waiting hosts together, of at most 1 MiB each
KEPT_AFTER_EXPIRY: Final = timedelta(minutes=5)  # nodes' clocks differ a little
EVERY: Final = 50  # offers, the first of a process included
_AT_ONCE: Final = 2 * EVERY

_offers = count()
log = logging.getLogger(__name__)


def refused(act: str, subject: str, refusal: Refusal, *, now: datetime) -> None:
    """Record that a stranger was refused; in a flood, only log it."""
    log.warning("%s: %s, code %s", act, subject, refusal.code)
    recent = ledger.leaves(act_prefix=act, actor=STRANGER).filter(at__gt=now - timedelta(minutes=1))
    if len(recent.values_list("pk", flat=True)[:MOST_LEAVES]) == MOST_LEAVES:
        return
    with transaction.atomic():
        detail: dict[str, object] = {"code": refusal.code, "why": str(refusal)}
        ledger.record(actor=STRANGER, act=act, subject=subject, detail=detail, now=now)


def may_keep(attester: Attester, digest: str) -> bool:
    """Say whether a part of a host's Evidence is kept; of waiting hosts, not more logs than people could look at."""
    if attester.state == Attester.State.APPROVED or Blob.objects.filter(pk=digest).exists():
        return True
    waiting = Attestation.objects.filter(attester__state=Attester.State.PENDING, event_log__isnull=False)
    return len(waiting.order_by().values_list("event_log", flat=True).distinct()[:MOST_LOGS]) < MOST_LOGS


def forget(offers: Callable[[], QuerySet[Model]], *, now: datetime) -> None:
    """Delete offers that nobody took up and nobody can any more; called by whatever makes another such offer.

    One call in some does it, and deletes more than were made in between, so that no request pays for a flood.
    """
    if next(_offers) % EVERY:
        return
    rows = offers()
    expired = list(rows.filter(expires_at__lt=now - KEPT_AFTER_EXPIRY).values_list("pk", flat=True)[:_AT_ONCE])
    if expired:
        rows.filter(pk__in=expired).delete()
