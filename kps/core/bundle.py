"""The files of a VM as a tenant hands it over: `vm.json`, `state.N.json`, `disk.qcow2`; none holds a plain secret."""

import re
from dataclasses import asdict, dataclass, field
from typing import Final

from kps.core import jose
from kps.core.chain import LEVELS
from kps.core.protector import PROTECTOR_LIMIT
from kps.errors import MalformedDocument

VM_FILE: Final = "vm.json"
DISK_FILE: Final = "disk.qcow2"
SEED_FILE: Final = "seed.qcow2"  # for cloud-init, under the disk's passphrase; not every VM has one
MEMORY: Final = range(16, 1024 * 1024 + 1)  # MiB
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_VM_LIMIT: Final = 4 * 1024
_SECRETS_LIMIT: Final = 4 * 1024


@dataclass(frozen=True, slots=True)
class VmDescription:
    """What the VM asks for. Nobody has signed it: the level that counts comes with the released keys."""

    name: str
    id: str  # of its key protector
    level: str
    memory: int
    disk: str = DISK_FILE


@dataclass(frozen=True, slots=True)
class VmState:
    """A protector and the secrets sealed under its key; the two are replaced together, or not at all."""

    protector: jose.Json = field(repr=False)
    secrets: str = field(repr=False)


def state_file(roll: int) -> str:
    return f"state.{roll}.json"


def build_vm(description: VmDescription) -> bytes:
    return jose.canonical(asdict(description)) + b"\n"


def parse_vm(content: bytes) -> VmDescription:
    """Read `vm.json`: a name that is a file name, one disk beside it, no path that leads elsewhere."""
    fields = jose.members(
        jose.read_json(content, limit=_VM_LIMIT), {"name", "id", "level", "memory", "disk"}, what="A VM's description"
    )
    if not all(isinstance(fields[name], str) and NAME.fullmatch(fields[name]) for name in ("name", "disk")):
        raise MalformedDocument("A VM's name and disk are 1 to 64 letters, digits, dots, dashes.")
    if fields["level"] not in LEVELS:
        raise MalformedDocument("The level of this VM is not known here.")
    if jose.whole_number(fields["memory"], what="The memory of a VM", most=MEMORY[-1]) not in MEMORY:
        raise MalformedDocument(f"A VM has at least {MEMORY[0]} MiB of memory.")
    identity = str(jose.uuid(fields["id"], what="The id of a VM"))
    return VmDescription(fields["name"], identity, fields["level"], fields["memory"], fields["disk"])


def build_state(state: VmState) -> bytes:
    return jose.canonical({"protector": state.protector, "secrets": state.secrets}) + b"\n"


def parse_state(content: bytes) -> VmState:
    """Read a state file; protector and secrets are verified by whoever opens them."""
    limit = PROTECTOR_LIMIT + _SECRETS_LIMIT
    fields = jose.members(jose.read_json(content, limit=limit), {"protector", "secrets"}, what="A VM's state")
    if not isinstance(fields["protector"], dict) or not isinstance(fields["secrets"], str):
        raise MalformedDocument("A VM's state is a protector and its sealed secrets.")
    return VmState(fields["protector"], fields["secrets"])
