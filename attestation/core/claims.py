"""From Evidence to Claims: everything that must be authentic before anyone asks whether it is acceptable.

The order is the defence: signature by the AK, magic and type, nonce, PCR selection and digest, replay of the log
against the quoted values, transport key. Each step raises its own `VerificationError`; nothing can be skipped.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from attestation.core.eventlog import parse_event_log
from attestation.core.ima import ImaList, replay_ima
from attestation.core.quote import QUOTED_PCRS, verify_quote
from attestation.core.replay import VerifiedEvent, replay
from attestation.core.tpm import Clock, TpmPublic
from attestation.core.transport import TransportKey, verify_transport_key

BANK = "sha256"
IMA_PCR = 10


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a host sent, as received: untrusted bytes (RFC 9334 section 8.1)."""

    quote: bytes
    signature: bytes
    pcr_values: Mapping[int, bytes]
    event_log: bytes
    ima_log: bytes | None
    transport_public: bytes
    transport_certify: bytes
    transport_signature: bytes


@dataclass(frozen=True, slots=True)
class Claims:
    """What verification has made trustworthy (RFC 9334 section 8.2)."""

    pcrs: Mapping[int, bytes]
    events: tuple[VerifiedEvent, ...]
    ima: ImaList | None
    transport: TransportKey
    clock: Clock
    firmware_version: int


def verify_evidence(evidence: Evidence, *, ak: TpmPublic, nonce: bytes) -> Claims:
    """Return the Claims that this Evidence proves for the holder of `ak`, fresh for `nonce` (32 bytes).

    Raises a subclass of `VerificationError` or `ParseError`; the codes tell which check failed.
    """
    quote = verify_quote(
        evidence.quote,
        evidence.signature,
        ak=ak,
        nonce=nonce,
        selection=(BANK, QUOTED_PCRS),
        pcr_values=evidence.pcr_values,
    )
    events = replay(parse_event_log(evidence.event_log), quoted=quote.pcrs, bank=BANK)
    ima = None
    if evidence.ima_log is not None:
        ima = replay_ima(evidence.ima_log, quoted=quote.pcrs[IMA_PCR], bank=BANK)
    transport = verify_transport_key(
        evidence.transport_public,
        evidence.transport_certify,
        evidence.transport_signature,
        ak=ak,
        nonce=nonce,
        pcrs=quote.pcrs,
    )
    return Claims(
        pcrs=quote.pcrs,
        events=events,
        ima=ima,
        transport=transport,
        clock=quote.clock,
        firmware_version=quote.firmware_version,
    )
