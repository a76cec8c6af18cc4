"""What the Verifier keeps. Private to this app: others come through `attestation.service`."""

import uuid
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from attestation.core.certificate_reader import Tolerance
from attestation.core.document import PolicyDocument, parse_document
from attestation.core.reference import Rule, rules_from_json
from attestation.core.tpm import TpmPublic
from attestation.memory import public_key

DEFAULT_GROUP = "default"


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
        REFUSED = "refused", "EK certificate refused"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=64, db_index=True)
    state = models.CharField(max_length=10, choices=State, default=State.PENDING, db_index=True)
    group = models.ForeignKey(HostGroup, default=DEFAULT_GROUP, on_delete=models.PROTECT, related_name="attesters")
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
    reset_count = models.BigIntegerField(null=True)
    boot_count = models.BigIntegerField(null=True)
    latest = models.ForeignKey("Attestation", null=True, on_delete=models.PROTECT, related_name="+", db_index=False)

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

    def announced(self) -> ExpectedHost | None:
        """Return the announcement of a host with this TPM, if somebody had made one."""
        return ExpectedHost.objects.filter(pk=self.ek_fingerprint).first()

    def ak(self) -> TpmPublic:
        return public_key(bytes(self.ak_public))

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


class Challenge(models.Model):
    """A nonce that answers once (RFC 9334 section 10.2)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    attester = models.ForeignKey(Attester, on_delete=models.PROTECT, db_index=False)
    nonce = models.BinaryField(max_length=32)
    event_log_sha256 = models.CharField(max_length=64, blank=True)
    send_event_log = models.BooleanField()
    send_ima_log = models.BooleanField(default=True)
    ima_from = models.PositiveBigIntegerField(default=0)
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


class Proposal(models.Model):
    """Something put forward by one person, to be decided by another."""

    class State(models.TextChoices):
        OPEN = "open", "Waits for a decision"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"

    id = models.BigAutoField(primary_key=True)
    attester = models.ForeignKey(Attester, null=True, on_delete=models.PROTECT, related_name="proposals")
    baseline = models.ForeignKey(Baseline, null=True, on_delete=models.PROTECT, related_name="proposals")
    draft = models.ForeignKey(PolicyDraft, null=True, on_delete=models.PROTECT, related_name="proposals")
    group = models.ForeignKey(HostGroup, null=True, on_delete=models.PROTECT, related_name="proposals")
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
                condition=Q(attester__isnull=False, baseline__isnull=True, draft__isnull=True)
                | Q(attester__isnull=True, baseline__isnull=False, draft__isnull=True)
                | Q(attester__isnull=True, baseline__isnull=True, draft__isnull=False),
                name="proposal_is_about_one_thing",
            ),
            models.UniqueConstraint(
                fields=["attester"], condition=Q(state="open"), name="one_open_proposal_per_attester"
            ),
            models.UniqueConstraint(
                fields=["baseline"], condition=Q(state="open"), name="one_open_proposal_per_baseline"
            ),
            models.UniqueConstraint(fields=["draft"], condition=Q(state="open"), name="one_open_proposal_per_draft"),
        ]

    def __str__(self) -> str:
        return f"proposal {self.id}"

    @property
    def kind(self) -> str:
        if self.draft_id:
            return "policy"
        return "host" if self.attester_id else "baseline"

    @property
    def about(self) -> Attester | Baseline | PolicyDraft:
        about = self.attester or self.baseline or self.draft
        if about is None:
            raise ValueError("a proposal is about a host, a baseline or a policy; the table's constraint says so")
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
