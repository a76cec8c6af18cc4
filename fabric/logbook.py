"""Who may see which entries of the log: auditors all of them, a tenant those that concern it."""

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from fabric.models import Membership, Viewer
from ledger import service as ledger


class Row(Protocol):
    """A release as far as its leaf is found by it."""

    pk: int
    at: datetime


def owners_seen_by(user: Viewer) -> Collection[str] | None:
    """Return the owners whose entries a person may see; None for all there is."""
    if not user.is_authenticated:
        return ()
    if user.has_perm("fabric.view_audit"):
        return None
    return set(Membership.objects.filter(user=user).values_list("tenant__owner_fingerprint", flat=True))


def places_of_releases(rows: Collection[Row]) -> dict[int, int]:
    """Return the places of these releases in the log, by their keys; one that was just made has none yet."""
    leaves = ledger.leaves_about({row.pk: row.at for row in rows}, act_prefix="key.", member="release")
    entries = ledger.entries_of(list(leaves.values()))
    return {pk: entries[leaf.pk].index for pk, leaf in leaves.items() if leaf.pk in entries}
