"""Kerberos mode: a machine account in an approved group of the directory is a host (HGS: admin-trusted attestation).

It says that the domain's administrators have put the machine there, and nothing of what runs on it. Nobody registers:
the first ticket of a member makes its row.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings

from attestation import strangers
from attestation.challenges import NONCE_SIZE, spend
from attestation.core.finding import Finding
from attestation.core.possession import parse_transport_key
from attestation.directory import directory
from attestation.enrolment import approved_as, settled
from attestation.errors import ParseError, Refusal, UnknownAttester
from attestation.kerberos import Caller, Ticket, acceptor, parse_negotiate
from attestation.kerberos_groups import approved
from attestation.models import Attester, Challenge, KerberosGroup, Mode
from attestation.opening import Opening
from attestation.recording import Moment, Outcome, Shown, conclude_shown
from ledger import service as ledger

LONGEST_NAME = 64
NOT_A_MEMBER = Finding(
    code="host_in_no_group",
    substatus="",
    what="The host’s account is in none of the groups of the directory whose hosts may attest.",
    why="Somebody took it out, or the group was retired here; what it had proved before is not so any more.",
    remedy="Put the account into an approved group; it counts from the host’s next logon (klist purge, or a restart).",
)
LEFT = Finding(
    code="host_left_group",
    substatus="",
    what="The host’s account is in none of the groups of the directory any more whose hosts may attest.",
    why="Its ticket still names one, as it was at the last logon; the directory was asked, and knows better.",
    remedy="Put the account back into the group; it counts at the host’s next attestation.",
)
DISABLED = Finding(
    code="account_disabled",
    substatus="",
    what="The host’s account is disabled in the directory.",
    why="Its ticket is of a time when it was not; the directory was asked, and knows better.",
    remedy="Enable the account if the host may come back; it counts at the host’s next attestation.",
)
GONE = Finding(
    code="account_gone",
    substatus="",
    what="The directory has no account with the SID that is in the host’s ticket.",
    why="Somebody deleted it after the ticket was made; one made anew under the same name has another SID.",
    remedy="Join the host to the domain again, and put its account into the group.",
)


@dataclass(frozen=True, slots=True)
class _Membership:
    """The approved groups that an account is in, or why in none; `directory` is the controller that was asked."""

    groups: tuple[KerberosGroup, ...]
    missing: Finding | None = None
    directory: str = ""


def accept_ticket(header: str, body: bytes, *, now: datetime) -> Ticket:
    """Spend the ticket of an Authorization header that was sent with this body, whoever's it is."""
    with _traced("kerberos", now=now):
        return acceptor().accept(parse_negotiate(header), body=body)


def caller_of(ticket: Ticket, *, now: datetime) -> Caller:
    """Return the machine account that a ticket is of; people, services and other realms are refused."""
    with _traced("kerberos", now=now):
        return acceptor().caller(ticket)


@contextmanager
def _traced(subject: str, *, now: datetime) -> Iterator[None]:
    """Let a refusal leave a trace on its way up."""
    try:
        yield
    except Refusal as refusal:
        strangers.refused("ticket.refused", subject, refusal, now=now)
        raise


def appraise_membership(caller: Caller, transport_key: bytes, *, trial: bool, now: datetime) -> Outcome:
    """Certify the transport key of a machine that is in an approved group; record it of one that was and is no more.

    A `trial` earns no certificate and changes nothing of a host, but that one makes the row of a host that is new.
    Raises `UnknownAttester` for a machine that never was in one, and for one that people have rejected or revoked;
    `DirectoryUnavailable` when the directory is to be asked too, and does not answer.
    """
    began = Moment.begun(now)
    with _traced(f"account:{caller.sid}", now=now):
        parse_transport_key(transport_key)
        membership = _membership(caller)
        host = settled(lambda: _attester(caller, membership, now=now))
    shown = _shown(caller, transport_key, membership)
    opening = _opened(host, trial=trial, now=now)
    return conclude_shown(opening, shown, began)


def _membership(caller: Caller) -> _Membership:
    """Return the groups that the ticket names, and where a directory is configured those of them that it names too.

    It is asked before anything is written, so that no transaction waits for it.
    """
    groups = tuple(approved(caller.group_sids).select_related("group"))
    if not groups:
        return _Membership((), NOT_A_MEMBER)
    asked = directory()
    if asked is None:
        return _Membership(groups)
    answer = asked.ask(caller.sid)
    if answer.account is None:
        return _Membership((), GONE, answer.controller)
    if not answer.account.enabled:
        return _Membership((), DISABLED, answer.controller)
    still = tuple(group for group in groups if group.sid in answer.account.group_sids)
    return _Membership(still, None if still else LEFT, answer.controller)


def _shown(caller: Caller, transport_key: bytes, membership: _Membership) -> Shown:
    evidence = {
        "account": f"{caller.account}@{caller.realm}",
        "sid": caller.sid,
        "groups": sorted(group.sid for group in membership.groups),
        "directory": membership.directory,
    }
    return Shown(transport_key, evidence, () if membership.missing is None else (membership.missing,))


def _opened(host: Attester, *, trial: bool, now: datetime) -> Opening:
    """A ticket is its own challenge: it is good once. So the row that every attestation answers is made and spent."""
    challenge = Challenge.objects.create(
        attester=host,
        nonce=secrets.token_bytes(NONCE_SIZE),
        send_event_log=False,
        send_ima_log=False,
        trial=trial,
        created_at=now,
        expires_at=now + settings.CHALLENGE_LIFETIME,
    )
    return spend(challenge.pk, now=now)


def _attester(caller: Caller, membership: _Membership, *, now: datetime) -> Attester:
    known = Attester.objects.filter(mode=Mode.KERBEROS, identity=caller.sid).first()
    if known is not None and known.state not in (Attester.State.PENDING, Attester.State.APPROVED):
        raise UnknownAttester(f"{known.name} was rejected or revoked; it may not attest.")
    if known is None and membership.missing is not None:
        raise UnknownAttester(f"{caller.account}: {membership.missing.what} {membership.missing.remedy}")
    return known or _joined(caller, membership.groups[0], now=now)


def _joined(caller: Caller, group: KerberosGroup, *, now: datetime) -> Attester:
    """Make the row of a new host. Approving its group has approved it, unless another account holds its name."""
    name = _name(caller.account)
    other = approved_as(name, Mode.KERBEROS)
    host = Attester.objects.create(
        name=name,
        mode=Mode.KERBEROS,
        identity=caller.sid,
        group=group.group,
        replaces=other,
        state=Attester.State.APPROVED if other is None else Attester.State.PENDING,
        enrolled_at=now,
        decided_at=now if other is None else None,
        decided_by=f"membership of {group.name}" if other is None else "",
        status="UnauthorizedHost",
        status_at=now,
    )
    detail = {"name": name, "sid": caller.sid, "group": group.name, "replaces": "" if other is None else str(other.pk)}
    ledger.record(actor=host.subject, act="host.joined", subject=host.subject, detail=detail, now=now)
    return host


def _name(account: str) -> str:
    """Return the machine's name: its account's, which ends in a dollar sign, as DNS writes it."""
    name = account.removesuffix("$").lower()
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise ParseError("The account in the ticket has a name that no machine has.")
    return name
