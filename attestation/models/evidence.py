"""What came from hosts, and what it showed."""

import uuid
from typing import ClassVar

from django.db import models

from attestation.models.hosts import Attester


class Blob(models.Model):
    """Evidence by its digest: one row for all hosts that send the same log."""

    sha256 = models.CharField(max_length=64, primary_key=True)
    content = models.BinaryField()
    size = models.PositiveIntegerField()

    def __str__(self) -> str:
        return self.sha256


class Challenge(models.Model):
    """A nonce that answers once (RFC 9334 section 10.2). The answer to a `trial` changes nothing."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    attester = models.ForeignKey(Attester, on_delete=models.PROTECT, db_index=False)
    nonce = models.BinaryField(max_length=32)
    event_log_sha256 = models.CharField(max_length=64, blank=True)
    send_event_log = models.BooleanField()
    send_ima_log = models.BooleanField(default=True)
    ima_from = models.PositiveBigIntegerField(default=0)
    trial = models.BooleanField(default=False)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    spent_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return str(self.id)


class Attestation(models.Model):
    """One appraisal, kept for good: what came, what was found, under which policy. Append-only in the database.

    Every attestation pays for each index, so there are those only that a page or a check looks something up by.
    """

    id = models.BigAutoField(primary_key=True)
    attester = models.ForeignKey(Attester, on_delete=models.PROTECT, related_name="attestations")
    challenge = models.OneToOneField(Challenge, on_delete=models.PROTECT)
    at = models.DateTimeField(db_index=True)
    mode = models.CharField(max_length=10)
    status = models.CharField(max_length=30)
    substatus = models.JSONField(default=list)
    code = models.CharField(max_length=60, blank=True)
    findings = models.JSONField(default=list)
    excepted = models.JSONField(default=list)
    policy_version = models.PositiveIntegerField()
    baseline = models.ForeignKey("Baseline", null=True, on_delete=models.PROTECT, db_index=False)
    pcrs = models.JSONField(default=dict)
    event_log = models.ForeignKey(Blob, null=True, on_delete=models.PROTECT, related_name="+", db_index=False)
    ima_log = models.ForeignKey(Blob, null=True, on_delete=models.PROTECT, related_name="+", db_index=False)
    ima_from = models.PositiveBigIntegerField(default=0)
    evidence = models.JSONField(default=dict)
    grounds = models.JSONField(default=dict)  # what else the verdict rested on (`attestation.dossiers`)
    policy_sha256 = models.CharField(max_length=64, blank=True)
    dossier_sha256 = models.CharField(max_length=64, blank=True)  # of those from before there were dossiers, none
    reset_count = models.BigIntegerField(null=True)
    restart_count = models.BigIntegerField(null=True)
    boot_count = models.BigIntegerField(null=True)
    firmware_version = models.CharField(max_length=32, blank=True)
    duration_us = models.PositiveIntegerField()

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [models.Index(fields=["status"], name="attestations_by_status")]

    def __str__(self) -> str:
        return f"{self.attester_id} {self.status}"

    def pcr_bytes(self) -> dict[int, bytes]:
        return {int(pcr): bytes.fromhex(value) for pcr, value in self.pcrs.items()}


class Trial(models.Model):
    """A verdict that a host asked for to see it, kept for good. Append-only in the database.

    Not an `Attestation`: what reads those, for a page or a decision, cannot take one of these for what a host showed.
    """

    id = models.BigAutoField(primary_key=True)
    attester = models.ForeignKey(Attester, on_delete=models.PROTECT, related_name="trials")
    challenge = models.OneToOneField(Challenge, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField()
    mode = models.CharField(max_length=10)
    status = models.CharField(max_length=30)
    substatus = models.JSONField(default=list)
    code = models.CharField(max_length=60, blank=True)
    findings = models.JSONField(default=list)
    policy_version = models.PositiveIntegerField()
    pcrs = models.JSONField(default=dict)
    evidence = models.JSONField(default=dict)

    class Meta:
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return f"{self.attester_id} {self.status}"


class ImaProgress(models.Model):
    """How far a host's IMA list of this boot is proved, and what it has shown so far; any node can go on from it."""

    attester = models.OneToOneField(Attester, primary_key=True, on_delete=models.PROTECT, related_name="ima")
    reset_count = models.BigIntegerField()
    offset = models.PositiveBigIntegerField()
    entries = models.PositiveBigIntegerField()
    pcr_value = models.CharField(max_length=128)
    runtime = models.CharField(max_length=36, blank=True)
    findings = models.JSONField(default=list)

    def __str__(self) -> str:
        return f"{self.attester_id}: {self.entries}"


class Component(models.Model):
    """A measured event that some host had and no baseline knew: since when, where first, and what people say it is."""

    digest = models.CharField(max_length=128, primary_key=True)
    pcr = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=120)
    text = models.TextField()
    proved = models.BooleanField()
    first_seen_at = models.DateTimeField()
    first_seen_on = models.ForeignKey(Attester, on_delete=models.PROTECT, related_name="+")
    package = models.CharField(max_length=200, blank=True)
    vouched_by = models.CharField(max_length=200, blank=True)
    vouched_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-first_seen_at"]

    def __str__(self) -> str:
        return self.digest
