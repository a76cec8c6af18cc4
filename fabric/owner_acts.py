"""What a tenant's owners do about a machine or shielding data: bring a newer statement, answer a host, deny a key."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from django.contrib.auth.models import User

from attestation.errors import NotAllowed, Refusal
from fabric.models import ShieldingData, VirtualMachine
from fabric.tenancy import speaks_for
from kps import service as kps
from kps.core import jose
from kps.core.chain import VerifiedChain, verify_chain
from kps.core.protector import PROTECTOR_LIMIT
from kps.core.statement_changes import StatementChange, changes
from kps.errors import ApprovalUnknown


class OtherProtector(Refusal):
    """An owner's statement about another key protector than that whose page it was brought to."""

    code: ClassVar[str] = "other_protector"
    status: ClassVar[int] = 422


class StatementOvertaken(Refusal):
    """Another statement came into force between the look at what a newer one changes and the act."""

    code: ClassVar[str] = "statement_overtaken"
    status: ClassVar[int] = 409


@dataclass(frozen=True, slots=True)
class Brought:
    """A newer statement beside the one in force; nothing of it holds yet."""

    before: VerifiedChain
    after: VerifiedChain
    changes: Sequence[StatementChange]
    named: bool  # whether it names this fabric


def examine(about: VirtualMachine | ShieldingData, content: bytes, *, by: User, now: datetime) -> Brought:
    """Return what a newer statement of the owner's would change, after checking every signature in it.

    Raises `MalformedProtector`, `ProtectorRefused`, `OtherProtector`, `ChainUnknown` or `ChainNotNewer`.
    """
    _require(by, about)
    document = _chain_in(about, content)
    before, after = kps.examine_chain(document, by=_actor(by), now=now)
    ours = {pair.fingerprint for pair in kps.pairs()}
    named = any(each.fingerprint in ours for each in after.guardians)
    return Brought(before, after, changes(before.statement, after.statement), named)


def bring(
    about: VirtualMachine | ShieldingData, content: bytes, *, seen: int, by: User, now: datetime
) -> VerifiedChain:
    """Let a newer statement hold; `seen` is the serial of the one that its changes were shown against."""
    _require(by, about)
    document = _chain_in(about, content)
    before, _ = kps.examine_chain(document, by=_actor(by), now=now)
    if before.statement.serial != seen:
        raise StatementOvertaken(
            f"Statement {before.statement.serial} came into force meanwhile, so what this one changes is shown anew."
        )
    return kps.take_chain(document, by=_actor(by), now=now)


def waiting(about: VirtualMachine | ShieldingData, approval_id: UUID, *, now: datetime) -> kps.ReleaseApproval:
    """Return a release of this very key that waits for its owner; raise `ApprovalUnknown` for any other."""
    owner, protector_id = about.key
    waiting = kps.pending(owner_fingerprint=owner, now=now).filter(record__protector_id=protector_id)
    found = waiting.filter(pk=approval_id).first()
    if found is None:
        raise ApprovalUnknown("No release waits for this: it was decided already, or the host gave up a day ago.")
    return found


def answer(
    about: VirtualMachine | ShieldingData, approval_id: UUID, *, approve: bool, reason: str, by: User, now: datetime
) -> kps.ReleaseApproval:
    """Give or decline the owner's yes to one start of a machine, or to the making of one from shielding data.

    Raises `ApprovalUnknown`, or `ApprovalNeedsKey` where the owner's policy is not content with a click.
    """
    _require(by, about)
    asked, (owner, _) = waiting(about, approval_id, now=now), about.key
    return kps.decide_in_portal(
        asked.pk, owner_fingerprint=owner, approve=approve, actor=_actor(by), reason=reason, now=now
    )


def deny(machine: VirtualMachine, *, reason: str, by: User, now: datetime) -> None:
    """Refuse this machine's key to every host from now on. Raises `DenialUnchanged`."""
    _require(by, machine)
    kps.deny_by_owner(*machine.key, actor=_actor(by), reason=reason, now=now)


def allow(machine: VirtualMachine, *, reason: str, by: User, now: datetime) -> None:
    """Take such a denial back; one by the fabric's people stays. Raises `DenialUnchanged`."""
    _require(by, machine)
    kps.allow_by_owner(*machine.key, actor=_actor(by), reason=reason, now=now)


def _chain_in(about: VirtualMachine | ShieldingData, content: bytes) -> jose.Json:
    """Take a chain's file, a key protector or a VM's state, of which only the chain is looked at."""
    found = jose.read_json(content, limit=PROTECTOR_LIMIT)
    if isinstance(found, dict) and found.keys() == {"protector", "secrets"}:
        found = found["protector"]
    links = found.get("chain") if isinstance(found, dict) else None
    if verify_chain(links).subject != about.subject:
        raise OtherProtector(
            f"This statement is about another key protector, or of another owner. {about.name} has the key protector"
            f" {about.protector_id} of the owner {about.key[0][:16]}…"
        )
    return {"chain": links}


def _require(by: User, about: VirtualMachine | ShieldingData) -> None:
    if not speaks_for(by, about.tenant):
        raise NotAllowed("Only an owner of this tenant decides about its machines.")


def _actor(by: User) -> str:
    return f"user:{by.get_username()}"
