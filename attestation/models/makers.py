"""Makers of TPMs: their authorities, and the bundles that these came in."""

import uuid
from typing import ClassVar

from django.db import models

from attestation.core.certificate_reader import Tolerance


class Vendor(models.Model):
    """A maker of TPMs as people know it: a name over its authorities, a switch, and the exceptions it has."""

    name = models.CharField(max_length=60, unique=True)
    enabled = models.BooleanField(default=True)
    tolerances = models.JSONField(default=list)

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        return f"maker:{self.pk}"

    def tolerated(self) -> frozenset[Tolerance]:
        return frozenset(Tolerance(word) for word in self.tolerances)


class EndorsementAuthority(models.Model):
    """A TPM maker's CA certificate that this fabric trusts, where it came from, and who said so.

    `subject_key` and `issuer_key` are digests of the names, by which a chain is climbed.
    """

    class Kind(models.TextChoices):
        ROOT = "root", "Root"
        INTERMEDIATE = "intermediate", "Intermediate"

    fingerprint = models.CharField(max_length=64, primary_key=True)
    vendor = models.ForeignKey(Vendor, on_delete=models.PROTECT, related_name="authorities")
    title = models.CharField(max_length=120)
    name = models.TextField()
    kind = models.CharField(max_length=12, choices=Kind)
    certificate = models.BinaryField()
    subject_key = models.CharField(max_length=64, db_index=True)
    issuer_key = models.CharField(max_length=64)
    not_before = models.DateTimeField()
    not_after = models.DateTimeField()
    tolerances = models.JSONField(default=list)
    bundle = models.ForeignKey("AuthorityBundle", on_delete=models.PROTECT, related_name="authorities")
    path = models.CharField(max_length=300, blank=True)
    added_by = models.CharField(max_length=200)
    added_at = models.DateTimeField()
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering: ClassVar = ["-kind", "title", "fingerprint"]
        permissions: ClassVar = [("trust_maker", "May say which makers of TPMs are trusted")]

    def __str__(self) -> str:
        return self.title

    @property
    def subject(self) -> str:
        return f"authority:{self.fingerprint}"


class AuthorityBundle(models.Model):
    """A file of CA certificates: uploaded, looked at, then imported once or forgotten. The report stays for good."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    file_name = models.CharField(max_length=200)
    file_sha256 = models.CharField(max_length=64)
    content = models.BinaryField()  # until it is imported
    uploaded_by = models.CharField(max_length=200)
    uploaded_at = models.DateTimeField()
    imported_by = models.CharField(max_length=200, blank=True)
    imported_at = models.DateTimeField(null=True)
    provenance = models.TextField(blank=True)
    report = models.JSONField(default=list)

    class Meta:
        ordering: ClassVar = ["-uploaded_at"]

    def __str__(self) -> str:
        return self.file_name

    @property
    def subject(self) -> str:
        return f"bundle:{self.id}"
