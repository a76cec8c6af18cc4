"""A VM's key wrapped again by its owner, offline: for the parties of a newer statement, which so holds at once."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cli.backup import OpenedVm, open_state, states_of
from cli.recovery import RecoveryRefused
from guardedhost import bundle
from kps.core.bundle import VmState, state_file
from kps.core.chain import VerifiedChain
from kps.core.guardian import GuardianKeys
from kps.core.protector import wrap_again
from kps.core.secrets import seal_secrets
from kps.core.wrapped import KEY_SIZE


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """The state that was written, and the start that it is for."""

    path: Path = field()
    roll: int


def rewrap(folder: Path, chain: VerifiedChain, owner: GuardianKeys) -> Rewrapped:
    """Write a bundle's next state under this chain, with a new key, and take away those before it.

    These are taken away when the new one was opened again. Copies of them elsewhere still open with the keys that they
    were wrapped for.
    """
    with bundle.locked(folder):
        opened = open_state(states_of(folder)[0], owner)
        state, roll = _sealed(opened, chain, owner), opened.protector.roll + 1
        number = bundle.add_state(folder, state)
        path = folder / state_file(number)
        if open_state(path, owner).secrets != opened.secrets:
            raise RuntimeError("the state that was written does not hold the machine's secrets")
        bundle.keep_states(folder, {number})
    return Rewrapped(path, roll)


def _sealed(opened: OpenedVm, chain: VerifiedChain, owner: GuardianKeys) -> VmState:
    if opened.secrets is None:
        raise RecoveryRefused("This is a bare key protector; what it protects is not here.")
    key, roll = secrets.token_bytes(KEY_SIZE), opened.protector.roll + 1
    return VmState(
        protector=wrap_again(chain, roll=roll, key=key, signer=owner.signing),
        secrets=seal_secrets(opened.secrets, key, protector_id=opened.protector.id, roll=roll),
    )
