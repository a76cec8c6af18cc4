"""What a switch of the attestation mode would do, in the words that its pages and the API share."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from attestation import service as attestation
from fabric.tenancy import started_on


@dataclass(frozen=True, slots=True)
class FabricImpact:
    """What a switch would do to hosts, and how many machines started last on those that would lose."""

    hosts: attestation.Impact
    machines: int

    @property
    def sentences(self) -> tuple[str, ...]:
        """Say who is ready, who would lose, and what that means for machines."""
        ready = f"{_counted(self.hosts.ready, 'host is', 'hosts are')} ready."
        if not self.hosts.losing:
            return ready, "No host that passes now would lose anything."
        others = " and others" if self.hosts.losing > len(self.hosts.names) else ""
        losing = f"{_counted(self.hosts.losing, 'that passes', 'that pass')} now would lose new starts: "
        return ready, f"{losing}{', '.join(self.hosts.names)}{others}.", self._of_machines()

    def _of_machines(self) -> str:
        if not self.machines:
            return "No VM started there last."
        stay = "it stays" if self.machines == 1 else "they stay"
        return f"{_counted(self.machines, 'VM', 'VMs')} started there last; {stay} up, and could not start there again."


def _counted(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def rehearsed(mode: attestation.Mode, *, now: datetime) -> list[attestation.Readiness]:
    """Return who is ready; those that would lose come first."""
    rows = attestation.rehearsal(mode, now=now)
    return sorted(rows, key=lambda row: (not row.loses, row.ready, row.known.name))


def impact_of(rows: Collection[attestation.Readiness]) -> FabricImpact:
    losing = {row.known.pk for row in rows if row.loses}
    return FabricImpact(attestation.impact_of(rows), started_on(losing))


def impact_now(mode: attestation.Mode, *, now: datetime) -> FabricImpact:
    return impact_of(attestation.rehearsal(mode, now=now))
