"""Decides which records of an event log the quoted PCRs vouch for, and how much of each.

TPM 2.0 Library part 1, "Extend": new = H(old || digest). PFP: EV_NO_ACTION is not extended, and PCR 0 starts at the
startup locality.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, cast

from attestation.core.eventlog import EV_NO_ACTION, EventLog
from attestation.errors import ReplayMismatch

# What firmware and boot loaders extend before the system runs, and nobody after: the log must account for all of it.
# PCR 10 is IMA's; 11 to 13 and 15 are extended by systemd or Windows, 16 to 23 by whoever likes, after the log was
# closed. What the log says about them counts only where it leads to the quoted value.
LOG_PCRS: Final = frozenset((*range(10), 14))

# GRUB hashes the command without its label: upstream "label: text", older distributions "label text". The label itself
# is not in any digest.
GRUB_LABELS: Final = (
    b"kernel_cmdline: ",
    b"module_cmdline: ",
    b"grub_cmd: ",
    b"grub_kernel_cmdline ",
    b"grub_module_cmdline ",
    b"grub_cmd ",
    b"kernel_cmdline ",
    b"module_cmdline ",
)

EV_IPL: Final = 0xD

_BANKS: Final = frozenset({"sha1", "sha256", "sha384", "sha512", "sha3_256", "sha3_384", "sha3_512"})
_HASHLIB_NAMES: Final = {"sm3_256": "sm3"}


class Hash(Protocol):
    """The little of a hashlib object that replay needs."""

    @property
    def digest_size(self) -> int: ...

    def digest(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class VerifiedEvent:
    """A measurement that was really made, at this place in its PCR.

    `digest` is proved. `data` is the part of the record whose hash is the digest, or None when there is none; it is
    proved too. `untrusted_type` and `untrusted_data` are the record's own words: hints for people, never evidence.
    """

    index: int
    pcr: int
    untrusted_type: int
    digest: bytes
    data: bytes | None
    untrusted_data: bytes = b""


def replay_values(log: EventLog, bank: str) -> dict[int, bytes]:
    """Return the value of every PCR that the log extends, as a TPM would hold it that was extended by nobody else.

    A PCR of which one record lacks the bank's digest has no value: to skip that record would lead to another one.
    """
    return _walk(log, bank, _constructor(log, bank))[0]


def replay(log: EventLog, *, quoted: Mapping[int, bytes], bank: str) -> tuple[VerifiedEvent, ...]:
    """Return the events that the quoted PCRs vouch for, or raise ReplayMismatch.

    Walks the quote, not the log: a log with every PCR 7 event left out must fail, and events for a PCR that nobody
    quoted prove nothing. PCRs 11 to 13 are vouched for where the log leads to the quoted value; where they were
    extended further, or where records lack the bank (Windows writes its own in one bank only), they prove nothing.
    """
    new = _constructor(log, bank)
    values, gaps = _walk(log, bank, new)
    blank = bytes(new().digest_size)
    if 0 in quoted and 0 not in values and 0 not in gaps:
        # Every firmware measures itself first (PFP, PCR 0): a bank, or a log, without that vouches for nothing.
        raise ReplayMismatch(f"PCR 0: the event log measures nothing into the {bank} bank.")
    vouched = set()
    for pcr, value in sorted(quoted.items()):
        start = blank[1:] + bytes((log.startup_locality,)) if pcr == 0 else blank
        if pcr not in gaps and values.get(pcr, start) == value:
            vouched.add(pcr)
        elif pcr in gaps and pcr in LOG_PCRS:
            record = gaps[pcr] + log.headers
            raise ReplayMismatch(f"PCR {pcr}: record {record} of the event log has no {bank} digest.")
        elif pcr in LOG_PCRS:
            raise ReplayMismatch(f"PCR {pcr}: the event log does not lead to the value that the TPM signed.")
    return events_behind(log, vouched, bank=bank)


def replay_banks(log: EventLog) -> dict[str, dict[int, bytes]]:
    """Return what the log leads to in every bank, for each PCR whose records all have that bank's digest.

    For people and tools, who have no quote: a PCR of which one record lacks the digest has no value in that bank, and
    a bank whose hash this machine lacks has none at all.
    """
    return {bank: _walk(log, bank, new)[0] if (new := _hash(bank)) else {} for bank in log.banks}


def events_behind(log: EventLog, pcrs: Collection[int], *, bank: str) -> tuple[VerifiedEvent, ...]:
    """Return the events of these PCRs as if each PCR vouched for them: proved as far as the caller's PCR values are."""
    new = getattr(hashlib, bank)
    verified = []
    for index, event in enumerate(log.events):
        kind, untrusted = event.untrusted_type, event.untrusted_data
        if event.pcr in pcrs and kind != EV_NO_ACTION:
            digest = event.digests[bank]
            data = untrusted if new(untrusted).digest() == digest else None
            if data is None and kind == EV_IPL:
                data = _hashed_part(untrusted, digest, new)
            verified.append(VerifiedEvent(index, event.pcr, kind, digest, data, untrusted))
    return tuple(verified)


def _constructor(log: EventLog, bank: str) -> Callable[..., Hash]:
    """The hash of a bank that may decide about a host: the log must declare it, and we must trust and have it."""
    if bank not in _BANKS or bank not in log.banks:
        raise ReplayMismatch(f"The event log has no {bank} bank that can be replayed.")
    return cast("Callable[..., Hash]", getattr(hashlib, bank))


def _hash(bank: str) -> Callable[..., Hash] | None:
    """The hash of any bank that a log may have, if this machine has it."""
    if bank in _BANKS:
        return cast("Callable[..., Hash]", getattr(hashlib, bank))
    name = _HASHLIB_NAMES.get(bank, bank)
    try:
        hashlib.new(name)
    except ValueError:  # no such hash in this machine's OpenSSL
        return None
    return partial(hashlib.new, name)


def _walk(log: EventLog, bank: str, new: Callable[..., Hash]) -> tuple[dict[int, bytes], dict[int, int]]:
    """What each PCR is led to, and for each PCR that has no value in this bank the first record without its digest."""
    blank = bytes(new().digest_size)
    values = {0: blank[1:] + bytes((log.startup_locality,))}
    touched: set[int] = set()
    gaps: dict[int, int] = {}
    for index, event in enumerate(log.events):
        if event.untrusted_type == EV_NO_ACTION:
            continue
        pcr, digest = event.pcr, event.digests.get(bank)
        if digest is None:
            gaps.setdefault(pcr, index)
        else:
            touched.add(pcr)
            values[pcr] = new(values.get(pcr, blank) + digest).digest()
    return {pcr: values[pcr] for pcr in sorted(touched.difference(gaps))}, gaps


def _hashed_part(untrusted: bytes, digest: bytes, new: Callable[[bytes], Hash]) -> bytes | None:
    """What a boot loader's digest covers: the data without its final NUL, or a GRUB line without its label.

    Distributions' GRUB hashes the line with or without the NUL, and some copy a byte too many behind it.
    """
    forms = [untrusted[:-1]] if untrusted.endswith(b"\0") else []
    if untrusted.startswith(GRUB_LABELS):
        label = next(label for label in GRUB_LABELS if untrusted.startswith(label))
        body = untrusted[len(label) :]
        end = body.find(b"\0")
        forms = [body.removesuffix(b"\0"), body]
        forms += [body[:end], body[: end + 1]] if 0 <= end < len(body) - 1 else []
    for form in forms:
        if new(form).digest() == digest:
            return form
    return None
