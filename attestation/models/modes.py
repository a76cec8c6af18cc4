"""The attestation mode: its history, and what a switch would do."""

import uuid
from datetime import timedelta
from typing import ClassVar

from django.db import models

from attestation.models.hosts import Mode


class ModePlan(models.Model):
    """A switch to another mode as it is put forward, with what it would do as its rehearsal found it then."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    mode = models.CharField(max_length=10, choices=Mode)
    grace = models.DurationField(default=timedelta)  # how long certificates of the mode before go on counting
    impact = models.JSONField(default=dict)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=200)

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        return f"{self.get_mode_display()} mode"

    @property
    def subject(self) -> str:
        return f"mode:{self.mode}"


class ModeSwitch(models.Model):
    """The history of the attestation mode; the newest row is in force.

    `before` is the mode that it ended, whose certificates count until `before_until`; none of them where that is empty.
    """

    mode = models.CharField(max_length=10, choices=Mode)
    since = models.DateTimeField()
    by = models.CharField(max_length=200)
    reason = models.TextField()
    before = models.CharField(max_length=10, choices=Mode, blank=True)
    before_until = models.DateTimeField(null=True)
    plan = models.OneToOneField(ModePlan, null=True, on_delete=models.PROTECT, related_name="switch")

    class Meta:
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return self.mode
