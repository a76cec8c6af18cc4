"""From Evidence to Claims: everything that must be authentic before anyone asks whether it is acceptable.

The order is the defence: signature by the AK, magic and type, nonce, PCR selection and digest, replay of the log
against the quoted values, transport key. Each step raises its own `VerificationError`; nothing can be skipped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from attestation.core.eventlog import parse_event_log
from attestation.core.facts import Fact, read_facts
from attestation.core.ima import START, Extension, ImaPosition, ImaReplay, replay_list
from attestation.core.oddities import Oddity, find_oddities
from attestation.core.quote import QUOTED_PCRS, verify_quote
from attestation.core.replay import VerifiedEvent, replay
from attestation.core.tpm import Clock, TpmPublic
from attestation.core.transport import TransportKey, verify_transport_key

BANK = "sha256"
IMA_PCR = 10


@dataclass(frozen=True, slots=True)
class Evidence:
    """The small parts of what a host sent, as received: untrusted bytes (RFC 9334 section 8.1)."""

    quote: bytes
    signature: bytes
    pcr_values: Mapping[int, bytes]
    transport_public: bytes
    transport_certify: bytes
    transport_signature: bytes


@dataclass(frozen=True, slots=True)
class Boot:
    """What a boot log proves under quoted PCR values: it depends on nothing else, so it may be remembered by both."""

    events: tuple[VerifiedEvent, ...]
    facts: Mapping[str, Fact | None]
    oddities: tuple[Oddity, ...]

    @property
    def platform(self) -> str:
        """What the log looks like. For people and for capturing: a rule goes by what the baseline says."""
        fact = self.facts.get("platform")
        return "windows" if fact is not None and fact.value == "windows" else "linux"


class Logs(Protocol):
    """The two logs of a host, to be read against quoted values only; raises what `read_boot` and `read_ima` raise."""

    def boot(self, pcrs: Mapping[int, bytes]) -> Boot: ...

    def ima(self, pcrs: Mapping[int, bytes]) -> ImaReplay | None: ...


@dataclass(frozen=True, slots=True)
class SentLogs:
    """Logs as they were sent, read anew. `after` is where the IMA list goes on, `known` as in `replay_list`."""

    event_log: bytes
    ima_log: bytes | None = None
    after: ImaPosition = START
    known: Mapping[bytes, bytes] | None = None

    def boot(self, pcrs: Mapping[int, bytes]) -> Boot:
        return read_boot(self.event_log, pcrs)

    def ima(self, pcrs: Mapping[int, bytes]) -> ImaReplay | None:
        return read_ima(self.ima_log, pcrs, after=self.after, known=self.known)


@dataclass(frozen=True, slots=True)
class Claims:
    """What verification has made trustworthy (RFC 9334 section 8.2)."""

    pcrs: Mapping[int, bytes]
    boot: Boot
    ima: ImaReplay | None
    transport: TransportKey
    clock: Clock
    firmware_version: int


def verify_evidence(evidence: Evidence, *, ak: TpmPublic, nonce: bytes, logs: Logs) -> Claims:
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
    boot = logs.boot(quote.pcrs)
    ima = logs.ima(quote.pcrs)
    transport = verify_transport_key(
        evidence.transport_public,
        evidence.transport_certify,
        evidence.transport_signature,
        ak=ak,
        nonce=nonce,
        pcrs=quote.pcrs,
    )
    return Claims(quote.pcrs, boot, ima, transport, quote.clock, quote.firmware_version)


def read_boot(event_log: bytes, pcrs: Mapping[int, bytes]) -> Boot:
    """Replay a boot log against quoted values and read what it proves. Raises `ParseError` or `ReplayMismatch`.

    PCR 10 is left to the IMA list: it moves while a host runs, and the boot stays what it was.
    """
    log = parse_event_log(event_log)
    events = replay(log, quoted={pcr: value for pcr, value in pcrs.items() if pcr != IMA_PCR}, bank=BANK)
    return Boot(events, read_facts(events, bank=BANK), find_oddities(log, events, bank=BANK))


def read_ima(
    ima_log: bytes | None,
    pcrs: Mapping[int, bytes],
    *,
    after: ImaPosition = START,
    known: Mapping[bytes, bytes] | None = None,
) -> ImaReplay | None:
    """Replay an IMA list, or its continuation, against the quoted PCR 10. Raises `ParseError` or `ImaMismatch`."""
    if ima_log is None:
        return None
    return replay_list(ima_log, quoted=pcrs[IMA_PCR], bank=BANK, extension=Extension.REHASHED, after=after, known=known)
