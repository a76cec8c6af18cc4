"""A tenant and a fabric in memory: bundles as a tenant makes them, and releases as the portal gives them."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cli.owner_file import new_keys
from cli.shielding import Wanted, protect
from guardedhost.vm import Released
from kps.core.bundle import VmState
from kps.core.guardian import GuardianKeys
from kps.core.protector import open_protector, roll_protector, verify_protector
from kps.core.wrap import ReleasedKeys


@dataclass(frozen=True)
class Fabric:
    """The owner and the one guardian."""

    owner: GuardianKeys
    guardian: GuardianKeys

    @classmethod
    def new(cls) -> "Fabric":
        return cls(new_keys("owner"), new_keys("fabric"))

    def release(self, state: VmState) -> Released:
        """What the portal answers for a state, without asking who wants it."""
        protector = verify_protector(state.protector)
        egress = os.urandom(32)
        ingress = open_protector(protector, self.guardian.encryption)
        released = ReleasedKeys(protector.id, protector.level, protector.roll + 1, ingress, egress)
        return Released(released, roll_protector(protector, protector.chain, key=egress, signer=self.guardian.signing))


def make_bundle(folder: Path, fabric: Fabric, *, level: str) -> Path:
    """A machine with the tenant's demonstration disk."""
    wanted = Wanted(folder.name, level, memory=256, disk=None)
    protect(wanted, fabric.owner, [fabric.guardian.guardian], folder=folder, now=datetime.now(UTC))
    return folder
