"""Holds what a log leads to against what a TPM says, and names the known reasons when they differ."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from attestation.core.eventlog import EventLog
from attestation.core.oddities import Oddity
from attestation.core.reader import Reader
from attestation.core.replay import LOG_PCRS, replay_banks

Banks = Mapping[str, Mapping[int, bytes]]

_SIZES: Final = {20: "sha1", 32: "sha256", 48: "sha384", 64: "sha512"}
_LONGEST: Final = 1 << 16
_PCR_COUNT: Final = 24
_LOCALITIES: Final = (0, 3, 4)
_EXITS: Final = (
    (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success"),
    (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Failure"),
)


def parse_pcr_values(data: bytes) -> dict[str, dict[int, bytes]]:
    """Read PCR values: "0 <hex>" on each line, or what `tpm2_pcrread` prints, with its banks.

    Without a bank's name the length of a value says which bank it is of.
    """
    reader = Reader(data, what="PCR values")
    if len(data) > _LONGEST:
        raise reader.error(f"{len(data)} bytes are too many")
    banks: dict[str, dict[int, bytes]] = {}
    bank = ""
    for line in data.splitlines(keepends=True):
        words = line.replace(b":", b" ").split()
        if len(words) == 1:
            bank = words[0].decode("ascii", "replace").lower()
        elif words:
            pcr, value = _pcr_value(words, reader)
            name = bank or _SIZES.get(len(value), "")
            if not name or pcr in banks.setdefault(name, {}):
                raise reader.error(f"PCR {pcr} has two values, or one of {len(value)} bytes")
            banks[name][pcr] = value
        reader.take(len(line))
    if not banks:
        raise reader.error("no PCR value")
    return banks


def _pcr_value(words: list[bytes], reader: Reader) -> tuple[int, bytes]:
    """A line's two words; the size is checked so that no digest of another bank is mixed in unseen."""
    try:
        pcr, value = int(words[0]), bytes.fromhex(words[1].decode("ascii").lower().removeprefix("0x"))
    except (ValueError, UnicodeDecodeError):
        raise reader.error("neither a bank nor a PCR with its value") from None
    if len(words) != 2 or not 0 <= pcr < _PCR_COUNT or len(value) not in _SIZES:
        raise reader.error("neither a bank nor a PCR with its value")
    return pcr, value


def compare(log: EventLog, banks: Banks, *, measured: Banks) -> tuple[Oddity, ...]:
    """Return how a TPM's values differ from what the log leads to, bank by bank."""
    common = [bank for bank in banks if bank in measured]
    if not common:
        return (Oddity("bank_absent", "The log has no bank that the PCR values are of."),)
    return tuple(oddity for bank in common for oddity in _bank(log, bank, banks[bank], measured[bank]))


def _bank(log: EventLog, bank: str, led: Mapping[int, bytes], measured: Mapping[int, bytes]) -> Iterator[Oddity]:
    capped = []
    for pcr, value in sorted(measured.items()):
        if pcr not in led:
            blank = value.strip(b"\0") and value.strip(b"\xff")
            if blank and pcr in LOG_PCRS:
                yield Oddity("pcr_not_in_log", f"PCR {pcr} ({bank}) was extended; the log does not say with what.")
        elif led[pcr] != value:
            if hashlib.new(bank, led[pcr] + bytes(len(value))).digest() == value:
                capped.append(str(pcr))
            else:
                yield _difference(log, bank, pcr, led[pcr], value)
    if capped:
        yield Oddity(
            "bank_capped", f"The {bank} bank was closed by Windows (PCRs {', '.join(capped)}): it proves nothing."
        )


def _difference(log: EventLog, bank: str, pcr: int, led: bytes, value: bytes) -> Oddity:
    if pcr not in LOG_PCRS:
        return Oddity("pcr_moved", f"PCR {pcr} ({bank}) was extended after the log was closed, or is not this boot's.")
    if pcr == 5 and any(_extended(bank, led, exits) == value for exits in _EXITS):
        text = f"PCR 5 ({bank}) holds two measurements more than the log: that the firmware was left."
        return Oddity("exit_boot_services_unlogged", text)
    if pcr == 0:
        for locality in _LOCALITIES:
            if replay_banks(replace(log, startup_locality=locality))[bank].get(0) == value:
                text = f"PCR 0 ({bank}) began at locality {locality}; the log says {log.startup_locality}."
                return Oddity("startup_locality_wrong", text)
    return Oddity("pcr_mismatch", f"PCR {pcr} ({bank}) is not what the log leads to.")


def _extended(bank: str, value: bytes, contents: tuple[bytes, ...]) -> bytes:
    for content in contents:
        value = hashlib.new(bank, value + hashlib.new(bank, content).digest()).digest()
    return value
