"""A VM out of a backup, opened with its owner's keys alone: no fabric is asked, and all of it stays in memory."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from attestation.errors import Refusal
from cli.recovery import RecoveryRefused
from cli.shield_file import found_in
from guardedhost.machine import read_machine
from kps.core import jose
from kps.core.bundle import VM_FILE, parse_state
from kps.core.guardian import GuardianKeys
from kps.core.protector import PROTECTOR_LIMIT, VerifiedProtector, open_protector, verify_protector
from kps.core.secrets import VmSecrets, open_secrets

_STATE: Final = re.compile(r"state\.(\d{1,16})\.json")


@dataclass(frozen=True, slots=True)
class OpenedVm:
    """What the owner's keys have opened. A bare key protector has no secrets beside it."""

    protector: VerifiedProtector
    secrets: VmSecrets | None = field(repr=False)


def open_state(path: Path, owner: GuardianKeys) -> OpenedVm:
    """Open a VM's state file, or a bare key protector, that this owner has made."""
    if found_in(path) is not None:
        raise RecoveryRefused(
            f"{path} is shielding data and no VM. `guardhouse tenant shield inspect --owner` shows what is in it; a"
            " machine that was made from it comes back from its own bundle."
        )
    content = path.read_bytes()
    document = jose.read_json(content, limit=2 * PROTECTOR_LIMIT)
    state = parse_state(content) if "protector" in document else None
    verified = verify_protector(state.protector if state else document)
    if verified.owner.fingerprint != owner.guardian.fingerprint:
        raise RecoveryRefused(f"The key protector in {path} is of another owner: {verified.owner.fingerprint}.")
    key = open_protector(verified, owner.encryption)
    if state is None:
        return OpenedVm(verified, None)
    return OpenedVm(verified, open_secrets(state.secrets, key, protector_id=verified.id, roll=verified.roll))


def states_of(bundle: Path) -> list[Path]:
    """Return the bundle's state files, newest first."""
    found = {int(match[1]): path for path in bundle.iterdir() if (match := _STATE.fullmatch(path.name))}
    if not found:
        raise RecoveryRefused(f"{bundle} holds no state file of a VM.")
    return [found[number] for number in sorted(found, reverse=True)]


def open_newest(path: Path, owner: GuardianKeys) -> tuple[Path, OpenedVm]:
    """Open the newest state that opens; an older one holds the same secrets, sealed for an earlier start."""
    failure: Refusal | None = None
    for state in states_of(path) if path.is_dir() else [path]:
        try:
            return state, open_state(state, owner)
        except Refusal as error:
            failure = failure or error
    raise failure or AssertionError("there is at least one state")


def disk_of(bundle: Path) -> Path | None:
    """Return the disk that lies in a bundle, when it does."""
    if not (bundle / VM_FILE).exists():
        return None
    disk = bundle / read_machine(bundle).description.disk
    return disk if disk.exists() else None
