"""How far key protectors have moved to newer keys of this fabric, and those that wait, with their VMs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fabric.custody_words import ROOT, TOKEN
from fabric.models import VirtualMachine
from kps import service as kps
from kps.service import Dependant, GuardianPair
from ledger.custody import in_token

State = GuardianPair.State


@dataclass(frozen=True, slots=True)
class PairLine:
    """One pair of guardian keys, and how many key protectors depend on it."""

    pair: GuardianPair
    protectors: int

    @property
    def rests(self) -> str:
        return rests(self.pair.signing.sealed, self.pair.encryption.sealed)


@dataclass(frozen=True, slots=True)
class Rotation:
    """Every pair there ever was, the newest first, and how many key protectors still need an old one."""

    lines: Sequence[PairLine]

    @property
    def total(self) -> int:
        return sum(line.protectors for line in self.lines)

    @property
    def left(self) -> int:
        return sum(line.protectors for line in (*self.of(State.FORMER), *self.of(State.DISABLED)))

    @property
    def moved(self) -> int:
        return self.total - self.left

    def of(self, state: State) -> list[PairLine]:
        return [line for line in self.lines if line.pair.state == state]


def rotation() -> Rotation:
    depending = kps.dependants_by_pair()
    return Rotation([PairLine(pair, depending.get(pair.fingerprint, 0)) for pair in kps.pairs()])


def rests(*sealed: bytes | memoryview) -> str:
    """Say what holds a private key."""
    return TOKEN if all(in_token(bytes(each)) for each in sealed) else ROOT


@dataclass(frozen=True, slots=True)
class Waiting:
    """A key protector in the queue, with the VM that is registered for it, if one is."""

    of: Dependant
    machine: VirtualMachine | None


def waiting_machines(found: Iterable[Dependant]) -> list[Waiting]:
    """Find the VMs that are registered for key protectors: by owner and id, since an id alone is anybody's."""
    listed = list(found)
    machines = {
        (machine.tenant.owner_fingerprint, machine.protector_id): machine
        for machine in VirtualMachine.objects.select_related("tenant").filter(
            protector_id__in=[each.known.protector_id for each in listed]
        )
    }
    return [Waiting(each, machines.get((each.known.owner_fingerprint, each.known.protector_id))) for each in listed]
