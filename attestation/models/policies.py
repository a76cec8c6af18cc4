"""Appraisal policies: their versions and drafts, what drafts would do; and what people decide of each other's."""

import functools
import operator
import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q

from attestation.core.document import PolicyDocument, parse_document
from attestation.models.evidence import Attestation
from attestation.models.hosts import DEFAULT_GROUP, Attester, HostGroup
from attestation.models.kerberos import KerberosGroup
from attestation.models.modes import ModePlan
from attestation.models.references import Baseline
from attestation.models.stops import Stop
from attestation.two_persons import PutForward


class PolicyVersion(models.Model):
    """One immutable version of a group's Appraisal Policy for Evidence; of those begun, the highest counts."""

    version = models.PositiveIntegerField(primary_key=True)
    group = models.ForeignKey(HostGroup, default=DEFAULT_GROUP, on_delete=models.PROTECT, related_name="versions")
    document = models.JSONField()
    effective_at = models.DateTimeField()
    restores = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="restored_by")
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=200)
    reason = models.TextField()

    class Meta:
        ordering: ClassVar = ["-version"]

    def __str__(self) -> str:
        return f"v{self.version}"

    @property
    def subject(self) -> str:
        return f"policy:{self.version}"

    def content(self) -> PolicyDocument:
        return parse_document(self.document)


class PolicyDraft(models.Model):
    """A change of a group's policy that is being written, tried on stored Evidence, and at last put forward."""

    class State(models.TextChoices):
        DRAFT = "draft", "Being written"
        PROPOSED = "proposed", "Waits for approval"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"
        DROPPED = "dropped", "Dropped"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    group = models.ForeignKey(HostGroup, on_delete=models.PROTECT, related_name="drafts")
    title = models.CharField(max_length=120)
    state = models.CharField(max_length=10, choices=State, default=State.DRAFT, db_index=True)
    document = models.JSONField()
    base_version = models.PositiveIntegerField()
    effective_at = models.DateTimeField(null=True)
    restores = models.ForeignKey(PolicyVersion, null=True, on_delete=models.PROTECT, related_name="+")
    revision = models.PositiveIntegerField(default=1)
    created_by = models.CharField(max_length=200)
    created_at = models.DateTimeField()
    changed_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["-changed_at"]

    def __str__(self) -> str:
        return self.title

    @property
    def name(self) -> str:
        return self.title

    @property
    def subject(self) -> str:
        return f"draft:{self.id}"

    def content(self) -> PolicyDocument:
        return parse_document(self.document)


class DryRun(models.Model):
    """A draft held against the newest Evidence of every host of its group, some hosts at a time."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    draft = models.ForeignKey(PolicyDraft, on_delete=models.PROTECT, related_name="dry_runs")
    revision = models.PositiveIntegerField()
    base_version = models.PositiveIntegerField()
    total = models.PositiveIntegerField()
    done = models.PositiveIntegerField(default=0)
    after = models.UUIDField(null=True)
    started_at = models.DateTimeField()
    started_by = models.CharField(max_length=200)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-started_at"]

    def __str__(self) -> str:
        return str(self.id)


class DryRunRow(models.Model):
    """One host's result: whether it passes under the policy in force and whether it would, and what would be found."""

    dry_run = models.ForeignKey(DryRun, on_delete=models.CASCADE, related_name="rows")
    attester = models.ForeignKey(Attester, on_delete=models.PROTECT, related_name="+")
    attestation = models.ForeignKey(Attestation, null=True, on_delete=models.PROTECT, related_name="+")
    passes = models.BooleanField()
    would_pass = models.BooleanField()
    findings = models.JSONField(default=list)
    excepted = models.JSONField(default=list)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["dry_run", "attester"], name="one_row_per_host_of_a_dry_run"),
        ]

    def __str__(self) -> str:
        return f"{self.attester_id}: {self.would_pass}"


def _one_of(*names: str) -> Q:
    """Return the condition that exactly one of these columns is filled."""
    cases = [Q(**{f"{name}__isnull": name != filled for name in names}) for filled in names]
    return functools.reduce(operator.or_, cases)


class Proposal(PutForward):
    """Something put forward by one person, to be decided by another."""

    attester = models.ForeignKey(Attester, null=True, on_delete=models.PROTECT, related_name="proposals")
    baseline = models.ForeignKey(Baseline, null=True, on_delete=models.PROTECT, related_name="proposals")
    draft = models.ForeignKey(PolicyDraft, null=True, on_delete=models.PROTECT, related_name="proposals")
    plan = models.ForeignKey(ModePlan, null=True, on_delete=models.PROTECT, related_name="proposals")
    kerberos_group = models.ForeignKey(KerberosGroup, null=True, on_delete=models.PROTECT, related_name="proposals")
    stop = models.ForeignKey(Stop, null=True, on_delete=models.PROTECT, related_name="proposals")
    group = models.ForeignKey(HostGroup, null=True, on_delete=models.PROTECT, related_name="proposals")

    class Meta(PutForward.Meta):
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=_one_of("attester", "baseline", "draft", "plan", "kerberos_group", "stop"),
                name="proposal_is_about_one_thing",
            ),
            models.UniqueConstraint(
                fields=["attester"], condition=Q(state="open"), name="one_open_proposal_per_attester"
            ),
            models.UniqueConstraint(
                fields=["baseline"], condition=Q(state="open"), name="one_open_proposal_per_baseline"
            ),
            models.UniqueConstraint(fields=["stop"], condition=Q(state="open"), name="one_open_proposal_per_stop"),
            models.UniqueConstraint(fields=["draft"], condition=Q(state="open"), name="one_open_proposal_per_draft"),
            models.UniqueConstraint(
                fields=["state"], condition=Q(state="open", plan__isnull=False), name="one_open_switch_of_the_mode"
            ),
        ]

    def __str__(self) -> str:
        return f"proposal {self.id}"

    @property
    def kind(self) -> str:
        if self.stop_id:
            return "lift"
        if self.kerberos_group_id:
            return "kerberos"
        if self.plan_id:
            return "mode"
        if self.draft_id:
            return "policy"
        return "host" if self.attester_id else "baseline"

    @property
    def about(self) -> Attester | Baseline | PolicyDraft | ModePlan | KerberosGroup | Stop:
        about = self.attester or self.baseline or self.draft or self.plan or self.kerberos_group or self.stop
        if about is None:
            raise ValueError("a proposal is about one thing; the table's constraint says so")
        return about
