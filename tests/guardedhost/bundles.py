"""A tenant and a fabric in memory: bundles as a tenant makes them, and releases as the portal gives them."""

import base64
import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric import ec

from guardedhost.process import by_pipe
from guardedhost.vm import Released
from kps.core.bundle import VmDescription, VmState, build_state, build_vm
from kps.core.guardian import GuardianKeys
from kps.core.protector import create_protector, open_protector, roll_protector, verify_protector
from kps.core.secrets import VmSecrets, seal_secrets
from kps.core.wrap import ReleasedKeys


def keys(name: str) -> GuardianKeys:
    return GuardianKeys(name, ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1()))


@dataclass(frozen=True)
class Fabric:
    """The owner and the one guardian."""

    owner: GuardianKeys
    guardian: GuardianKeys

    @classmethod
    def new(cls) -> "Fabric":
        return cls(keys("owner"), keys("fabric"))

    def release(self, state: VmState) -> Released:
        """What the portal answers for a state, without asking who wants it."""
        protector = verify_protector(state.protector)
        egress = os.urandom(32)
        ingress = open_protector(protector, self.guardian.encryption)
        released = ReleasedKeys(protector.id, protector.level, protector.roll + 1, ingress, egress)
        return Released(released, roll_protector(protector, key=egress, signer=self.guardian.signing))


def make_bundle(folder: Path, fabric: Fabric, *, level: str) -> Path:
    """A machine with an encrypted, empty disk of 4 MiB."""
    folder.mkdir()
    identity, key = uuid4(), os.urandom(32)
    opened = VmSecrets(os.urandom(32).hex(), base64.b64encode(os.urandom(32)).decode())
    guardians = [fabric.guardian.guardian]
    protector = create_protector(
        fabric.owner, guardians, protector_id=identity, level=level, key=key, now=datetime.now(UTC)
    )
    sealed = seal_secrets(opened, key, protector_id=identity, roll=0)
    (folder / "vm.json").write_bytes(build_vm(VmDescription(folder.name, str(identity), level, 256)))
    (folder / "state.0.json").write_bytes(build_state(VmState(protector, sealed)))
    for _ in range(5):
        if _make_disk(folder, opened.disk_passphrase.encode()) == 0:
            return folder
    raise AssertionError("qemu-img failed five times")


def _make_disk(folder: Path, passphrase: bytes) -> int:
    """Run qemu-img; on a busy machine it now and then fails with "Unable to get accurate CPU usage"."""
    with by_pipe(passphrase) as reader:
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "--object", f"secret,id=k,file=/dev/fd/{reader}"]
        command += ["-o", "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10", "disk.qcow2", "4M"]
        return subprocess.run(command, cwd=folder, pass_fds=(reader,), check=False).returncode
