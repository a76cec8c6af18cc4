"""What the Relying Party keeps. Private to this app: others come through `kps.service`. No plain key is here."""

import uuid
from datetime import UTC, datetime
from typing import ClassVar

from django.db import models
from django.db.models import Q

from attestation.two_persons import PutForward
from kps.core.chain import subject_of


class ServiceKey(models.Model):
    """One of this fabric's own guardian keys, sealed by custody; a pair of them makes a card."""

    class Purpose(models.TextChoices):
        SIGNING = "signing", "Signing"
        ENCRYPTION = "encryption", "Encryption"

    purpose = models.CharField(max_length=10, choices=Purpose)
    thumbprint = models.CharField(max_length=43, unique=True)
    public = models.JSONField()
    sealed = models.BinaryField()
    created_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["id"]

    def __str__(self) -> str:
        return f"{self.purpose} {self.thumbprint}"

    @property
    def custody_purpose(self) -> str:
        return f"guardian {self.purpose}"


class GuardianPair(models.Model):
    """A signing and an encryption key that tenants know this fabric by, and what became of them.

    Keys change in pairs, because a card is the two: a protector that names the old card and the new one has both.
    """

    class State(models.TextChoices):
        PREPARED = "prepared", "Prepared"
        PRIMARY = "primary", "In use"
        FORMER = "former", "Opens still"
        DISABLED = "disabled", "Disabled"

    number = models.PositiveIntegerField(unique=True)
    signing = models.OneToOneField(ServiceKey, on_delete=models.PROTECT, related_name="+")
    encryption = models.OneToOneField(ServiceKey, on_delete=models.PROTECT, related_name="+")
    fingerprint = models.CharField(max_length=64, unique=True)
    state = models.CharField(max_length=10, choices=State)
    before = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="+")
    succession = models.TextField(blank=True)  # signed by the pair before
    created_at = models.DateTimeField()
    primary_since = models.DateTimeField(null=True)
    primary_until = models.DateTimeField(null=True)
    disabled_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-number"]
        permissions: ClassVar = [
            ("rotate", "May prepare guardian keys, and put a change of them forward"),
            ("decide_rotation", "May decide changes of the guardian keys"),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["state"], condition=Q(state="primary"), name="one_primary_pair"),
            models.UniqueConstraint(fields=["state"], condition=Q(state="prepared"), name="one_prepared_pair"),
        ]

    def __str__(self) -> str:
        return f"key pair {self.number}"

    @property
    def subject(self) -> str:
        return f"guardian:{self.fingerprint}"

    @property
    def name(self) -> str:
        return f"Key pair {self.number}"


class RotationProposal(PutForward):
    """A change of the guardian keys, put forward by one person, to be decided by another."""

    class Change(models.TextChoices):
        PROMOTE = "promote", "Take into use"
        DISABLE = "disable", "Disable"
        ENABLE = "enable", "Enable again"

    pair = models.ForeignKey(GuardianPair, on_delete=models.PROTECT, related_name="proposals")
    change = models.CharField(max_length=10, choices=Change)
    impact = models.JSONField()  # what it would have done when it was put forward

    class Meta(PutForward.Meta):
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["pair"], condition=Q(state="open"), name="one_open_change_of_a_pair"),
        ]

    def __str__(self) -> str:
        return f"{self.change} {self.pair}"

    @property
    def title(self) -> str:
        words = {self.Change.PROMOTE: "Take {} into use", self.Change.DISABLE: "Disable {}"}
        return words.get(self.Change(self.change), "Enable {} again").format(self.pair)


class KeyProtectorRecord(models.Model):
    """What this fabric remembers of a key protector: whose it is, the owner's newest word on it, whether it is denied.

    It is known by owner and id together. The owner chooses the id, and anybody can choose the same.
    """

    owner_fingerprint = models.CharField(max_length=64)
    protector_id = models.UUIDField()
    owner_name = models.CharField(max_length=64)
    level = models.CharField(max_length=30)
    serial = models.IntegerField()
    statement_sha256 = models.CharField(max_length=64)
    first_seen = models.DateTimeField()
    last_released = models.DateTimeField(null=True)
    last_roll = models.BigIntegerField(default=0)
    # The newest of our cards in the protector that the next start brings; empty where none of ours is named.
    guardian_fingerprint = models.CharField(max_length=64, blank=True, db_index=True)
    denied_at = models.DateTimeField(null=True)
    denied_by = models.CharField(max_length=200, blank=True)
    denied_reason = models.TextField(blank=True)
    # What the owner's people have denied stands beside what this fabric's have; neither takes the other's back.
    owner_denied_at = models.DateTimeField(null=True)
    owner_denied_by = models.CharField(max_length=200, blank=True)
    owner_denied_reason = models.TextField(blank=True)
    denies_machines = models.BooleanField(default=False)  # those made from this shielding data are denied with it
    denied_with = models.UUIDField(null=True)  # the shielding data's protector whose denial this one came with

    class Meta:
        ordering: ClassVar = ["-last_released"]
        permissions: ClassVar = [
            ("deny", "May deny releases under a key protector, and put forward that they are allowed again"),
            ("decide_lift", "May decide that releases under a key protector are allowed again"),
        ]
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


class DenialLift(PutForward):
    """That a denial by this fabric's people ends: put forward by one person, to be decided by another."""

    record = models.ForeignKey(KeyProtectorRecord, on_delete=models.PROTECT, related_name="lifts")

    class Meta(PutForward.Meta):
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["record"], condition=Q(state="open"), name="one_open_lift_of_a_denial"),
        ]

    def __str__(self) -> str:
        return f"allow {self.record}"


class MadeMachine(models.Model):
    """A machine that a guardian has made from shielding data, by its key protector. Append-only."""

    record = models.OneToOneField(KeyProtectorRecord, on_delete=models.PROTECT, related_name="making")
    made_from = models.UUIDField(db_index=True)  # the protector of the shielding data, which is the same owner's
    link = models.TextField()  # what the guardian has signed
    vm = models.CharField(max_length=64, blank=True)
    seen_at = models.DateTimeField()
    brought_by = models.CharField(max_length=200)

    class Meta:
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return f"{self.record} from {self.made_from}"


class OwnerStatement(models.Model):
    """A statement of an owner's as it was signed, kept for good; the one with the highest serial binds. Append-only."""

    record = models.ForeignKey(KeyProtectorRecord, on_delete=models.PROTECT, related_name="statements")
    serial = models.IntegerField()
    sha256 = models.CharField(max_length=64)
    token = models.TextField()
    seen_at = models.DateTimeField()
    brought_by = models.CharField(max_length=200)

    class Meta:
        ordering: ClassVar = ["-serial"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["record", "serial"], name="one_statement_of_a_serial"),
        ]

    def __str__(self) -> str:
        return f"{self.record} {self.serial}"


class ReleaseApproval(models.Model):
    """A release that waits for its owner's yes, and what became of that. A yes is used once, by the host it names."""

    class State(models.TextChoices):
        PENDING = "pending", "Waits for the owner"
        APPROVED = "approved", "Approved"
        DECLINED = "declined", "Declined"
        USED = "used", "Used"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    record = models.ForeignKey(KeyProtectorRecord, on_delete=models.PROTECT, related_name="approvals")
    attester_id = models.UUIDField()
    host = models.CharField(max_length=64)
    vm = models.CharField(max_length=64)
    attestation_id = models.BigIntegerField()
    needs_key = models.BooleanField()
    by_key = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=State, default=State.PENDING)
    asked_at = models.DateTimeField()
    asked_last = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=200, blank=True)
    reason = models.TextField(blank=True)
    expires_at = models.DateTimeField(null=True)
    used_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-asked_last"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["record", "attester_id"], condition=Q(state="pending"), name="one_open_approval_per_host"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.vm} on {self.host}: {self.state}"


class KeyReturn(models.Model):
    """A host has said that a VM whose key it got has stopped. Append-only."""

    at = models.DateTimeField()
    owner_fingerprint = models.CharField(max_length=64)
    protector_id = models.UUIDField()
    vm = models.CharField(max_length=64)
    attester_id = models.UUIDField()
    host = models.CharField(max_length=64)
    serial = models.CharField(max_length=40)
    release_id = models.BigIntegerField()  # the newest release that this takes back, and all before it
    nonce_sha256 = models.CharField(max_length=64)

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [models.Index(fields=["protector_id", "owner_fingerprint"], name="returns_by_protector")]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["serial", "nonce_sha256"], name="one_return_per_nonce"),
        ]

    def __str__(self) -> str:
        return f"{self.vm} on {self.host}"


class KeyRelease(models.Model):
    """One authenticated request for a key and its outcome, kept for good. Append-only in the database: no row, no key.

    Owner, level and roll are those that the owner's signatures vouch for; empty when these did not hold. Owner's serial
    and statement are those of the chain that was applied, which is the newest, and not always what the host presented.
    """

    class Outcome(models.TextChoices):
        RELEASED = "released", "Released"
        REFUSED = "refused", "Refused"

    at = models.DateTimeField()
    vm = models.CharField(max_length=64)
    protector_id = models.UUIDField(null=True)
    made_id = models.UUIDField(null=True)  # the machine that this made, where it is of shielding data
    owner_fingerprint = models.CharField(max_length=64, blank=True)
    level = models.CharField(max_length=30, blank=True)
    roll = models.BigIntegerField(null=True)
    owner_serial = models.IntegerField(null=True)
    statement_sha256 = models.CharField(max_length=64, blank=True)
    approval_id = models.UUIDField(null=True)
    attester_id = models.UUIDField(db_index=True)
    host = models.CharField(max_length=64)
    group = models.CharField(max_length=40, blank=True)
    serial = models.CharField(max_length=40)
    attestation_id = models.BigIntegerField()
    mode = models.CharField(max_length=10)
    policy_version = models.PositiveIntegerField()
    outcome = models.CharField(max_length=10, choices=Outcome)
    code = models.CharField(max_length=60, blank=True)
    detail = models.TextField(blank=True)
    nonce_sha256 = models.CharField(max_length=64)
    # What the host may do by this key without the fabric; nothing where the owner's policy says nothing of it.
    offline_starts = models.PositiveSmallIntegerField(null=True)
    offline_until = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-id"]
        # Few, for each costs every release; nobody asks for a protector but by its owner too.
        indexes: ClassVar = [
            models.Index(fields=["owner_fingerprint", "protector_id"], name="releases_by_protector"),
            models.Index(fields=["owner_fingerprint", "id"], name="releases_by_owner"),
            models.Index(fields=["made_id"], condition=models.Q(made_id__isnull=False), name="releases_by_made"),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["serial", "nonce_sha256"], name="one_answer_per_nonce"),
        ]

    def __str__(self) -> str:
        return f"{self.vm} {self.outcome}"

    @property
    def released(self) -> bool:
        return self.outcome == self.Outcome.RELEASED

    @property
    def machine_id(self) -> uuid.UUID | None:
        """Return the key protector of the machine that the host got a key of: of a new one where it made one."""
        return self.made_id or self.protector_id


class OfflineAccount(models.Model):
    """What a host says of the starts that it made by a released key without the fabric; all of them. Append-only."""

    at = models.DateTimeField()
    release_id = models.BigIntegerField(db_index=True)
    owner_fingerprint = models.CharField(max_length=64)
    protector_id = models.UUIDField()
    vm = models.CharField(max_length=64)
    attester_id = models.UUIDField()
    host = models.CharField(max_length=64)
    serial = models.CharField(max_length=40)
    starts = models.JSONField()  # seconds since 1970
    counted = models.BigIntegerField()
    exceeded = models.BooleanField()
    nonce_sha256 = models.CharField(max_length=64)

    class Meta:
        ordering: ClassVar = ["-id"]
        indexes: ClassVar = [models.Index(fields=["owner_fingerprint", "protector_id"], name="accounts_by_protector")]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["serial", "nonce_sha256"], name="one_account_per_nonce"),
        ]

    def __str__(self) -> str:
        return f"{self.vm} on {self.host}: {len(self.starts)}"

    @property
    def moments(self) -> list[datetime]:
        """Return when the host started the VM."""
        return [datetime.fromtimestamp(start, UTC) for start in self.starts]

    @property
    def unlisted(self) -> int:
        """Return how many starts its TPM has counted and the host does not list: those that a crash broke off."""
        return max(0, self.counted - len(self.starts))
