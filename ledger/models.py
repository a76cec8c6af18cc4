"""The leaves of the ledger."""

from typing import ClassVar

from django.db import models

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
