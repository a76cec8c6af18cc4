"""The counts of the owners' entries (`ledger.core.counts`) as the database keeps them between two batches."""

import secrets

from ledger.core.counts import START_SIZE, Count, CountTree
from ledger.models import OwnerCount


class OwnerCounts:
    """Every owner's count as the newest checkpoint has it, to go on from; `changed` are the rows that did."""

    def __init__(self) -> None:
        self.rows = {row.owner: row for row in OwnerCount.objects.all()}
        self.tree = CountTree()
        self.changed: dict[str, OwnerCount] = {}
        for row in self.rows.values():
            self.tree.put(row.position, count_of(row))

    def add(self, owner: str, leaf: bytes) -> None:
        """Count an entry that concerns this owner."""
        row = self.rows.get(owner) or self._begin(owner)
        count = count_of(row).and_one(leaf)
        row.count, row.head = count.count, count.head
        self.tree.put(row.position, count)
        self.changed[owner] = row

    def _begin(self, owner: str) -> OwnerCount:
        start = secrets.token_bytes(START_SIZE)
        row = self.rows[owner] = OwnerCount(position=len(self.rows), owner=owner, start=start, count=0, head=start)
        return row


def count_of(row: OwnerCount) -> Count:
    return Count(row.owner, row.count, bytes(row.head))
