"""What the directory says of a machine account now, and not at its last logon: whether it is enabled, in which groups.

A ticket keeps the groups that it was made with for as long as it lives. Where a directory is configured, each
attestation in Kerberos mode asks it too, and what it does not say counts as no.
"""

import logging
import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Final

import ldap
from django.conf import settings

from attestation.controller import FAILURES, Connection, Controller, Login, Unanswered, said
from attestation.core.sid import parse_sid
from attestation.errors import DirectoryUnavailable, ParseError
from ledger import service as ledger

MOST_KEPT: Final = 4  # connections to one controller that wait for the next question
PAUSE: Final = 5.0  # seconds in which nobody is asked after all were silent: the portal's threads must not all wait
SILENCE_SHOWN: Final = timedelta(minutes=10)
ACCOUNT_DISABLED: Final = 0x2  # of userAccountControl (MS-ADTS 2.2.16)

_ATTRIBUTES: Final = ("objectSid", "userAccountControl", "tokenGroups")
_NUMBER: Final = re.compile(rb"-?[0-9]{1,10}")

log = logging.getLogger(__name__)


class Unreadable(Unanswered):
    """What was said of one account cannot be used; of others it may be."""


_OF_ONE_ACCOUNT: Final = (Unreadable, ParseError)


@dataclass(frozen=True, slots=True)
class Account:
    """A machine account as a controller has it now, with nested groups flattened."""

    enabled: bool
    group_sids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one controller says; `account` is None where it has no such account."""

    controller: str
    account: Account | None


class Directory:
    """The controllers of one domain: whichever answered last is asked first, and the next one when it fails."""

    def __init__(self, controllers: tuple[Controller, ...], login: Login) -> None:
        self._login = login
        self._controllers = controllers
        self._silent_until = 0.0
        self._kept: dict[Controller, deque[Connection]] = {each: deque() for each in controllers}

    def ask(self, sid: str) -> Answer:
        """Ask for the account with this SID. Raises `DirectoryUnavailable` when no controller answers."""
        failures = []
        for controller in self._asked_now():
            try:
                answer = Answer(controller.name, self._asked(controller, sid))
            except FAILURES as error:
                log.error("directory: %s has given no answer: %s", controller.name, said(error))
                failures.append(error)
            else:
                self._controllers = (controller, *(each for each in self._controllers if each != controller))
                return answer
        if failures and not any(isinstance(each, _OF_ONE_ACCOUNT) for each in failures):
            self._silent_until = time.monotonic() + PAUSE
        raise DirectoryUnavailable(
            "No domain controller has said whether this host’s account is still in its group, so nothing is decided."
            " The host tries again by itself; why none of them answers is in the log of this node."
        )

    def close(self) -> None:
        """End the connections that wait for the next question."""
        for controller in self._kept:
            self._end(controller)

    def _asked_now(self) -> Sequence[Controller]:
        return self._controllers if time.monotonic() >= self._silent_until else ()

    def _asked(self, controller: Controller, sid: str) -> Account | None:
        """Ask over a connection that waits; when it turns out to have ended, over a new one."""
        try:
            kept = self._kept[controller].pop()
        except IndexError:
            return self._asked_on(Connection(controller, self._login), sid)
        try:
            return self._asked_on(kept, sid)
        except ldap.LDAPError as error:
            self._end(controller)  # the others will hardly be better
            if not isinstance(error, ldap.SERVER_DOWN):  # one that is silent would be waited for twice
                raise
            log.info("directory: a connection to %s has ended: %s", controller.name, said(error))
        return self._asked_on(Connection(controller, self._login), sid)

    def _asked_on(self, connection: Connection, sid: str) -> Account | None:
        found = connection.find(f"<SID={sid}>", _ATTRIBUTES)
        kept = self._kept[connection.controller]
        if connection.is_fresh and len(kept) < MOST_KEPT:
            kept.append(connection)
        else:
            connection.close()
        return None if found is None else _account(found, sid)

    def _end(self, controller: Controller) -> None:
        kept = self._kept[controller]
        while kept:
            kept.pop().close()


def directory() -> Directory | None:
    """Return the directory that this node's settings name; None where tickets count as they are."""
    if not settings.DIRECTORY:
        return None
    return _of_this_process(
        tuple(settings.DIRECTORY), settings.DIRECTORY_ACCOUNT, settings.KERBEROS_REALM, settings.KERBEROS_KEYTAB
    )


def controllers() -> tuple[str, ...]:
    """Return the names of the controllers that each attestation in Kerberos mode asks; none where tickets count."""
    return tuple(Controller.named(url).name for url in settings.DIRECTORY)


def directory_silent(*, now: datetime) -> datetime | None:
    """Return when a host was last refused for want of an answer, on whichever node, in the last ten minutes."""
    told = ledger.leaves(act_prefix="ticket.refused").filter(at__gt=now - SILENCE_SHOWN)
    return told.filter(detail__code=DirectoryUnavailable.code).values_list("at", flat=True).first()


@cache
def _of_this_process(urls: tuple[str, ...], account: str, realm: str, keytab: str) -> Directory:
    return Directory(tuple(Controller.named(url) for url in urls), Login(account, realm, keytab))


def _account(attributes: Mapping[str, Sequence[bytes]], sid: str) -> Account:
    """Return what the attributes say. Every account is in a group: one that is in none is hidden from this service."""
    control, groups = attributes.get("useraccountcontrol", ()), attributes.get("tokengroups", ())
    if [parse_sid(value) for value in attributes.get("objectsid", ())] != [sid]:
        raise Unreadable("it has sent another account than the one that was asked for")
    if len(control) != 1 or not _NUMBER.fullmatch(control[0]) or not groups:
        raise Unreadable("it does not let this service’s account read userAccountControl and tokenGroups")
    return Account(not int(control[0]) & ACCOUNT_DISABLED, frozenset(parse_sid(value) for value in groups))
