"""Health certificates, their signers, and what makes them void."""

from typing import ClassVar

from django.db import models

from attestation.models.evidence import Attestation
from attestation.models.hosts import Attester


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
    signer = models.ForeignKey(SignerKey, on_delete=models.PROTECT, db_index=False)
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
