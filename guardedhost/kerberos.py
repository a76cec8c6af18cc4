"""Kerberos mode on the host: its machine account asks for a ticket that is good for one request to one portal.

Only this module needs libkrb5, so it is imported when a fabric asks for this mode and not before.
"""

import base64
import hashlib
import os
from dataclasses import dataclass

import gssapi
from gssapi.raw import ChannelBindings
from gssapi.raw.misc import GSSError

from attestation.core.words import printable
from guardedhost.errors import AgentError, Unproven

_MUTUAL = gssapi.RequirementFlag.mutual_authentication
_SPNEGO = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
_SCHEME = "Negotiate "


@dataclass(frozen=True, slots=True)
class Account:
    """The machine account: its keytab, and its principal, "" for the keytab's first."""

    keytab: str
    principal: str = ""


class Conversation:
    """One token to the portal, and its answer, which proves that the portal is the service that was asked for."""

    def __init__(self, account: Account, host: str, body: bytes) -> None:
        """Ask the KDC for a ticket to HTTP@`host`, bound to this very `body` (RFC 4121, 4.1.1.2)."""
        bound = ChannelBindings(application_data=hashlib.sha256(body).digest())
        try:
            self._context = gssapi.SecurityContext(
                name=gssapi.Name(f"HTTP@{host}", gssapi.NameType.hostbased_service),
                creds=_credentials(account),
                mech=_SPNEGO,
                usage="initiate",
                flags=_MUTUAL,
                channel_bindings=bound,
            )
            self._context.__DEFER_STEP_ERRORS__ = False  # type: ignore[attr-defined]  # not in its stubs
            token = self._context.step()
        except GSSError as error:
            raise AgentError(f"The domain gave no ticket for HTTP@{host}: {_said(error)}.") from error
        if token is None:
            raise AgentError(f"The domain gave no ticket for HTTP@{host}.")
        self.header = _SCHEME + base64.b64encode(token).decode()

    def require_proof(self, header: str) -> None:
        """Raise `Unproven` unless the portal's answer proves that it has the service's key."""
        if not self._proved(header):
            raise Unproven("What answers there has not proved that it is the portal's Kerberos service.")

    def _proved(self, header: str) -> bool:
        scheme, _, text = header.partition(" ")
        if scheme.lower() != _SCHEME.strip().lower():
            return False
        try:
            self._context.step(base64.b64decode(text, validate=True))
            return self._context.complete and _MUTUAL in self._context.actual_flags
        except (ValueError, GSSError):
            return False


def _credentials(account: Account) -> gssapi.Credentials:
    """Log the machine in; its tickets stay in this process."""
    name = gssapi.Name(account.principal, gssapi.NameType.kerberos_principal) if account.principal else None
    store: dict[bytes | str, bytes | str] = {
        "client_keytab": f"FILE:{account.keytab}",
        "ccache": f"MEMORY:{os.urandom(8).hex()}",
    }
    return gssapi.Credentials(name=name, usage="initiate", store=store)


def _said(error: GSSError) -> str:
    return printable(str(error.gen_message()))
