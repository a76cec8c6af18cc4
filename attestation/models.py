"""What the Verifier keeps. Private to this app: others come through `attestation.service`."""

import uuid
from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from attestation.core.tpm import TpmPublic, parse_public
from attestation.errors import ChallengeSpent


class EndorsementAuthority(models.Model):
    """A TPM maker's CA certificate that this fabric trusts, and who said so."""

    fingerprint = models.CharField(max_length=64, primary_key=True)
    name = models.CharField(max_length=200)
    certificate = models.BinaryField()
    provenance = models.CharField(max_length=300)
    added_by = models.CharField(max_length=200)
    added_at = models.DateTimeField()
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name


class Enrolment(models.Model):
    """A host that has named its keys but not yet proved that they live in one TPM."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=64)
    ek_public = models.BinaryField()
    ek_certificate = models.BinaryField(null=True)
    ak_public = models.BinaryField()
    secret_sha256 = models.BinaryField(max_length=32)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    spent_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"


class Attester(models.Model):
    """A host's TPM and agent as attestation knows it: one EK, one AK, for good."""

    class State(models.TextChoices):
        PENDING = "pending", "Pending approval"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"
        REVOKED = "revoked", "Revoked"

    class Endorsement(models.TextChoices):
        TRUSTED = "trusted", "Chain verified"
        UNTRUSTED = "untrusted", "Issuer not trusted"
        ABSENT = "absent", "No EK certificate"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=64, db_index=True)
    state = models.CharField(max_length=10, choices=State, default=State.PENDING, db_index=True)
    replaces = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="replaced_by")
    ek_fingerprint = models.CharField(max_length=64, db_index=True)
    ek_public = models.BinaryField()
    ek_certificate = models.BinaryField(null=True)
    ek_verdict = models.CharField(max_length=10, choices=Endorsement)
    ek_detail = models.TextField()
    endorsement = models.JSONField(default=dict)
    ak_name = models.CharField(max_length=68)
    ak_public = models.BinaryField()
    enrolled_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=200, blank=True)
    status = models.CharField(max_length=30, default="Unknown", db_index=True)
    substatus = models.JSONField(default=list)
    status_at = models.DateTimeField(null=True)
    next_attestation_at = models.DateTimeField(null=True)
    certified_until = models.DateTimeField(null=True)
    latest = models.ForeignKey("Attestation", null=True, on_delete=models.PROTECT, related_name="+")

    class Meta:
        ordering: ClassVar = ["name", "enrolled_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["ek_fingerprint", "ak_name"], name="one_attester_per_identity"),
            models.UniqueConstraint(fields=["name"], condition=Q(state="approved"), name="one_approved_per_name"),
        ]
        permissions: ClassVar = [
            ("propose", "May put hosts and baselines forward"),
            ("decide", "May approve or reject what others put forward"),
            ("revoke", "May revoke hosts and certificates"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        return f"host:{self.id}"

    def ak(self) -> TpmPublic:
        return parse_public(bytes(self.ak_public))

    @property
    def standing(self) -> str:
        """Say in a sentence where this host stands with the fabric's people."""
        if self.state == self.State.PENDING and self.replaces is not None:
            return (
                f"The name {self.name} belongs to another TPM, so this host waits: a person has to decide"
                " whether it replaces that one."
            )
        return {
            self.State.PENDING: f"{self.name} is enrolled and waits for approval.",
            self.State.APPROVED: f"{self.name} is approved.",
            self.State.REJECTED: f"{self.name} was rejected; it may not attest.",
            self.State.REVOKED: f"{self.name} was revoked; it may not attest.",
        }[self.State(self.state)]


class Blob(models.Model):
    """Evidence by its digest: one row for all hosts that send the same log."""

    sha256 = models.CharField(max_length=64, primary_key=True)
    content = models.BinaryField()
    size = models.PositiveIntegerField()

    def __str__(self) -> str:
        return self.sha256


class ChallengeQuerySet(models.QuerySet["Challenge"]):
    def spend(self, pk: uuid.UUID, *, now: datetime) -> "Challenge":
        """Mark one live challenge as used, in one statement, and return it."""
        live = self.filter(pk=pk, spent_at=None, expires_at__gt=now)
        if live.update(spent_at=now) != 1:
            raise ChallengeSpent("This challenge is unknown, expired or used. Ask for a new one.")
        return self.select_related("attester").get(pk=pk)


class Challenge(models.Model):
    """A nonce that answers once (RFC 9334 section 10.2)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    attester = models.ForeignKey(Attester, on_delete=models.PROTECT)
    nonce = models.BinaryField(max_length=32)
    event_log_sha256 = models.CharField(max_length=64, blank=True)
    send_event_log = models.BooleanField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    spent_at = models.DateTimeField(null=True)

    objects = ChallengeQuerySet.as_manager()

    def __str__(self) -> str:
        return str(self.id)


class Attestation(models.Model):
    """One appraisal, kept for good: what came, what was found, under which policy. Append-only in the database."""

    id = models.BigAutoField(primary_key=True)
    attester = models.ForeignKey(Attester, on_delete=models.PROTECT, related_name="attestations")
    challenge = models.OneToOneField(Challenge, on_delete=models.PROTECT)
    at = models.DateTimeField(db_index=True)
    mode = models.CharField(max_length=10)
    status = models.CharField(max_length=30, db_index=True)
    substatus = models.JSONField(default=list)
    code = models.CharField(max_length=60, blank=True)
    findings = models.JSONField(default=list)
    policy_version = models.PositiveIntegerField()
    baseline = models.ForeignKey("Baseline", null=True, on_delete=models.PROTECT)
    pcrs = models.JSONField(default=dict)
    event_log = models.ForeignKey(Blob, null=True, on_delete=models.PROTECT, related_name="+")
    ima_log = models.ForeignKey(Blob, null=True, on_delete=models.PROTECT, related_name="+")
    evidence = models.JSONField(default=dict)
    reset_count = models.BigIntegerField(null=True)
    restart_count = models.BigIntegerField(null=True)
    firmware_version = models.CharField(max_length=32, blank=True)
    duration_us = models.PositiveIntegerField()

    class Meta:
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return f"{self.attester_id} {self.status}"

    def pcr_bytes(self) -> dict[int, bytes]:
        return {int(pcr): bytes.fromhex(value) for pcr, value in self.pcrs.items()}


class Baseline(models.Model):
    """Reference values captured from one host's verified Evidence; they count once approved."""

    class State(models.TextChoices):
        PROPOSED = "proposed", "Waits for approval"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"
        RETIRED = "retired", "Retired"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=100)
    state = models.CharField(max_length=10, choices=State, default=State.PROPOSED)
    bank = models.CharField(max_length=10)
    pcrs = models.JSONField()
    event_log = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")
    captured_from = models.ForeignKey(Attestation, on_delete=models.PROTECT, related_name="+")
    captured_by = models.CharField(max_length=200)
    captured_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["name", "-captured_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["name"], condition=Q(state="approved"), name="one_approved_baseline_name"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        return f"baseline:{self.id}"


class PolicyVersion(models.Model):
    """One immutable version of the Appraisal Policy for Evidence; the highest is in force."""

    version = models.PositiveIntegerField(primary_key=True)
    baselines = models.JSONField()
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=200)
    reason = models.TextField()

    class Meta:
        ordering: ClassVar = ["-version"]

    def __str__(self) -> str:
        return f"v{self.version}"


class Proposal(models.Model):
    """Something put forward by one person, to be decided by another."""

    class State(models.TextChoices):
        OPEN = "open", "Waits for a decision"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"

    id = models.BigAutoField(primary_key=True)
    attester = models.ForeignKey(Attester, null=True, on_delete=models.PROTECT, related_name="proposals")
    baseline = models.ForeignKey(Baseline, null=True, on_delete=models.PROTECT, related_name="proposals")
    state = models.CharField(max_length=10, choices=State, default=State.OPEN, db_index=True)
    proposed_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    proposed_at = models.DateTimeField()
    reason = models.TextField()
    decided_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    decided_at = models.DateTimeField(null=True)
    decision_reason = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(attester__isnull=False, baseline__isnull=True)
                | Q(attester__isnull=True, baseline__isnull=False),
                name="proposal_is_about_one_thing",
            ),
            models.UniqueConstraint(
                fields=["attester"], condition=Q(state="open"), name="one_open_proposal_per_attester"
            ),
            models.UniqueConstraint(
                fields=["baseline"], condition=Q(state="open"), name="one_open_proposal_per_baseline"
            ),
        ]

    def __str__(self) -> str:
        return f"proposal {self.id}"

    @property
    def kind(self) -> str:
        return "host" if self.attester_id else "baseline"

    @property
    def about(self) -> Attester | Baseline:
        about = self.attester or self.baseline
        if about is None:
            raise ValueError("a proposal is about a host or a baseline; the table's constraint says so")
        return about


class ModeSwitch(models.Model):
    """The history of the attestation mode; the newest row is in force."""

    mode = models.CharField(max_length=10)
    since = models.DateTimeField()
    by = models.CharField(max_length=200)
    reason = models.TextField()

    class Meta:
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return self.mode


class SignerKey(models.Model):
    """A key that signs health certificates; there is always a successor that was published before it is needed."""

    number = models.PositiveIntegerField(primary_key=True)
    sealed = models.BinaryField()
    certificate = models.BinaryField()
    soft_expires_at = models.DateTimeField()
    not_after = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["number"]

    def __str__(self) -> str:
        return f"signer {self.number}"


class HealthCertificate(models.Model):
    """What a passing attestation yields: at most 8 h, for one transport key."""

    serial = models.CharField(max_length=40, primary_key=True)
    attester = models.ForeignKey(Attester, on_delete=models.PROTECT, related_name="certificates")
    attestation = models.OneToOneField(Attestation, on_delete=models.PROTECT, related_name="certificate")
    signer = models.ForeignKey(SignerKey, on_delete=models.PROTECT)
    der = models.BinaryField()
    issued_at = models.DateTimeField()
    not_after = models.DateTimeField(db_index=True)
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.CharField(max_length=200, blank=True)
    revoked_reason = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar = ["-issued_at"]

    def __str__(self) -> str:
        return self.serial


class DenyBefore(models.Model):
    """Certificates issued before `moment` count no more, on the whole fabric; the latest moment is in force."""

    moment = models.DateTimeField()
    at = models.DateTimeField()
    by = models.CharField(max_length=200)
    reason = models.TextField()

    class Meta:
        ordering: ClassVar = ["-moment"]

    def __str__(self) -> str:
        return self.moment.isoformat()
