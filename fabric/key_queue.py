"""Key protectors that wait to move to newer keys of this fabric, with the VMs that they are for."""

from collections.abc import Iterable
from dataclasses import dataclass

from fabric.models import VirtualMachine
from kps.service import Dependant


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
