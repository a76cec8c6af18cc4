"""What the log has about one tenant, narrowed as its people ask for it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final

from django.db.models import QuerySet
from django.utils import timezone

from fabric.models import Tenant, VirtualMachine
from ledger import service as ledger

KINDS: Final[Mapping[str, str]] = {
    "key.": "Keys: released, refused, given back",
    "chain.": "Statements of the owner’s",
    "approval.": "Approvals",
    "protector.": "Denials",
    "machine.": "VMs added, ordered, made",
    "shielding_data.": "Shielding data",
}
REFUSED: Final = ("key.refused", "chain.refused", "approval.declined")
OUTCOMES: Final[Mapping[str, str]] = {"done": "Done", "refused": "Refused or declined"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks the log for; what makes no sense asks for nothing."""

    kind: str
    outcome: str
    machine: VirtualMachine | None
    since: date | None
    until: date | None

    @property
    def narrowed(self) -> bool:
        return bool(self.kind or self.outcome or self.machine or self.since or self.until)


def read(given: Mapping[str, str], machines: Collection[VirtualMachine]) -> Asked:
    """Read filters out of an address."""
    by_key = {str(machine.pk): machine for machine in machines}
    kind, outcome = given.get("kind", ""), given.get("outcome", "")
    return Asked(
        kind=kind if kind in KINDS else "",
        outcome=outcome if outcome in OUTCOMES else "",
        machine=by_key.get(given.get("machine", "")),
        since=_day(given.get("since", "")),
        until=_day(given.get("until", "")),
    )


def entries(tenant: Tenant, asked: Asked) -> "QuerySet[ledger.Entry]":
    """Return the entries that concern this tenant and are what somebody asks for, the newest first."""
    found = ledger.entries(owners=[tenant.owner_fingerprint])
    if asked.kind:
        found = found.filter(leaf__act__startswith=asked.kind)
    if asked.outcome == "refused":
        found = found.filter(leaf__act__in=REFUSED)
    elif asked.outcome:
        found = found.exclude(leaf__act__in=REFUSED)
    if asked.machine:
        found = found.filter(leaf__subject=asked.machine.subject)
    if asked.since:
        found = found.filter(leaf__at__gte=_begin(asked.since))
    if asked.until:
        found = found.filter(leaf__at__lt=_begin(asked.until + timedelta(days=1)))
    return found


def _day(text: str) -> date | None:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return found if date.min + timedelta(days=1) < found < date.max - timedelta(days=1) else None


def _begin(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time()))
