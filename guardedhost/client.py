"""The wire to the portal: the agent pushes, nothing listens on the host.

TLS is required, redirects are not followed and the environment (proxies, .netrc) is not asked: where evidence goes and
who answers is what the operator configured, nothing else. Plain HTTP is for loopback addresses only.
"""

import ipaddress
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests

from attestation.core.base64url import from_b64u, to_b64u
from guardedhost.errors import AgentError, Refused, Unproven, Unreachable
from guardedhost.wire import (
    Activation,
    Challenge,
    Enrolment,
    Held,
    KeyOffer,
    Release,
    Verdict,
    malformed,
    read_activation,
    read_challenge,
    read_enrolment,
    read_held,
    read_key_offer,
    read_release,
    read_verdict,
)

_TIMEOUT = (5.0, 60.0)  # connect, read
_ANSWER_LIMIT = 4 << 20
_TICKET_REFUSED = 401
_TRY_LATER = frozenset({429, 500, 502, 503, 504})

T = TypeVar("T")


class Client:
    """One portal."""

    def __init__(self, server: str, ca: str = "") -> None:
        self._base = portal_url(server)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = ca or True
        self._session.headers["Accept"] = "application/json, application/problem+json"

    def enrol(self, name: str, *, ek_public: bytes, ek_certificate: bytes | None, ak_public: bytes) -> Enrolment:
        body = {"name": name, "ek_public": to_b64u(ek_public), "ak_public": to_b64u(ak_public)}
        if ek_certificate:
            body["ek_certificate"] = to_b64u(ek_certificate)
        return self._post("attestation/v1/enrolments", body, read_enrolment)

    def activate(self, enrolment: str, secret: bytes) -> Activation:
        return self._post(
            f"attestation/v1/enrolments/{enrolment}/activation", {"secret": to_b64u(secret)}, read_activation
        )

    def mode(self) -> str:
        """How hosts attest to this fabric now."""
        return self._call("GET", "attestation/v1/info", None, lambda body: str(body["mode"]))

    def offer_host_key(self, name: str, host_key: bytes) -> KeyOffer:
        return self._post("attestation/v1/host-keys", {"name": name, "host_key": to_b64u(host_key)}, read_key_offer)

    def prove_host_key(self, offer: KeyOffer, proof: str) -> Activation:
        body = {"nonce": to_b64u(offer.nonce), "proof": proof}
        return self._post(f"attestation/v1/host-keys/{offer.id}/proof", body, read_activation)

    def possession(self, challenge: str, proof: str) -> Verdict:
        return self._post(f"attestation/v1/challenges/{challenge}/possession", {"proof": proof}, read_verdict)

    def membership(self, body: bytes, authorization: str, require_proof: Callable[[str], None]) -> Verdict:
        """Attest by a Kerberos ticket that is bound to `body`; what is answered counts once its sender is proved.

        `require_proof` raises `Unproven` for an answer whose WWW-Authenticate header does not prove the portal. Only
        who has opened the ticket can prove anything, so a refusal of the ticket itself is heard without.
        """
        headers = {"Authorization": authorization, "Content-Type": "application/json"}
        path = "attestation/v1/kerberos"
        status, answer, answered = self._exchange("POST", path, data=body, headers=headers)
        proof = answered.get("WWW-Authenticate", "")
        if status >= 400:
            raise _proven(_refusal(status, answer), status, lambda: require_proof(proof))
        require_proof(proof)
        return _read(read_verdict, answer, path)

    def challenge(
        self, attester: str, event_log_sha256: str = "", *, boot: int | None = None, trial: bool
    ) -> Challenge:
        """Ask for a nonce. What answers a `trial` gets a verdict and no certificate, and changes nothing there."""
        body = {"attester": attester, "event_log_sha256": event_log_sha256, "boot": boot, "trial": trial}
        challenge = self._post("attestation/v1/challenges", body, read_challenge)
        if challenge.trial is not trial:
            raise malformed("another kind of challenge than was asked for")
        return challenge

    def evidence(self, challenge: str, evidence: Mapping[str, Any]) -> Verdict:
        return self._post(f"attestation/v1/challenges/{challenge}/evidence", evidence, read_verdict)

    def release(self, request: str) -> Release:
        return self._post("kps/v1/releases", {"request": request}, read_release)

    def give_back(self, said: str) -> bool:
        """Tell the portal that a machine has stopped; False when it knew of no key of it on this host."""
        return self._post("kps/v1/returns", {"message": said}, lambda body: body["returned"] is True)

    def account(self, said: str) -> bool:
        """Tell the portal of starts without it; True when there were more of them than the owner allows, or later."""
        return self._post("kps/v1/offline-starts", {"message": said}, lambda body: body["exceeded"] is True)

    def protector(self, question: str) -> Held:
        """Ask, as a VM's owner, what this fabric has of its key protector."""
        return self._post("kps/v1/protectors", {"question": question}, read_held)

    def bring(self, links: Sequence[str]) -> int:
        """Bring an owner's newer chain; return the serial that is in force then."""
        return self._post("kps/v1/chains", {"chain": list(links)}, lambda body: int(body["serial"]))

    def approve(self, approval: str) -> datetime:
        """Bring an owner's yes to one release; return until when it counts."""
        return self._post(
            "kps/v1/approvals", {"approval": approval}, lambda body: datetime.fromisoformat(body["expires_at"])
        )

    def signers(self) -> tuple[bytes, ...]:
        """The certificates that sign health certificates."""
        return self._call(
            "GET",
            "attestation/v1/signing-certificates",
            None,
            lambda body: tuple(from_b64u(entry["der"]) for entry in body["certificates"]),
        )

    def _post(self, path: str, body: Mapping[str, Any], read: Callable[[Mapping[str, Any]], T]) -> T:
        return self._call("POST", path, body, read)

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, read: Callable[[Mapping[str, Any]], T]
    ) -> T:
        status, answer, _ = self._exchange(method, path, json=body)
        if status >= 400:
            raise _refusal(status, answer)
        return _read(read, answer, path)

    def _exchange(self, method: str, path: str, **sent: Any) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        try:
            with self._session.request(
                method, f"{self._base}/{path}", timeout=_TIMEOUT, allow_redirects=False, stream=True, **sent
            ) as response:
                if 300 <= response.status_code < 400:
                    raise malformed(f"{response.status_code} to {path}")
                return response.status_code, _object(response.status_code, _bounded(response)), response.headers
        except requests.RequestException as error:
            raise Unreachable(f"The portal at {self._base} cannot be reached: {_reason(error)}.") from error
        except OSError as error:
            raise AgentError(f"The file of trusted authorities cannot be read: {error}.") from error


def _read(read: Callable[[Mapping[str, Any]], T], answer: Mapping[str, Any], path: str) -> T:
    try:
        return read(answer)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise malformed(f"to {path}") from error


def portal_url(server: str) -> str:
    """The base URL, if what counts may travel there: https, or http to this machine."""
    parts = urlsplit(server)
    if not parts.hostname or parts.query or parts.fragment or parts.username or parts.password:
        raise AgentError(f"{server} is not the URL of a portal.")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise AgentError(f"{server}: the portal must be reached by https; http is for loopback addresses only.")
    return server.rstrip("/")


def _bounded(response: requests.Response) -> bytes:
    content = b""
    for chunk in response.iter_content(1 << 16):
        content += chunk
        if len(content) > _ANSWER_LIMIT:
            raise malformed("too large")
    return content


def _object(status: int, content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        return answer
    if status in _TRY_LATER:
        return {}
    raise malformed(f"{status}, not JSON")


def _refusal(status: int, answer: Mapping[str, Any]) -> AgentError:
    detail = str(answer.get("detail") or answer.get("title") or f"The portal answered {status}.")
    if status in _TRY_LATER:
        return Unreachable(f"The portal cannot answer now ({status}): {detail}")
    return Refused(str(answer.get("code", "refused")), detail)


def _proven(refusal: AgentError, status: int, require_proof: Callable[[], None]) -> AgentError:
    """Return the refusal, if it can be the portal's."""
    if status in _TRY_LATER:
        return refusal
    if status == _TICKET_REFUSED and isinstance(refusal, Refused):
        return Refused(refusal.code, f"{refusal.detail} As no ticket was accepted, TLS alone vouches for who says so.")
    try:
        require_proof()
    except Unproven as error:
        return Unproven(f"{error} It refuses this host: {refusal}.")
    return refusal


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # RFC 6761, 6.3; any other name may be pointed elsewhere


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return f"its certificate is not trusted ({error})"
    if isinstance(error, requests.Timeout):
        return "it did not answer in time"
    if isinstance(error, requests.ConnectionError):
        return "nobody answers there"
    return type(error).__name__
