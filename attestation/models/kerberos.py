"""Groups of the directory whose hosts may attest in Kerberos mode."""

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q

from attestation.models.hosts import DEFAULT_GROUP, HostGroup


class KerberosGroup(models.Model):
    """A group of an Active Directory, by its whole SID; `name` is what people call it, and nothing looks it up.

    Its members are hosts of `group` from their first attestation on.
    """

    class State(models.TextChoices):
        PROPOSED = "proposed", "Waits for approval"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"
        RETIRED = "retired", "Retired"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    sid = models.CharField(max_length=190)
    name = models.CharField(max_length=100)
    group = models.ForeignKey(HostGroup, default=DEFAULT_GROUP, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=10, choices=State, default=State.PROPOSED)
    proposed_by = models.CharField(max_length=200)
    proposed_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["name", "proposed_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["sid"],
                condition=Q(state__in=["proposed", "approved"]),
                name="one_living_row_per_sid",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        return f"kerberos-group:{self.id}"
