"""What people have stopped: no keys for some hosts, or for all, until two persons lift it."""

from typing import ClassVar

from django.db import models
from django.db.models import Q

from attestation.models.hosts import Attester, HostGroup


class Stop(models.Model):
    """No key is released to these hosts from a moment on. They go on attesting, so that a lift has effect at once."""

    class Scope(models.TextChoices):
        FABRIC = "fabric", "The whole fabric"
        GROUP = "group", "A group of hosts"
        HOST = "host", "A host"

    scope = models.CharField(max_length=10, choices=Scope)
    group = models.ForeignKey(HostGroup, null=True, on_delete=models.PROTECT, related_name="stops")
    attester = models.ForeignKey(Attester, null=True, on_delete=models.PROTECT, related_name="stops")
    at = models.DateTimeField()
    by = models.CharField(max_length=200)
    reason = models.TextField()
    lifted_at = models.DateTimeField(null=True)
    lifted_by = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(scope="fabric", group=None, attester=None)
                | Q(scope="group", group__isnull=False, attester=None)
                | Q(scope="host", group=None, attester__isnull=False),
                name="stop_has_its_scope",
            ),
            models.UniqueConstraint(
                fields=["scope"], condition=Q(scope="fabric", lifted_at=None), name="one_stop_of_the_fabric"
            ),
            models.UniqueConstraint(fields=["group"], condition=Q(lifted_at=None), name="one_stop_per_group"),
            models.UniqueConstraint(fields=["attester"], condition=Q(lifted_at=None), name="one_stop_per_host"),
        ]

    def __str__(self) -> str:
        return f"stop {self.pk}: {self.scope}"

    @property
    def name(self) -> str:
        """Return whom it is about, as it stands in a sentence."""
        if self.attester is not None:
            return f"host {self.attester.name}"
        return "the whole fabric" if self.group is None else f"the group {self.group.name}"

    @property
    def subject(self) -> str:
        if self.attester is not None:
            return self.attester.subject
        return "fabric" if self.group is None else self.group.subject
