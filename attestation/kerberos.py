"""Who calls, by Kerberos (RFC 4120 and 4121): one ticket is accepted for one request, in one leg, and never again.

Nothing of a ticket is believed but what MIT's library has verified, and of that only what an Active Directory's KDC
signed: the SIDs of a machine account and of its groups. What the library leaves to its caller is insisted on here: that
the mechanism is Kerberos, that the answer proves this service too, and that the ticket was sent for this very request.
"""

import base64
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gssapi
from django.conf import settings
from gssapi.exceptions import BadChannelBindingsError
from gssapi.raw import ChannelBindings
from gssapi.raw.ext_rfc6680 import get_name_attribute, inquire_name
from gssapi.raw.misc import GSSError

from attestation.core.pac import LogonInfo, parse_logon_info
from attestation.core.words import printable
from attestation.errors import (
    ForeignRealm,
    GroupsNotProven,
    KerberosNotSetUp,
    NotAMachine,
    TicketDelegated,
    TicketNotBound,
    TicketRefused,
)

TOKEN_LIMIT: Final = 65_535  # the most that Windows makes of a ticket (MaxTokenSize)
LOGON_INFO: Final = b"urn:mspac:logon-info"
DELEGATION_INFO: Final = b"urn:mspac:delegation-info"
SCHEME: Final = "Negotiate"

_PRINCIPAL: Final = gssapi.NameType.kerberos_principal
_BOUND: Final = gssapi.RequirementFlag.channel_bound
_MUTUAL: Final = gssapi.RequirementFlag.mutual_authentication

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket that was accepted, and so is spent, whoever's it is: the name in it, and what proves this service.

    `reply` is for whoever sent the ticket, welcome or not: by it a refusal too is known to come from here.
    """

    name: gssapi.Name
    reply: bytes


@dataclass(frozen=True, slots=True)
class Caller:
    """A machine account as its KDC vouches for it."""

    account: str
    realm: str
    sid: str
    group_sids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Acceptor:
    """The service that tickets have to be for: its keys, its name as in HTTP@host, its realm, what it has seen."""

    keytab: Path
    service: str
    realm: str
    replay_cache: Path

    def accept(self, token: bytes, *, body: bytes) -> Ticket:
        """Return the ticket in a `token` that was sent with this `body`, or raise a refusal.

        The token is spent by the look at it: the replay cache has it before anything else is decided.
        """
        if not 0 < len(token) <= TOKEN_LIMIT:
            raise TicketRefused(f"The Kerberos token has {len(token)} bytes; 1 to {TOKEN_LIMIT} are accepted.")
        credentials = self._credentials()
        try:
            context, reply = _step(credentials, token, body)
            return Ticket(context.initiator_name, reply)
        except BadChannelBindingsError as error:
            raise TicketNotBound("The Kerberos ticket was sent for another request than this one.") from error
        except GSSError as error:
            raise _refused(error) from error

    def caller(self, ticket: Ticket) -> Caller:
        """Return the machine of this realm that a ticket is of, or raise a refusal."""
        try:
            self._require_realm(str(ticket.name))
            _require_in_person(ticket.name)
            info = _logon_info(ticket.name)
        except GSSError as error:
            raise _refused(error) from error
        if not info.is_machine:
            raise NotAMachine(f"{printable(info.account)} is no machine account; only a host’s account counts.")
        return Caller(info.account, self.realm, info.sid, info.enabled_sids)

    def _credentials(self) -> gssapi.Credentials:
        """Read the keytab anew: keys that were added after a change of the password count at once.

        The name is a whole principal, so that no DNS server has a say in it; the cache is named, so that nothing in the
        environment can name `none:`.
        """
        host = self.service.replace("@", "/", 1)
        try:
            return gssapi.Credentials(
                name=gssapi.Name(f"{host}@{self.realm}", _PRINCIPAL),
                usage="accept",
                store={"keytab": f"FILE:{self.keytab}", "rcache": f"file2:{self.replay_cache}"},
            )
        except GSSError as error:
            log.error("kerberos: the keytab %s gives no key for %s: %s", self.keytab, self.service, _said(error))
            raise KerberosNotSetUp(
                "This node cannot read a key for its Kerberos service; which one, and why, is in its log."
            ) from error

    def _require_realm(self, principal: str) -> None:
        """Take nobody of a trusted realm: whoever runs that one could put the SIDs of this one into a ticket.

        A name with an escaped character could hide where its realm begins, and no machine account has one.
        """
        _, _, realm = principal.partition("@")
        if realm != self.realm or "\\" in principal:
            raise ForeignRealm(f"{printable(principal)} is not of the realm {self.realm}, whose hosts attest here.")


def acceptor() -> Acceptor:
    """Return the acceptor that this node's settings describe."""
    if not settings.KERBEROS_KEYTAB:
        raise KerberosNotSetUp("This node has no Kerberos keytab; GUARDHOUSE_KERBEROS_KEYTAB names it.")
    return Acceptor(
        keytab=Path(settings.KERBEROS_KEYTAB),
        service=settings.KERBEROS_SERVICE,
        realm=settings.KERBEROS_REALM,
        replay_cache=settings.KERBEROS_REPLAY_CACHE,
    )


def parse_negotiate(header: str) -> bytes:
    """Return the token of an Authorization header (RFC 4559, section 4.2)."""
    scheme, _, text = header.partition(" ")
    if scheme.lower() != SCHEME.lower() or not text:
        raise TicketRefused("A Kerberos ticket is needed, as “Authorization: Negotiate” and a token in base64.")
    if len(text) > 4 * TOKEN_LIMIT // 3 + 4:
        raise TicketRefused(f"The Kerberos token is larger than {TOKEN_LIMIT} bytes.")
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError as error:
        raise TicketRefused("The Kerberos token is no base64.") from error


def written_negotiate(reply: bytes) -> str:
    """Return the WWW-Authenticate header that proves this service to the caller."""
    return f"{SCHEME} {base64.b64encode(reply).decode()}"


def bindings(body: bytes) -> ChannelBindings:
    """Bind a ticket to the request that it is sent with, whoever carries it.

    Kerberos puts an MD5 of this into the authenticator (RFC 4121, section 4.1.1.2), so another body would have to have
    the digest of a given one, and for MD5 too that is out of reach.
    """
    return ChannelBindings(application_data=hashlib.sha256(body).digest())


def _step(credentials: gssapi.Credentials, token: bytes, body: bytes) -> tuple[gssapi.SecurityContext, bytes]:
    """Accept the token and return the context with the reply to it."""
    context = gssapi.SecurityContext(creds=credentials, usage="accept", channel_bindings=bindings(body))
    # Otherwise a refusal would come out of the first attribute that is looked at, wherever that is.
    context.__DEFER_STEP_ERRORS__ = False  # type: ignore[attr-defined]  # not in its stubs
    reply = context.step(token)
    if not context.complete or reply is None:
        raise TicketRefused("The Kerberos token opens a conversation; one token has to be enough.")
    if context.mech != gssapi.MechType.kerberos:
        raise TicketRefused("The token is of another mechanism than Kerberos.")
    if _MUTUAL not in context.actual_flags:
        raise TicketRefused("The Kerberos token does not ask this service to prove itself, as a host’s has to.")
    if _BOUND not in context.actual_flags:
        raise TicketNotBound("The Kerberos ticket is not bound to its request; channel bindings are needed.")
    return context, reply


def _require_in_person(name: gssapi.Name) -> None:
    """Refuse a service that the domain lets act for others (S4U2Proxy): it names the host, and is not the host.

    The KDC writes down who acts (MS-PAC 2.9). That it has is enough; whether the checksum holds is no matter here.
    """
    if DELEGATION_INFO in (inquire_name(name).attrs or ()):
        raise TicketDelegated(f"Another service sent this ticket for {printable(str(name))}; a host attests itself.")


def _logon_info(name: gssapi.Name) -> LogonInfo:
    """Return what the KDC signed of the account.

    It is fetched, and never looked for among the keys: those of a PAC whose checksum is wrong are listed all the same.
    """
    try:
        found = get_name_attribute(name, LOGON_INFO)
    except GSSError as error:
        raise GroupsNotProven(_NO_PAC) from error
    if not found.authenticated or len(found.values) != 1:
        raise GroupsNotProven(_NO_PAC)
    (value,) = found.values
    return parse_logon_info(value)


_NO_PAC: Final = (
    "The Kerberos ticket has no groups that an Active Directory vouches for. Its KDC has to put a PAC into tickets for"
    " this service, and to sign it with the key that is in this node’s keytab."
)


def _refused(error: GSSError) -> TicketRefused:
    """By message and not by number: the numbers are given out anew in each process, in the order of first use."""
    log.info("kerberos: a ticket was refused: %s", _said(error))
    return TicketRefused(
        "The Kerberos ticket was not accepted; why is in the log of this node. Often a clock is off by more than five"
        " minutes, or the service’s keytab is older than its password."
    )


def _said(error: GSSError) -> str:
    return printable(str(error.gen_message()))
