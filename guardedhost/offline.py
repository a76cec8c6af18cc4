"""Starting a machine while the portal is away, as often and as long as its owner allows, and the account of it.

A release leaves the key of the next start in this TPM, sealed to the boot state that has just attested
(`guardedhost.allowance`). A start without the portal rolls nothing: the secrets stay as they lie. Each is counted in
the TPM and written down before the key is opened, and told to the portal before the next thing that is asked of it.
"""

import logging
import secrets
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from attestation.errors import Refusal
from guardedhost import agent, bundle
from guardedhost.errors import AgentError, Refused, TpmFailure, Unreachable, VmFailure
from guardedhost.machine import Machine, UnlockedMachine, read_machine
from guardedhost.store import OfflineTicket, Store
from kps.core.bundle import VmState
from kps.core.offline import OFFLINE_MODE, Account, build_account
from kps.core.protector import VerifiedProtector, verify_protector
from kps.core.release_policy import hours_refusals
from kps.core.secrets import open_secrets

_NONCE_SIZE: Final = 32
_HOUR: Final = 3600

log = logging.getLogger(__name__)


def allow(host: agent.Host, machine: Machine, following: VerifiedProtector, key: bytes) -> None:
    """Keep what the owner allows beyond a start that the portal has just released; what was kept before ends.

    `key` opens the state that `following` protects. That the TPM keeps nothing costs starts later, and not this one.
    """
    known, allowed = host.store.tickets().get(machine.folder), following.chain.statement.policy.offline
    credential = host.store.credential()
    try:
        index = _ended(host, machine, known)
        if allowed is None or credential is None or credential.mode != OFFLINE_MODE:
            if index is not None:
                host.tpm.remove_counter(index)
            return
        seconds = allowed.hours * _HOUR
        allowance = host.tpm.allow(
            key,
            credential.boot_pcrs,
            index=host.tpm.new_counter() if index is None else index,
            times=allowed.starts,
            milliseconds=seconds * 1000,
        )
    except TpmFailure as error:
        log.warning("no starts without the portal: vm=%s %s", machine.name, error)
        return
    ticket = OfflineTicket(
        owner=following.owner.fingerprint,
        protector=str(following.id),
        roll=following.roll,
        until=int(time.time()) + seconds,
        allowance=allowance,
    )
    host.store.save_ticket(machine.folder, ticket)


def _ended(host: agent.Host, machine: Machine, known: OfflineTicket | None) -> int | None:
    """Make what was kept of a machine worthless, copies of it too, and return the counter that it leaves."""
    if known is None:
        return None
    index, last = known.allowance.index, known.allowance.last
    standing = host.tpm.counted(index)
    while standing <= last:
        standing = host.tpm.count(index)
    host.store.save_ticket(machine.folder, None)
    return index


def unlock(host: agent.Host, machine: Machine, away: Unreachable) -> UnlockedMachine:
    """Open the secrets of a machine by what is kept, or say beside that the portal is away why that cannot be."""
    ticket = host.store.tickets().get(machine.folder)
    if ticket is None:
        raise Unreachable(f"{away} Nothing on this host starts {machine.name} without it.") from away
    now = datetime.now(UTC)
    state = _state_of(machine, ticket)
    protector = verify_protector(state.protector)
    against = hours_refusals(protector.chain.statement.policy, now)
    if against or now.timestamp() > ticket.until or len(ticket.spent) >= ticket.allowance.last - ticket.allowance.first:
        why = " ".join(map(str, against)) or "What its owner allows without it is used up, or its time is over."
        raise Unreachable(f"{away} {why}") from away
    host.tpm.count(ticket.allowance.index)
    spent = (*ticket.spent, int(now.timestamp()))
    host.store.save_ticket(machine.folder, replace(ticket, spent=spent, told=False))
    try:
        key = host.tpm.opened(ticket.allowance)
        opened = open_secrets(state.secrets, key, protector_id=protector.id, roll=protector.roll)
    except (TpmFailure, Refusal) as error:
        raise VmFailure(f"{machine.name} does not start without the portal: {error}") from error
    left = ticket.allowance.last - ticket.allowance.first - len(spent)
    log.warning("started without the portal: vm=%s starts_left=%d until=%d", machine.name, left, ticket.until)
    return UnlockedMachine(machine, protector.level, opened.vtpm_key.encode(), opened.disk_passphrase.encode())


def _state_of(machine: Machine, ticket: OfflineTicket) -> VmState:
    """Return the state that the kept key opens."""
    for state in bundle.read_states(machine.folder):
        try:
            protector = verify_protector(state.content.protector)
        except Refusal:
            continue
        if (str(protector.id), protector.roll) == (ticket.protector, ticket.roll):
            return state.content
    raise VmFailure(f"{machine.folder} has not the state of {machine.name} that this host could start by itself.")


def settle(store: Store) -> None:
    """Tell the portal of every start without it that it has not heard of."""
    for folder in [path for path, ticket in store.tickets().items() if not ticket.told]:
        try:
            with agent.opened(store) as host:
                give_account(host, read_machine(folder))
        except (AgentError, OSError) as error:
            log.warning("not told: starts of %s without the portal: %s", folder, error)


def give_account(host: agent.Host, machine: Machine) -> None:
    """Tell the portal when this machine was started without it."""
    ticket = host.store.tickets().get(machine.folder)
    if ticket is None or ticket.told:
        return
    credential = agent.ensure_certificate(host)
    said = Account(
        serial=credential.serial,
        owner_fingerprint=ticket.owner,
        protector=UUID(ticket.protector),
        vm=machine.name,
        roll=ticket.roll,
        starts=ticket.spent,
        counted=host.tpm.counted(ticket.allowance.index) - ticket.allowance.first,
        nonce=secrets.token_bytes(_NONCE_SIZE),
        at=int(time.time()),
    )
    try:
        exceeded = host.client.account(
            build_account(said, agent.open_token(host, credential, credential.release_secret))
        )
    except Refused as error:  # the portal’s own records lack something; no reason for the machine to stay off
        log.warning("the portal does not take the account of %s: %s", machine.name, error)
        return
    host.store.save_ticket(machine.folder, replace(ticket, told=True))
    log.info("told: vm=%s starts_without_the_portal=%d exceeded=%s", machine.name, len(ticket.spent), exceeded)
