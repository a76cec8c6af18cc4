"""Telling the portal that a machine has stopped, so that this host counts no longer as one that runs it.

An owner may limit on how many hosts a VM's key is at a time. A host counts from the release until it says that the
machine has stopped: at once after `vm stop`, and after the daemon's next attestation when the guest went down by
itself, the host did, or the portal was away. What is not said in time costs the owner a start, and nobody a secret.
"""

import logging
import secrets
import time
from pathlib import Path
from typing import Final

from attestation.errors import Refusal
from guardedhost import agent, bundle
from guardedhost.errors import AgentError, VmFailure
from guardedhost.machine import Hypervisor, Machine, read_machine
from guardedhost.store import Store
from kps.core.handback import Return, build_return
from kps.core.protector import verify_protector

_NONCE_SIZE: Final = 32

log = logging.getLogger(__name__)


def settle(store: Store, hypervisor: Hypervisor) -> None:
    """Say of every machine whose key this host got, and which does not run any more, that it has stopped."""
    for folder in store.held():
        try:
            machine = read_machine(folder)
            with bundle.locked(machine.folder):
                if hypervisor.state(machine) == "stopped":
                    give_back(store, machine)
        except (AgentError, VmFailure, OSError) as error:
            log.warning("not told: %s has stopped: %s", folder, error)


def give_back(store: Store, machine: Machine) -> None:
    """Tell the portal that this machine has stopped here; its folder is locked by the caller."""
    if machine.folder not in store.held():
        return
    states = bundle.read_states(machine.folder)
    if not states:
        raise VmFailure(f"{machine.folder} holds no complete state of {machine.name}.")
    try:
        protector = verify_protector(states[0].content.protector)
    except Refusal as error:
        raise VmFailure(f"{machine.folder}: {error}") from error
    with agent.opened(store) as host:
        credential = agent.ensure_certificate(host)
        said = Return(
            serial=credential.serial,
            owner_fingerprint=protector.owner.fingerprint,
            protector=protector.id,
            vm=machine.name,
            nonce=secrets.token_bytes(_NONCE_SIZE),
            at=int(time.time()),
        )
        host.client.give_back(build_return(said, agent.open_token(host, credential, credential.release_secret)))
        store.forget_held(machine.folder)
    log.info("told: vm=%s has stopped", machine.name)


def stop(store: Store, folder: Path, hypervisor: Hypervisor, *, patience: float) -> tuple[Machine, AgentError | None]:
    """Stop a machine and tell the portal; that the latter failed is returned, for the machine is off all the same."""
    machine = read_machine(folder)
    with bundle.locked(machine.folder):
        hypervisor.stop(machine, patience=patience)
        try:
            give_back(store, machine)
        except (AgentError, VmFailure) as error:
            return machine, error
    return machine, None
