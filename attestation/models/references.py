"""What Evidence is held against: baselines, runtime policies, code integrity policies."""

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q

from attestation.core.reference import Rule, rules_from_json
from attestation.models.evidence import Attestation, Blob
from attestation.models.hosts import DEFAULT_GROUP, HostGroup


class Baseline(models.Model):
    """Reference values, captured from verified Evidence or uploaded; they count once a policy version names them."""

    class State(models.TextChoices):
        DRAFTED = "drafted", "Not put forward"
        PROPOSED = "proposed", "Waits for approval"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"
        RETIRED = "retired", "Retired"

    class Source(models.TextChoices):
        CAPTURED = "captured", "Captured from hosts"
        UPLOADED = "uploaded", "Uploaded"
        AMENDED = "amended", "Amended"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=100)
    group = models.ForeignKey(HostGroup, default=DEFAULT_GROUP, on_delete=models.PROTECT, related_name="baselines")
    state = models.CharField(max_length=10, choices=State, default=State.PROPOSED)
    source = models.CharField(max_length=10, choices=Source, default=Source.CAPTURED)
    platform = models.CharField(max_length=10, default="linux")
    bank = models.CharField(max_length=10)
    pcrs = models.JSONField()
    event_log = models.ForeignKey(Blob, null=True, on_delete=models.PROTECT, related_name="+")
    explained_pcrs = models.JSONField(default=dict)
    captured_from = models.ForeignKey(Attestation, null=True, on_delete=models.PROTECT, related_name="+")
    sources = models.JSONField(default=list)
    amends = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="amended_by")
    captured_by = models.CharField(max_length=200)
    captured_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["name", "-captured_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["group", "name"], condition=Q(state="approved"), name="one_approved_baseline_name"
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        return f"baseline:{self.id}"

    def rules(self) -> dict[int, Rule]:
        return rules_from_json(self.pcrs)


class RuntimePolicy(models.Model):
    """One version of a list of files that may run; immutable. It counts where a policy version names it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=100)
    version = models.PositiveIntegerField()
    content = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")
    entries = models.PositiveIntegerField()
    excludes = models.JSONField(default=list)
    signers = models.JSONField(default=list)
    origin = models.CharField(max_length=300)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=200)

    class Meta:
        ordering: ClassVar = ["name", "-version"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["name", "version"], name="one_runtime_policy_per_version"),
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"

    @property
    def subject(self) -> str:
        return f"runtime:{self.id}"


class CodeIntegrityPolicy(models.Model):
    """A Windows code integrity policy as it was uploaded; immutable. It counts where a policy version names it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=100)
    content = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")
    digests = models.JSONField()
    audits = models.BooleanField()
    trivial = models.JSONField(default=list)
    added_at = models.DateTimeField()
    added_by = models.CharField(max_length=200)
    origin = models.CharField(max_length=300)

    class Meta:
        ordering: ClassVar = ["name", "-added_at"]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        return f"codepolicy:{self.id}"
