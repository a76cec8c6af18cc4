"""Hosts, and the groups that they belong to."""

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q

from attestation.core.tpm import TpmPublic, parse_public

DEFAULT_GROUP = "default"


class Mode(models.TextChoices):
    """How hosts attest (HGS: OperationMode). One mode is in force; what is registered for another waits for its day."""

    KERBEROS = "kerberos", "Kerberos"
    HOST_KEY = "hostkey", "Host key"
    TPM = "tpm", "TPM"


class HostGroup(models.Model):
    """Hosts that one policy is for. `canary_of` names the group whose changes this one tries first."""

    slug = models.SlugField(max_length=40, primary_key=True)
    name = models.CharField(max_length=80, unique=True)
    description = models.TextField(blank=True)
    canary_of = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="canaries")
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=200)

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        return f"group:{self.slug}"


class Enrolment(models.Model):
    """A host that has named its keys but not yet proved that they live in one TPM, or that it has its host key."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=64)
    ek_public = models.BinaryField(default=bytes)
    ek_certificate = models.BinaryField(null=True)
    ak_public = models.BinaryField(default=bytes)
    host_key = models.BinaryField(null=True)
    secret_sha256 = models.BinaryField(max_length=32)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    spent_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.id})"


class ExpectedHost(models.Model):
    """A host that somebody announced by its endorsement key, before it enrolled. It approves nothing."""

    ek_fingerprint = models.CharField(max_length=64, primary_key=True)
    name = models.CharField(max_length=256)
    ek_certificate = models.BinaryField(null=True)
    serial_number = models.CharField(max_length=256, blank=True)
    announced_by = models.CharField(max_length=200)
    announced_at = models.DateTimeField()
    reason = models.TextField()

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        return f"expected:{self.ek_fingerprint}"


class Attester(models.Model):
    """A host as one mode knows it, for good: by its TPM (one EK, one AK), by its host key, or by its account.

    A host that is registered for several modes has a row in each, under one name. What is another mode's is empty.
    """

    class State(models.TextChoices):
        PENDING = "pending", "Pending approval"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"
        REVOKED = "revoked", "Revoked"

    class Endorsement(models.TextChoices):
        TRUSTED = "trusted", "Chain verified"
        UNTRUSTED = "untrusted", "Issuer not trusted"
        ABSENT = "absent", "No EK certificate"
        REFUSED = "refused", "EK certificate refused"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=64, db_index=True)
    mode = models.CharField(max_length=10, choices=Mode, default=Mode.TPM)
    identity = models.CharField(max_length=200, blank=True)  # fingerprint of the host key, or SID of the account
    host_key = models.BinaryField(null=True)
    state = models.CharField(max_length=10, choices=State, default=State.PENDING, db_index=True)
    group = models.ForeignKey(HostGroup, default=DEFAULT_GROUP, on_delete=models.PROTECT, related_name="attesters")
    replaces = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="replaced_by")
    ek_fingerprint = models.CharField(max_length=64, db_index=True, blank=True)
    ek_public = models.BinaryField(default=bytes)
    ek_certificate = models.BinaryField(null=True)
    ek_verdict = models.CharField(max_length=10, choices=Endorsement, blank=True)
    ek_detail = models.TextField(blank=True)
    endorsement = models.JSONField(default=dict)
    ak_name = models.CharField(max_length=68, blank=True)
    ak_public = models.BinaryField(default=bytes)
    enrolled_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=200, blank=True)
    status = models.CharField(max_length=30, default="Unknown", db_index=True)
    substatus = models.JSONField(default=list)
    status_at = models.DateTimeField(null=True)
    next_attestation_at = models.DateTimeField(null=True)
    certified_until = models.DateTimeField(null=True)
    reset_count = models.BigIntegerField(null=True)
    boot_count = models.BigIntegerField(null=True)
    latest = models.ForeignKey("Attestation", null=True, on_delete=models.PROTECT, related_name="+", db_index=False)

    class Meta:
        ordering: ClassVar = ["name", "enrolled_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["ek_fingerprint", "ak_name"], condition=Q(mode="tpm"), name="one_attester_per_tpm"
            ),
            models.UniqueConstraint(
                fields=["mode", "identity"], condition=~Q(mode="tpm"), name="one_attester_per_identity_of_a_mode"
            ),
            models.UniqueConstraint(
                fields=["mode", "name"], condition=Q(state="approved"), name="one_approved_per_name_and_mode"
            ),
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

    def announced(self) -> ExpectedHost | None:
        """Return the announcement of a host with this TPM, if somebody had made one."""
        return ExpectedHost.objects.filter(pk=self.ek_fingerprint).first()

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
