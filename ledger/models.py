"""The leaves of the ledger."""

from typing import ClassVar

from django.db import models

from ledger.core.leaf import Act


class Leaf(models.Model):
    """One act, written in the transaction of the act itself; the database refuses to change or delete it."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_index=True)
    actor = models.CharField(max_length=200, db_index=True)
    act = models.CharField(max_length=100, db_index=True)
    subject = models.CharField(max_length=200, db_index=True)
    detail = models.JSONField(default=dict)
    hash = models.CharField(max_length=64)

    class Meta:
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return f"{self.act} {self.subject}"

    def content(self) -> Act:
        return Act(at=self.at, actor=self.actor, act=self.act, subject=self.subject, detail=self.detail)
