"""The leaves of the ledger, and the log that they are put into: entries, tree, checkpoints, witnesses."""

from typing import ClassVar

from django.db import models
from django.db.models import Q

from ledger.core.leaf import Act


class Leaf(models.Model):
    """One act, written in the transaction of the act itself; the database refuses to change or delete it."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_index=True)
    actor = models.CharField(max_length=200)
    act = models.CharField(max_length=100, db_index=True)
    subject = models.CharField(max_length=200)
    detail = models.JSONField(default=dict)
    salt = models.CharField(max_length=32, blank=True)  # of leaves from before there were salts, none
    hash = models.CharField(max_length=64)

    class Meta:
        ordering: ClassVar = ["-id"]
        # Not `db_index`, which on PostgreSQL makes a second index for searches by how a text begins; only acts are.
        indexes: ClassVar = [
            models.Index(fields=["actor"], name="leaves_by_actor"),
            models.Index(fields=["subject"], name="leaves_by_subject"),
        ]

    def __str__(self) -> str:
        return f"{self.act} {self.subject}"

    def content(self) -> Act:
        return Act(at=self.at, actor=self.actor, act=self.act, subject=self.subject, detail=self.detail, salt=self.salt)


class LogKey(models.Model):
    """The key that signs checkpoints and receipts, sealed by custody, and the name that the log has for good."""

    number = models.PositiveSmallIntegerField(primary_key=True)
    origin = models.CharField(max_length=120)
    public = models.BinaryField(max_length=32)
    sealed = models.BinaryField()
    created_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.origin


class Entry(models.Model):
    """A leaf's place in the log, given once; append-only in the database. `owner` is whom it concerns, if anybody."""

    index = models.BigIntegerField(primary_key=True)
    leaf = models.OneToOneField(Leaf, on_delete=models.PROTECT, related_name="entry")
    hash = models.CharField(max_length=64)
    owner = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering: ClassVar = ["index"]
        indexes: ClassVar = [
            models.Index(fields=["hash"], name="entries_by_hash"),
            models.Index(fields=["owner", "index"], name="entries_by_owner", condition=~Q(owner="")),
        ]

    def __str__(self) -> str:
        return str(self.index)


class Tile(models.Model):
    """256 hashes of the tree that stand side by side, and the one over them (c2sp.org/tlog-tiles); append-only.

    Level 0 are the hashes of entries, level 1 those over 256 entries each, and so on. What does not fill a tile yet is
    in the rows below.
    """

    level = models.PositiveSmallIntegerField()
    number = models.BigIntegerField()
    hashes = models.BinaryField(max_length=256 * 32)
    root = models.BinaryField(max_length=32)

    class Meta:
        ordering: ClassVar = ["level", "number"]
        constraints: ClassVar = [models.UniqueConstraint(fields=["level", "number"], name="one_tile_in_a_place")]

    def __str__(self) -> str:
        return f"{self.level}/{self.number}"


class Checkpoint(models.Model):
    """A head of the log as it was signed, one for each batch; append-only."""

    size = models.BigIntegerField(primary_key=True)
    root = models.BinaryField(max_length=32)
    note = models.TextField()
    at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["-size"]

    def __str__(self) -> str:
        return str(self.size)

    @property
    def head(self) -> str:
        return bytes(self.root).hex()


class OwnerCount(models.Model):
    """How many entries concern an owner, and the chain over them, as the newest checkpoint's last entry counts them."""

    position = models.BigIntegerField(primary_key=True)
    owner = models.CharField(max_length=64, unique=True)
    start = models.BinaryField(max_length=32)
    count = models.BigIntegerField()
    head = models.BinaryField(max_length=32)

    class Meta:
        ordering: ClassVar = ["position"]

    def __str__(self) -> str:
        return f"{self.owner}: {self.count}"


class Witness(models.Model):
    """Somebody outside who cosigns checkpoints after having seen that each goes on from the one before."""

    name = models.CharField(max_length=200, unique=True)
    vkey = models.CharField(max_length=512)
    added_at = models.DateTimeField()
    added_by = models.CharField(max_length=200)
    removed_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def subject(self) -> str:
        return f"witness:{self.name}"


class Cosignature(models.Model):
    """A witness's signature under a checkpoint, as it came; append-only."""

    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, related_name="cosignatures")
    witness = models.ForeignKey(Witness, on_delete=models.PROTECT, related_name="cosignatures", db_index=False)
    line = models.TextField()
    signed_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar = ["id"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["checkpoint", "witness"], name="one_cosignature_per_witness"),
        ]

    def __str__(self) -> str:
        return f"{self.witness_id} {self.checkpoint_id}"
