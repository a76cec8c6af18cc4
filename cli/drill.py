"""What a restore drill opens with the owner's recovered keys: VMs as they were handed over or backed up."""

import re
from pathlib import Path
from typing import Final
from uuid import UUID

from cli.recovery import RecoveryRefused
from kps.core import jose
from kps.core.bundle import parse_state
from kps.core.guardian import GuardianKeys
from kps.core.protector import PROTECTOR_LIMIT, open_protector, verify_protector
from kps.core.secrets import open_secrets

_STATE: Final = re.compile(r"state\.(\d{1,16})\.json")


def open_vm(path: Path, owner: GuardianKeys) -> UUID:
    """Open a key protector, a VM's state file or the newest one of a bundle; return the protector's id.

    Of a state file the VM's own secrets open too. All of it stays in memory.
    """
    content = (_newest_state(path) if path.is_dir() else path).read_bytes()
    document = jose.read_json(content, limit=2 * PROTECTOR_LIMIT)
    state = parse_state(content) if "protector" in document else None
    verified = verify_protector(state.protector if state else document)
    if verified.owner.fingerprint != owner.guardian.fingerprint:
        raise RecoveryRefused(f"The key protector in {path} is of another owner: {verified.owner.fingerprint}.")
    key = open_protector(verified, owner.encryption)
    if state is not None:
        open_secrets(state.secrets, key, protector_id=verified.id, roll=verified.roll)
    return verified.id


def _newest_state(bundle: Path) -> Path:
    found = {int(match[1]): path for path in bundle.iterdir() if (match := _STATE.fullmatch(path.name))}
    if not found:
        raise RecoveryRefused(f"{bundle} holds no state file of a VM.")
    return found[max(found)]
