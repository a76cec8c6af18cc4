"""The shapes of what the portal answers. The portal is authenticated by TLS; its answers are still read strictly."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from attestation.core.base64url import from_b64u
from attestation.core.finding import Finding
from guardedhost.errors import Unreachable

# Shorter and the quote may not be fresh; longer and it is no nonce but something the portal wants signed.
_NONCE_SIZES = range(16, 65)
_PCRS = range(24)
_LONGEST_LINE = 100


@dataclass(frozen=True, slots=True)
class Enrolment:
    id: str
    credential_blob: bytes
    secret: bytes


@dataclass(frozen=True, slots=True)
class Activation:
    attester: str
    state: str
    detail: str


@dataclass(frozen=True, slots=True)
class KeyOffer:
    id: str
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Challenge:
    id: str
    nonce: bytes
    pcrs: tuple[int, ...]
    boot_pcrs: tuple[int, ...]
    send_event_log: bool
    send_ima_log: bool
    ima_from: int
    trial: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    """A release that waits for the owner's yes: which VM, on which host, and what that host had proved."""

    id: UUID
    attester: UUID
    vm: str
    host: str
    attestation: int
    mode: str
    policy_version: int
    attested_at: datetime
    asked_at: datetime
    asked_last: datetime
    needs_key: bool


@dataclass(frozen=True, slots=True)
class Held:
    """What a fabric has of an owner's key protector. The links are the owner's, and nobody has verified them here."""

    links: object
    denied: bool
    waiting: tuple[Waiting, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the portal made of the evidence; `certificate` is there only when the host passed, and not in a trial."""

    status: str
    substatus: tuple[str, ...]
    findings: tuple[Finding, ...]
    certificate: bytes | None
    release_secret: str | None
    next_attestation_at: datetime


@dataclass(frozen=True, slots=True)
class Release:
    """Keys wrapped to the transport key, the protector rolled for the next start, and the log's promise about it."""

    wrapped_keys: str
    key_protector: dict[str, Any]
    receipt: str = ""


def read_enrolment(body: Mapping[str, Any]) -> Enrolment:
    return Enrolment(str(body["id"]), from_b64u(body["credential_blob"]), from_b64u(body["secret"]))


def read_key_offer(body: Mapping[str, Any]) -> KeyOffer:
    """An offer that this agent is willing to sign: a nonce of sane size."""
    offer = KeyOffer(str(body["id"]), from_b64u(body["nonce"]))
    if len(offer.nonce) not in _NONCE_SIZES:
        raise ValueError("a nonce that this agent does not sign")
    return offer


def read_activation(body: Mapping[str, Any]) -> Activation:
    return Activation(str(body["attester"]), str(body["state"]), str(body.get("detail", "")))


def read_challenge(body: Mapping[str, Any]) -> Challenge:
    """A challenge that this agent is willing to sign: a nonce of sane size, sha256, known PCRs."""
    challenge = Challenge(
        id=str(body["id"]),
        nonce=from_b64u(body["nonce"]),
        pcrs=_read_pcrs(body["pcrs"]),
        boot_pcrs=_read_pcrs(body["boot_pcrs"]),
        send_event_log=body["send_event_log"] is True,
        send_ima_log=body.get("send_ima_log") is not False,
        ima_from=max(int(body.get("ima_from", 0)), 0),
        trial=body.get("trial") is True,
    )
    if body["bank"] != "sha256" or len(challenge.nonce) not in _NONCE_SIZES:
        raise ValueError("a bank or nonce that this agent does not sign")
    return challenge


def read_verdict(body: Mapping[str, Any]) -> Verdict:
    certificate, secret = body.get("certificate"), body.get("release_secret")
    return Verdict(
        status=str(body["status"]),
        substatus=tuple(str(word) for word in body["substatus"]),
        findings=tuple(_read_finding(finding) for finding in body["findings"]),
        certificate=from_b64u(certificate) if certificate else None,
        release_secret=str(secret) if secret else None,
        next_attestation_at=_read_moment(body["next_attestation_at"]),
    )


def read_release(body: Mapping[str, Any]) -> Release:
    protector = body["key_protector"]
    if not isinstance(protector, dict):
        raise ValueError("the key protector is not an object")
    return Release(str(body["wrapped_keys"]), protector, str(body.get("receipt", "")))


def read_held(body: Mapping[str, Any]) -> Held:
    links = body["chain"]
    if not isinstance(links, list) or not isinstance(body["denied"], bool):
        raise TypeError("not a chain and whether it is denied")
    return Held(links, body["denied"], tuple(map(_read_waiting, body["waiting"])))


def _read_waiting(body: Mapping[str, Any]) -> Waiting:
    if not isinstance(body["needs_key"], bool):
        raise TypeError("not whether the key is needed")
    return Waiting(
        id=UUID(body["id"]),
        attester=UUID(body["attester"]),
        vm=_line(body["vm"]),
        host=_line(body["host"]),
        attestation=int(body["attestation"]),
        mode=_line(body["mode"]),
        policy_version=int(body["policy_version"]),
        attested_at=_moment(body["attested_at"]),
        asked_at=_moment(body["asked_at"]),
        asked_last=_moment(body["asked_last"]),
        needs_key=body["needs_key"],
    )


def _line(value: Any) -> str:
    """Return what is shown on a terminal, where other characters than printable ones may do anything."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_LINE or not value.isprintable():
        raise ValueError("not a line")
    return value


def _moment(value: Any) -> datetime:
    return datetime.fromisoformat(value).astimezone(UTC)


def malformed(what: str) -> Unreachable:
    """An answer that is not in the agreed form: some proxy's page, or a portal of another version."""
    return Unreachable(f"The portal's answer ({what}) is not in the agreed form; is this the right URL and version?")


def _read_pcrs(value: Any) -> tuple[int, ...]:
    pcrs = tuple(sorted({int(pcr) for pcr in value}))
    if not pcrs or not all(pcr in _PCRS for pcr in pcrs):
        raise ValueError("not a PCR selection")
    return pcrs


def _read_finding(body: Mapping[str, Any]) -> Finding:
    code, substatus, what, why, remedy = (
        str(body.get(name, "")) for name in ("code", "substatus", "what", "why", "remedy")
    )
    verdict: Literal["fail", "unproven"] = "unproven" if body.get("verdict") == "unproven" else "fail"
    pcrs = tuple(int(pcr) for pcr in body.get("pcrs", ()))
    return Finding(code, substatus, what, why, remedy, pcrs, verdict=verdict)


def _read_moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
