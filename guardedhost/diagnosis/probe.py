"""One careful request to the portal, step by step, so that it can be said which step fails.

The agent's own client tells only that it did not work. Each step is bounded, and so is the whole.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from guardedhost.client import Client, portal_url
from guardedhost.diagnosis.trace import PortalSeen
from guardedhost.errors import AgentError

_INFO = "attestation/v1/info"
_RESOLVE, _CONNECT, _ALL = 10.0, 5.0, 30.0
_MOST_ADDRESSES = 4
_ANSWER_LIMIT = 1 << 16
_LONGEST = 200

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    date: datetime | None
    asked_at: datetime
    body: bytes


def look_at(server: str, ca: str) -> PortalSeen:
    """How far a request to `server` gets today, trusting the authorities in the file `ca`, or the usual ones."""
    try:
        parts = urlsplit(portal_url(server))
        host, encrypted = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if encrypted else 80)
    except (AgentError, ValueError) as error:
        return PortalSeen(errors={"url": str(error)})
    seen = PortalSeen(host, port, encrypted, authorities=ca)
    try:
        addresses = _in_time(_RESOLVE, lambda: _resolve(host, port))
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be one
        return _failed(seen, "dns", error)
    seen = replace(seen, addresses=tuple(dict.fromkeys(str(address[4][0]) for address in addresses)))
    try:
        return _in_time(_ALL, lambda: _talk(seen, server, addresses[:_MOST_ADDRESSES]))
    except TimeoutError as error:
        return _failed(seen, "connection", error)


def _talk(seen: PortalSeen, server: str, addresses: list[Any]) -> PortalSeen:
    try:
        connection = _connect(addresses)
    except OSError as error:
        return _failed(seen, "connection", error)
    with connection:
        seen = replace(seen, connected=str(connection.getpeername()[0]))
        try:
            secured = _secured(connection, seen) if seen.encrypted else connection
        except (OSError, ValueError) as error:
            code = error.verify_code if isinstance(error, ssl.SSLCertVerificationError) else 0
            return _explained(_failed(replace(seen, tls_code=code), "tls", error), server, addresses)
        with secured:
            if isinstance(secured, ssl.SSLSocket):
                seen = replace(seen, shown=secured.getpeercert(binary_form=True))
            seen = _answered(seen, secured, server)
    return seen if seen.errors else _with_signers(seen, server)


def _resolve(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _connect(addresses: list[Any]) -> socket.socket:
    """The first address that takes the connection; the last one's error when none does."""
    failure = OSError("the name has no address")
    for family, kind, protocol, _, address in addresses:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_CONNECT)
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def _secured(connection: socket.socket, seen: PortalSeen) -> ssl.SSLSocket:
    """TLS as the agent's client does it: the authorities of the configuration, or those that come with requests."""
    context = ssl.create_default_context(cafile=seen.authorities or DEFAULT_CA_BUNDLE_PATH)
    return context.wrap_socket(connection, server_hostname=seen.host)


def _answered(seen: PortalSeen, connection: socket.socket, server: str) -> PortalSeen:
    try:
        answer = _ask(connection, seen, server)
    except (OSError, http.client.HTTPException) as error:
        return _failed(seen, "info", error)
    seen = replace(seen, date=answer.date, asked_at=answer.asked_at)
    if answer.status != http.client.OK:
        return replace(seen, errors={"info": f"It answered {answer.status} when asked what it is"})
    try:
        fields = json.loads(answer.body)
        fabric, mode, portal_version = (_line(fields[name]) for name in ("fabric", "mode", "version"))
        return replace(seen, fabric=fabric, mode=mode, version=portal_version)
    except (ValueError, KeyError, TypeError, RecursionError):
        return replace(seen, errors={"info": "Its answer is not that of a Guardhouse portal"})


def _ask(connection: socket.socket, seen: PortalSeen, server: str) -> _Answer:
    client = http.client.HTTPConnection(seen.host, seen.port)
    client.sock = connection
    before = datetime.now(UTC)
    client.request("GET", f"{urlsplit(server).path.rstrip('/')}/{_INFO}", headers={"Accept": "application/json"})
    response = client.getresponse()
    asked_at = before + (datetime.now(UTC) - before) / 2
    return _Answer(response.status, _date(response.getheader("Date")), asked_at, response.read(_ANSWER_LIMIT))


def _explained(seen: PortalSeen, server: str, addresses: list[Any]) -> PortalSeen:
    """Look once more, trusting nobody and telling nothing, at the certificate and the clock of whoever answers.

    A host whose clock is wrong takes good certificates for lapsed ones, and this is the only way to tell.
    """
    insecure_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    insecure_context.check_hostname = False
    insecure_context.verify_mode = ssl.CERT_NONE
    try:
        with (
            _connect(addresses) as connection,
            insecure_context.wrap_socket(connection, server_hostname=seen.host) as untrusted,
        ):
            seen = replace(seen, shown=untrusted.getpeercert(binary_form=True))
            answer = _ask(untrusted, seen, server)
    except (OSError, ValueError, http.client.HTTPException):
        return seen
    return replace(seen, date=answer.date, asked_at=answer.asked_at)


def _with_signers(seen: PortalSeen, server: str) -> PortalSeen:
    try:
        return replace(seen, signers=Client(server, seen.authorities).signers())
    except AgentError as error:
        return replace(seen, errors={"signers": str(error)})


def _date(text: str | None) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text or "")
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _line(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
        raise ValueError("no line of text")
    return value


def _failed(seen: PortalSeen, step: str, error: Exception) -> PortalSeen:
    return replace(seen, errors={step: _reason(error)})


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "It did not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"Its certificate does not hold: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _in_time(seconds: float, call: Callable[[], T]) -> T:
    """The outcome of a call, or TimeoutError: resolvers have no limit of their own, nor has a server that drips."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future.result(seconds)
