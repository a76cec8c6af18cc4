"""How much those may leave here whom nobody has approved: something to see, not as much as they like.

Anyone can be refused, enrol a TPM of their own making and attest with it. The ledger and the attestations can never be
pruned, so what strangers add to them is bounded here; the log of the node has every line.
"""

import hashlib
import logging
from datetime import datetime, timedelta
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
_AT_ONCE: Final = 100

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


def keep(attester: Attester, content: bytes) -> Blob | None:
    """Keep a part of a host's Evidence by its digest; of waiting hosts, not more logs than people could look at."""
    digest = hashlib.sha256(content).hexdigest()
    known = Blob.objects.filter(pk=digest).defer("content").first()
    if known is not None:
        return known
    if attester.state != Attester.State.APPROVED:
        waiting = Attestation.objects.filter(attester__state=Attester.State.PENDING, event_log__isnull=False)
        if len(waiting.order_by().values_list("event_log", flat=True).distinct()[:MOST_LOGS]) == MOST_LOGS:
            return None
    return Blob.objects.get_or_create(pk=digest, defaults={"content": content, "size": len(content)})[0]


def forget(rows: "QuerySet[Model]", *, now: datetime) -> None:
    """Delete offers that nobody took up and nobody can any more, some at a time so that no request pays for a flood."""
    expired = list(rows.filter(expires_at__lt=now - KEPT_AFTER_EXPIRY).values_list("pk", flat=True)[:_AT_ONCE])
    if expired:
        rows.filter(pk__in=expired).delete()
