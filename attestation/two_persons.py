"""What one person puts forward and another decides, once; also of other apps' things."""

from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models

from attestation.errors import AlreadyDecided, FourEyes


class PutForward(models.Model):
    """The columns of a proposal; what it is about, and that this waits for one decision only, says each table."""

    class State(models.TextChoices):
        OPEN = "open", "Waits for a decision"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"

    id = models.BigAutoField(primary_key=True)
    state = models.CharField(max_length=10, choices=State, default=State.OPEN, db_index=True)
    proposed_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    proposed_at = models.DateTimeField()
    reason = models.TextField()
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    decided_at = models.DateTimeField(null=True)
    decision_reason = models.TextField(blank=True)

    class Meta:
        abstract = True
        ordering: ClassVar = ["-id"]

    def is_own(self, by: object) -> bool:
        """Say whether four eyes keep this person from deciding it."""
        return settings.FOUR_EYES and isinstance(by, User) and self.proposed_by_id == by.pk

    def close(self, *, by: User, approve: bool, reason: str, now: datetime) -> State:
        """Take the decision down, in the transaction in which it takes effect. Raises `FourEyes`, `AlreadyDecided`."""
        if self.is_own(by):
            raise FourEyes("You put this forward, so somebody else has to decide it.")
        state = self.State.APPROVED if approve else self.State.REJECTED
        still_open = type(self)._default_manager.filter(pk=self.pk, state=self.State.OPEN)
        if still_open.update(state=state, decided_by=by, decided_at=now, decision_reason=reason) != 1:
            raise AlreadyDecided("Somebody has decided this already.")
        return state
