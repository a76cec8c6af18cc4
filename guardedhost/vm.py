"""Starting a virtual machine: fetch its keys, save its secrets under the next key, start it.

A crash between any two steps leaves a bundle that starts: the new state is on disk before the machine sees the keys,
and the old one stays until the machine runs.
"""

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from attestation.errors import Refusal
from guardedhost import agent, bundle, offline
from guardedhost.errors import AgentError, Refused, Unreachable, VmFailure
from guardedhost.machine import Hypervisor, Machine, UnlockedMachine
from guardedhost.store import Credential, Store
from kps.core.bundle import VmState
from kps.core.protector import VerifiedProtector, verify_protector
from kps.core.request import ReleaseRequest, build_request
from kps.core.secrets import open_secrets, seal_secrets
from kps.core.wrap import ReleasedKeys, parse_released

# The portal no longer honours the certificate in hand; a fresh attestation may earn one that it does.
_STALE = frozenset(
    {"certificate_denied_before", "certificate_expired", "certificate_refused", "certificate_revoked"}
    | {"certificate_unknown", "host_failing", "host_not_approved", "mode_changed", "policy_changed"}
    | {"release_request_refused"}
)
# What is wrong is this one protector; an older one of the same machine may still be right.
_THIS_PROTECTOR = ("malformed_protector", "protector_recipients", "protector_seal", "protector_unopened")
_NONCE_SIZE = 32

log = logging.getLogger(__name__)


class StateUnusable(VmFailure):
    """One state of a bundle does not open; another may."""


@dataclass(frozen=True, slots=True)
class Released:
    """What the portal released for one start: the keys, and the protector for the next start."""

    keys: ReleasedKeys
    protector: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A machine that can be started, and the states to keep once it has; `released` opens the next one."""

    unlocked: UnlockedMachine
    keep: frozenset[int]
    released: Released


@dataclass(frozen=True, slots=True)
class Started:
    """What became of a start: the machine's level, and whether the portal was asked."""

    level: str
    offline: bool = False


def start(store: Store, machine: Machine, hypervisor: Hypervisor) -> Started:
    """Start a machine on this host, attesting first if there is no certificate.

    While the portal is away, and only then, by what the owner allows without it (`guardedhost.offline`).
    """
    with bundle.locked(machine.folder):
        if hypervisor.state(machine) != "stopped":
            raise VmFailure(f"{machine.name} is already running.")
        with agent.opened(store) as host:
            store.remember_machine(machine.folder)
            store.remember_held(machine.folder)
            ready = _ready(host, machine)
        if isinstance(ready, Prepared):
            launch(ready, hypervisor)
            return Started(ready.unlocked.level)
        hypervisor.start(ready)
        return Started(ready.level, offline=True)


def _ready(host: agent.Host, machine: Machine) -> Prepared | UnlockedMachine:
    """Return the machine with its keys: released by the portal, or else by what is kept here."""
    try:
        return _released(host, machine)
    except Unreachable as away:
        return offline.unlock(host, machine, away)


def _released(host: agent.Host, machine: Machine) -> Prepared:
    """Have a machine's keys released, after the portal has heard of what was started without it."""
    offline.give_account(host, machine)
    prepared = prepare(machine, lambda state: release(host, machine, state))
    offline.allow(host, machine, verify_protector(prepared.released.protector), prepared.released.keys.egress)
    return prepared


def prepare(machine: Machine, release_for: Callable[[VmState], Released]) -> Prepared:
    """Open the newest state that opens, and write its successor before anything uses the keys."""
    failure: VmFailure | None = None
    for state in bundle.read_states(machine.folder):
        try:
            released = release_for(state.content)
            successor, unlocked = _unlock(machine, state.content, released)
        except StateUnusable as error:
            log.warning("state %d of %s does not open: %s", state.number, machine.name, error)
            failure = failure or error
            continue
        number = bundle.add_state(machine.folder, successor)
        return Prepared(unlocked, frozenset({state.number, number}), released)
    raise failure or VmFailure(f"{machine.folder} holds no complete state of {machine.name}.")


def launch(prepared: Prepared, hypervisor: Hypervisor) -> None:
    """Start the machine; only then are the states before the last one dispensable."""
    machine = prepared.unlocked.machine
    hypervisor.start(prepared.unlocked)
    bundle.keep_states(machine.folder, set(prepared.keep))
    log.info("started: vm=%s level=%s", machine.name, prepared.unlocked.level)


def release(host: agent.Host, machine: Machine, state: VmState) -> Released:
    """Ask the portal for the keys of one state.

    When it no longer honours the certificate, the host attests once more: that earns another, or the findings that
    say why not.
    """
    credential = agent.ensure_certificate(host)
    try:
        return _ask(host, credential, machine, state)
    except Refused as error:
        if error.code in _THIS_PROTECTOR:
            raise StateUnusable(error.detail) from error
        if error.code not in _STALE:
            raise
        log.info("certificate %s is not honoured (%s); attesting again", credential.serial, error.code)
    host.store.drop_credential()
    return _ask(host, agent.ensure_certificate(host), machine, state)


def _ask(host: agent.Host, credential: Credential, machine: Machine, state: VmState) -> Released:
    request = ReleaseRequest(
        serial=credential.serial,
        certificate=credential.certificate,
        vm=machine.name,
        nonce=secrets.token_bytes(_NONCE_SIZE),
        at=int(time.time()),
        untrusted_protector=state.protector,
    )
    secret = agent.open_token(host, credential, credential.release_secret)
    answer = host.client.release(build_request(request, secret))
    try:
        keys = parse_released(agent.open_token(host, credential, answer.wrapped_keys))
    except Refusal as error:
        raise AgentError(f"The portal's release cannot be read: {error}") from error
    bundle.keep_receipt(machine.folder, answer.receipt)
    log.info(
        "released: vm=%s protector=%s roll=%d certificate=%s", machine.name, keys.protector, keys.roll, request.serial
    )
    return Released(keys, answer.key_protector)


def _unlock(machine: Machine, state: VmState, released: Released) -> tuple[VmState, UnlockedMachine]:
    """Open the secrets, and seal them for the next start.

    The level is read from what the owner has signed; a portal that says otherwise is not obeyed. Nor is a rolled
    protector kept that is not this one's successor: the next start would find no key in it. The successor may carry a
    newer word of the same owner's, which the portal had and this bundle had not; an older one it may not.
    """
    keys = released.keys
    try:
        present, following = verify_protector(state.protector), verify_protector(released.protector)
        _require_successor(present, following, keys)
        opened = open_secrets(state.secrets, keys.ingress, protector_id=present.id, roll=present.roll)
        sealed = seal_secrets(opened, keys.egress, protector_id=following.id, roll=following.roll)
    except Refusal as error:
        raise StateUnusable(str(error)) from error
    unlocked = UnlockedMachine(machine, following.level, opened.vtpm_key.encode(), opened.disk_passphrase.encode())
    return VmState(released.protector, sealed), unlocked


def _require_successor(present: VerifiedProtector, following: VerifiedProtector, keys: ReleasedKeys) -> None:
    before, after = present.chain.statement, following.chain.statement
    same = before.id == after.id == keys.protector and before.owner == after.owner
    goes_on = before == after or before.serial < after.serial
    if not (same and goes_on) or not present.roll < following.roll == keys.roll or keys.level != following.level:
        raise StateUnusable("The portal's answer is not for this key protector, its level and its next start.")
