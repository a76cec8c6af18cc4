"""What the Relying Party keeps. Private to this app: others come through `kps.service`. No plain key is here."""

from typing import ClassVar

from django.db import models
from django.db.models import Q

from kps.core.protector import subject_of


class ServiceKey(models.Model):
    """One of this fabric's own guardian keys, sealed by custody; the primary one of each purpose is published."""

    class Purpose(models.TextChoices):
        SIGNING = "signing", "Signing"
        ENCRYPTION = "encryption", "Encryption"

    purpose = models.CharField(max_length=10, choices=Purpose)
    thumbprint = models.CharField(max_length=43, unique=True)
    public = models.JSONField()
    sealed = models.BinaryField()
    primary = models.BooleanField()
    created_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["purpose"], condition=Q(primary=True), name="one_primary_key_per_purpose"),
        ]

    def __str__(self) -> str:
        return f"{self.purpose} {self.thumbprint}"

    @property
    def custody_purpose(self) -> str:
        return f"guardian {self.purpose}"


class KeyProtectorRecord(models.Model):
    """What this fabric remembers of a key protector that it has opened: whose it is, and whether it is denied.

    It is known by owner and id together. The owner chooses the id, and anybody can choose the same.
    """

    owner_fingerprint = models.CharField(max_length=64)
    protector_id = models.UUIDField()
    owner_name = models.CharField(max_length=64)
    level = models.CharField(max_length=30)
    first_seen = models.DateTimeField()
    last_released = models.DateTimeField()
    last_roll = models.BigIntegerField()
    denied_at = models.DateTimeField(null=True)
    denied_by = models.CharField(max_length=200, blank=True)
    denied_reason = models.TextField(blank=True)

    class Meta:
        ordering: ClassVar = ["-last_released"]
        permissions: ClassVar = [("deny", "May deny and allow releases under a key protector")]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["owner_fingerprint", "protector_id"], name="one_protector_of_an_id_per_owner"
            ),
        ]

    def __str__(self) -> str:
        return str(self.protector_id)

    @property
    def subject(self) -> str:
        return subject_of(self.owner_fingerprint, self.protector_id)


class KeyRelease(models.Model):
    """One authenticated request for a key and its outcome, kept for good. Append-only in the database: no row, no key.

    Owner, level and roll are those that the owner's signatures vouch for; empty when these did not hold.
    """

    class Outcome(models.TextChoices):
        RELEASED = "released", "Released"
        REFUSED = "refused", "Refused"

    at = models.DateTimeField(db_index=True)
    vm = models.CharField(max_length=64)
    protector_id = models.UUIDField(null=True, db_index=True)
    owner_fingerprint = models.CharField(max_length=64, blank=True, db_index=True)
    level = models.CharField(max_length=30, blank=True)
    roll = models.BigIntegerField(null=True)
    attester_id = models.UUIDField(db_index=True)
    host = models.CharField(max_length=64)
    serial = models.CharField(max_length=40)
    attestation_id = models.BigIntegerField()
    mode = models.CharField(max_length=10)
    policy_version = models.PositiveIntegerField()
    outcome = models.CharField(max_length=10, choices=Outcome)
    code = models.CharField(max_length=60, blank=True)
    detail = models.TextField(blank=True)
    nonce_sha256 = models.CharField(max_length=64)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["serial", "nonce_sha256"], name="one_answer_per_nonce"),
        ]

    def __str__(self) -> str:
        return f"{self.vm} {self.outcome}"

    @property
    def released(self) -> bool:
        return self.outcome == self.Outcome.RELEASED
