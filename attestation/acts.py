"""What every act of a person has in common: permission, the queue, the proposal for somebody else, the leaf."""

from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from attestation import standing
from attestation.errors import AlreadyDecided, NotAllowed
from attestation.models import ModeSwitch
from attestation.two_persons import PutForward
from ledger import service as ledger

Put = TypeVar("Put", bound=PutForward)


def require(by: User, permission: str) -> None:
    """Raise `NotAllowed` unless this person's role includes the act."""
    if not by.has_perm(permission):
        raise NotAllowed(f"Your role does not include this act ({permission}).")


def queue() -> None:
    """Let decisions wait for one another and for releases under way, on every node, until the transaction ends."""
    standing.change()
    ModeSwitch.objects.select_for_update().order_by("pk").first()


def open_proposal(proposal: Put) -> Put:
    """Save a proposal; a thing can wait for one decision only."""
    try:
        with transaction.atomic():
            proposal.save(force_insert=True)
    except IntegrityError:
        raise AlreadyDecided("This has been put forward already and waits for a decision.") from None
    return proposal


def record(by: User, act: str, subject: str, detail: Mapping[str, object], now: datetime) -> None:
    """Write the act's leaf, in the caller's transaction; with the token that it came by, if a program had sent it."""
    if token := getattr(by, "by_token", ""):
        detail = {**detail, "token": token}
    ledger.record(actor=f"user:{by.get_username()}", act=act, subject=subject, detail=detail, now=now)
