"""A conversation with one domain controller: LDAP by OpenLDAP's library, signed and sealed by Kerberos, or none at all.

The controller has to prove that it is the one that was named, and nobody between can read or change what is said. It
may still be slow or gone: no answer is waited for longer than is said here.
"""

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from struct import pack
from typing import Final

import krb5
import ldap
from gssapi.raw.ext_krb5 import krb5_ccache_name
from ldap.ldapobject import SimpleLDAPObject
from ldap.sasl import gssapi

from attestation.core.words import printable
from attestation.errors import ParseError

PORT: Final = 389
SECONDS: Final = 2.0  # to connect, and again for each answer
KEPT: Final = 300.0  # how long a connection is used; controllers end idle ones after fifteen minutes
LEAST_STRENGTH: Final = 128  # bits; RC4 and DES have less
AES: Final = (20, 19, 18, 17)  # RFC 8009 and 3962; whatever the node's krb5.conf likes better, no key is of RC4

_NOTHING: Final = ("1.1",)  # RFC 4511, section 4.5.1.8
_ANY: Final = "(objectClass=*)"


class Unanswered(Exception):
    """A controller has said something, and it is no answer; or nobody could ask it."""


# What a controller, or whoever is in its place, can make happen here.
FAILURES: Final = (ldap.LDAPError, krb5.Krb5Error, ParseError, Unanswered)


@dataclass(frozen=True, slots=True)
class Controller:
    """A domain controller, by the name that its Kerberos key is for."""

    name: str
    port: int = PORT

    @classmethod
    def named(cls, url: str) -> "Controller":
        """Read a URL whose form `fabric.settings` has checked."""
        name, _, port = url.removeprefix("ldap://").partition(":")
        return cls(name.lower(), int(port or PORT))


@dataclass(frozen=True, slots=True)
class Login:
    """Whom the controllers know this service as."""

    account: str
    realm: str
    keytab: str
    _turn: threading.Lock = field(default_factory=threading.Lock, compare=False)

    @contextmanager
    def at(self, controller: Controller) -> Iterator[None]:
        """Give this thread's GSS-API a ticket for this controller, and for nothing else.

        There is no ticket-granting ticket beside it: libkrb5 may look the name of a host up, and whoever answers for
        DNS could then have a ticket made for a machine of theirs. One thread at a time: a realm whose KDCs are all
        silent makes libkrb5 wait for half a minute, and must not make everybody here wait for that.
        """
        if not self._turn.acquire(timeout=SECONDS):
            raise Unanswered("this node is still waiting for a KDC")
        try:
            with self._cache(controller) as name:
                krb5_ccache_name(name)
                try:
                    yield
                finally:
                    krb5_ccache_name(None)
        finally:
            self._turn.release()

    @contextmanager
    def _cache(self, controller: Controller) -> Iterator[bytes]:
        context = krb5.init_context()
        client = krb5.parse_name_flags(context, f"{self.account}@{self.realm}".encode())
        options = krb5.get_init_creds_opt_alloc(context)
        krb5.get_init_creds_opt_set_etype_list(options, AES)
        ticket = krb5.get_init_creds_keytab(
            context,
            client,
            options,
            krb5.kt_resolve(context, f"FILE:{self.keytab}".encode()),
            in_tkt_service=f"ldap/{controller.name}@{self.realm}".encode(),
        )
        cache = krb5.cc_new_unique(context, b"MEMORY")
        try:
            krb5.cc_initialize(context, cache, client)
            krb5.cc_store_cred(context, cache, ticket)
            yield b"MEMORY:" + (cache.name or b"")
        finally:
            krb5.cc_destroy(context, cache)


class Connection:
    """One connection to a controller that both sides have proved themselves on, used by one request at a time.

    Whatever goes wrong on it raises one of `FAILURES`, and then it is good for nothing but to be closed.
    """

    def __init__(self, controller: Controller, login: Login) -> None:
        self.controller = controller
        self._usable_until = time.monotonic() + KEPT
        self._ldap = _configured(controller)
        with self._closed_on_failure():
            self._read("", _NOTHING)  # a controller that is gone is not worth a ticket
            with login.at(controller):
                self._ldap.sasl_interactive_bind_s("", gssapi())
            strength = self._ldap.get_option(ldap.OPT_X_SASL_SSF)
            if strength < LEAST_STRENGTH:
                raise Unanswered(f"it would encrypt with {strength} bits; {LEAST_STRENGTH} are the least")

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() < self._usable_until

    def find(self, name: str, attributes: Sequence[str]) -> Mapping[str, Sequence[bytes]] | None:
        """Return these attributes, in lower case, of the object of that name; None where there is no such object."""
        with self._closed_on_failure():
            try:
                found = self._read(name, attributes)
            except ldap.NO_SUCH_OBJECT:
                return None
            if len(found) != 1:
                raise Unanswered(f"it has sent {len(found)} objects where one was asked for")
            ((_, values),) = found
            return {attribute.lower(): value for attribute, value in values.items()}

    def close(self) -> None:
        self._ldap.unbind_ext_s()

    def _read(self, name: str, attributes: Sequence[str]) -> Sequence[tuple[str, Mapping[str, Sequence[bytes]]]]:
        """Return the object of that name, and anything else that the controller sends, but no referrals."""
        number = self._ldap.search_ext(name, ldap.SCOPE_BASE, _ANY, list(attributes), timeout=SECONDS, sizelimit=1)
        _bound_waits(self._ldap.fileno())
        _, found = self._ldap.result(number, all=1, timeout=SECONDS)
        return [(dn, values) for dn, values in found if dn is not None]

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise


def _configured(controller: Controller) -> SimpleLDAPObject:
    """Return a conversation that is not begun, in which nothing is left to the node's ldap.conf that matters."""
    made = ldap.initialize(f"ldap://{controller.name}:{controller.port}")
    made.set_option(ldap.OPT_PROTOCOL_VERSION, ldap.VERSION3)
    made.set_option(ldap.OPT_REFERRALS, 0)
    made.set_option(ldap.OPT_NETWORK_TIMEOUT, SECONDS)
    made.set_option(ldap.OPT_TIMEOUT, SECONDS)
    made.set_option(ldap.OPT_X_SASL_NOCANON, 1)
    made.set_option(ldap.OPT_X_SASL_SECPROPS, f"noanonymous,noplain,minssf={LEAST_STRENGTH}")
    return made


def _bound_waits(connected: int) -> None:
    """Let no half of a message be waited for: OpenLDAP counts the time between messages, and not that within one."""
    with socket.fromfd(connected, socket.AF_INET, socket.SOCK_STREAM) as same:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            same.setsockopt(socket.SOL_SOCKET, option, pack("@ll", int(SECONDS), int(SECONDS % 1 * 1_000_000)))


def said(error: Exception) -> str:
    """Put into words for the log what has failed."""
    if isinstance(error, ldap.TIMEOUT):
        return f"it has not answered within {SECONDS:g} seconds"
    if isinstance(error, ldap.LDAPError) and error.args and isinstance(error.args[0], dict):
        told = error.args[0]
        return printable(f"{told.get('desc', '')} {told.get('info', '')}".strip())
    return printable(str(error))
