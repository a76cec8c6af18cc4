"""Names what is wrong, or only strange, in an event log that can be read: for people, and for tools that count.

None of these decides about a host; PCRs and facts do. But a log that was tampered with looks odd, a firmware that
forgets a measurement looks odd, and both must be said. The codes are stable; `event` is an index into the log.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from attestation.core.boot import HANDOVERS
from attestation.core.event_types import TYPE_NAMES, type_name
from attestation.core.eventlog import EV_NO_ACTION, EventLog, UnverifiedEvent
from attestation.core.replay import EV_IPL, VerifiedEvent
from attestation.core.sipa import parse_sipa
from attestation.core.uefi import (
    GLOBAL_VARIABLE,
    IMAGE_SECURITY,
    Variable,
    count_signatures,
    parse_authority,
    uefi_variable,
)
from attestation.core.windows import END_OF_PHASE
from attestation.errors import ParseError

EV_UNUSED: Final = 0x2
EV_SEPARATOR: Final = 0x4
EV_EVENT_TAG: Final = 0x6
EV_EFI_VARIABLE_DRIVER_CONFIG: Final = 0x80000001
EV_EFI_BOOT_SERVICES_APPLICATION: Final = 0x80000003

_NO_PCR: Final = 0xFFFFFFFF
_FIRMWARE_PCRS: Final = frozenset(range(8))
_WINDOWS_PCRS: Final = frozenset((12, 13, 14))
_ERROR: Final = b"\1\0\0\0"
_EXIT: Final = b"Exit Boot Services Invocation"
_ACTIONS: Final = (b"Calling EFI Application", b"Returning from EFI Application", b"Exit Boot Services")
_ACTION_TYPES: Final = (0x5, 0x80000007)
_VARIABLE_TYPES: Final = (EV_EFI_VARIABLE_DRIVER_CONFIG, 0x80000002, 0x8000000C, 0x800000E0)
_BOOT_VARIABLE_TYPES: Final = (0x80000002, 0x8000000C)
# The PFP says that the digest of these is over the data themselves.
_HASHED_TYPES: Final = (EV_SEPARATOR, *_ACTION_TYPES, EV_EFI_VARIABLE_DRIVER_CONFIG, 0x80000006, 0x800000E0)
_NOTES: Final = (b"StartupLocality\0", b"SP800-155 Event", b"NvIndexInstance\0", b"NvIndexDynamic\0", b"H-CRTM ")
_KEYS: Final = {("PK", GLOBAL_VARIABLE), ("KEK", GLOBAL_VARIABLE), ("db", IMAGE_SECURITY), ("dbx", IMAGE_SECURITY)}
_SETTINGS: Final = {*_KEYS, ("SecureBoot", GLOBAL_VARIABLE)}
# TDX: RTMR 0 stands for PCRs 1 and 7, RTMR 1 for 2 to 6; each may bring its own separator.
_CC_SEPARATORS: Final = {1: 2, 2: 5}


@dataclass(frozen=True, slots=True)
class Oddity:
    """A stable code, a sentence, and the event it is about, if it is about one."""

    code: str
    message: str
    event: int | None = None


def find_oddities(log: EventLog, events: Sequence[VerifiedEvent], *, bank: str) -> tuple[Oddity, ...]:
    """Return what is odd about a log by itself. `events` are those of `bank`, as its replay gives them."""
    pcrs: dict[int, list[VerifiedEvent]] = {}
    for event in events:
        pcrs.setdefault(event.pcr, []).append(event)
    measures = _Digests(bank)
    return tuple(
        chain(
            _banks(log),
            chain.from_iterable(_record(log, index, event) for index, event in enumerate(log.events)),
            chain.from_iterable(_data(event, measures) for event in events),
            _separators(pcrs, measures, confidential=is_cc_log(log)),
            _settings(pcrs.get(7, []), measures),
            _windows(pcrs, measures),
            () if is_cc_log(log) else _programs(pcrs, measures),
        )
    )


def is_cc_log(log: EventLog) -> bool:
    """Whether the log looks like a confidential guest's (CCEL): one bank, and measurement registers 1 to 4 only.

    The register that holds the initial image (MRTD, index 0) is never extended, while every firmware extends PCR 0.
    """
    measured = {event.pcr for event in log.events if event.untrusted_type != EV_NO_ACTION}
    return log.banks in (("sha384",), ("sm3_256",)) and bool(measured) and measured <= {1, 2, 3, 4}


class _Digests:
    """Hashes in one bank, each made once."""

    def __init__(self, bank: str) -> None:
        self.hash: Callable[[bytes], bytes] = lambda content: hashlib.new(bank, content).digest()
        self.handovers = {self.hash(content) for content in HANDOVERS}
        self.error = self.hash(_ERROR)
        self.windows = self.hash(END_OF_PHASE)
        self.exit = self.hash(_EXIT)


def _banks(log: EventLog) -> Iterator[Oddity]:
    gaps: dict[str, int] = {}
    foreign: dict[str, int] = {}
    for index, event in enumerate(log.events):
        if event.untrusted_type == EV_NO_ACTION:
            continue
        for bank in log.banks:
            if bank not in event.digests:
                gaps.setdefault(bank, index)
        for bank in event.digests:
            if bank not in log.banks:
                foreign.setdefault(bank, index)
    for bank, index in gaps.items():
        yield Oddity("bank_incomplete", f"A record has no {bank} digest, so its PCR has no {bank} value.", index)
    for bank, index in foreign.items():
        yield Oddity("algorithm_undeclared", f"A record has a {bank} digest; the log's header declares none.", index)


def _record(log: EventLog, index: int, event: UnverifiedEvent) -> Iterator[Oddity]:
    kind = event.untrusted_type
    if kind == EV_NO_ACTION:
        yield from _note(log, index, event)
    elif kind not in TYPE_NAMES:
        yield Oddity("type_unknown", f"PCR {event.pcr} has a record of {type_name(kind)}.", index)
    elif kind == EV_UNUSED:
        yield Oddity("type_ignored", f"PCR {event.pcr} has a record that calls itself unused, and is measured.", index)


def _note(log: EventLog, index: int, event: UnverifiedEvent) -> Iterator[Oddity]:
    """EV_NO_ACTION is in no PCR: what it says is hearsay, and what it hides was never measured."""
    if event.pcr == _NO_PCR:
        known = _windows_note(event.untrusted_data)
    else:
        known = event.untrusted_data.startswith(_NOTES)
        if event.pcr and not is_cc_log(log):
            yield Oddity("note_in_pcr", f"A record that is not measured names PCR {event.pcr}.", index)
    if not known:
        yield Oddity("note_unknown", "A record that is not measured says something that no specification knows.", index)


def _windows_note(data: bytes) -> bool:
    try:
        return bool(parse_sipa(data))
    except ParseError:
        return False


def _data(event: VerifiedEvent, measures: _Digests) -> Iterator[Oddity]:
    """A record's type and data against its digest, the only thing of it that is proved."""
    kind, name = event.untrusted_type, type_name(event.untrusted_type)
    separator = _is_separator(event, measures)
    if separator and kind != EV_SEPARATOR:
        yield Oddity("type_spoofed", f"A separator in PCR {event.pcr} calls itself {name}.", event.index)
    elif event.data is not None and not separator:
        yield from _spoofed(event, name)
    if event.data is None and not _explained(event, measures):
        yield Oddity("data_mismatch", f"The data of {name} in PCR {event.pcr} are not what was measured.", event.index)


def _is_separator(event: VerifiedEvent, measures: _Digests) -> bool:
    """By its digest; a boot variable that holds the number 1, hashed without its name, is not an error separator."""
    if event.digest not in measures.handovers | {measures.windows, measures.error}:
        return False
    return event.untrusted_type not in _BOOT_VARIABLE_TYPES or not _explained(event, measures)


def _spoofed(event: VerifiedEvent, name: str) -> Iterator[Oddity]:
    variable = uefi_variable(event.data or b"") if event.pcr == 7 else None
    if variable is not None and event.untrusted_type not in _VARIABLE_TYPES:
        yield Oddity("type_spoofed", f"A UEFI variable in PCR 7 calls itself {name}.", event.index)
    if event.untrusted_data.startswith(_ACTIONS) and event.untrusted_type not in _ACTION_TYPES:
        yield Oddity("type_spoofed", f"An action of the firmware in PCR {event.pcr} calls itself {name}.", event.index)
    if event.untrusted_type == EV_SEPARATOR:
        yield Oddity("separator_payload", f"A separator in PCR {event.pcr} has an unknown content.", event.index)


def _explained(event: VerifiedEvent, measures: _Digests) -> bool:
    """Whether the digest may be of something else than the data: the PFP says so, or a known firmware does so."""
    kind, data = event.untrusted_type, event.untrusted_data
    if kind in _BOOT_VARIABLE_TYPES:
        variable = uefi_variable(data)
        return variable is not None and measures.hash(variable.value) == event.digest
    if kind == 0x800000E0:  # shim hashes less than it logs: without the owner, or without the last byte
        return measures.hash(data[:-1]) == event.digest
    if kind == EV_IPL and event.pcr == 8:
        return not data.startswith((b"grub_", b"kernel_cmdline", b"module_cmdline"))
    return kind not in _HASHED_TYPES and not (kind == EV_EVENT_TAG and event.pcr in _WINDOWS_PCRS)


def _separators(
    pcrs: Mapping[int, Sequence[VerifiedEvent]], measures: _Digests, *, confidential: bool
) -> Iterator[Oddity]:
    missing = []
    for pcr in sorted(_FIRMWARE_PCRS):
        found = [event for event in pcrs.get(pcr, []) if event.digest in measures.handovers]
        errors = [event for event in pcrs.get(pcr, []) if event.digest == measures.error]
        errors = [event for event in errors if _is_separator(event, measures)]
        allowed = _CC_SEPARATORS.get(pcr, 0) if confidential else 1
        for event in found[allowed:]:
            yield Oddity("separator_duplicate", f"PCR {pcr} has more than one separator.", event.index)
        for event in errors:
            yield Oddity("separator_error", f"The firmware reported an error in PCR {pcr}.", event.index)
        if not found and not confidential:
            missing.append(str(pcr))
    if missing:
        which = f"PCR {missing[0]} has" if len(missing) == 1 else f"PCRs {', '.join(missing)} have"
        yield Oddity("separator_missing", f"{which} no separator: the log is cut, or the firmware writes none.")


def _settings(events: Sequence[VerifiedEvent], measures: _Digests) -> Iterator[Oddity]:
    """The Secure Boot variables of PCR 7: before the hand-over, once, and well formed."""
    seen: dict[str, bytes] = {}
    handed_over = False
    for event in events:
        handed_over |= event.digest in measures.handovers
        variable = uefi_variable(event.data) if event.data is not None else None
        if variable is None or (variable.name, variable.guid) not in _SETTINGS:
            continue
        # What accepted a program is measured later, under the name of the list that it is from.
        if event.untrusted_type == EV_EFI_VARIABLE_DRIVER_CONFIG and handed_over:
            yield Oddity("variable_late", f"{variable.name} was measured after the firmware handed over.", event.index)
        elif not handed_over and not _is_authority(variable):
            if seen.setdefault(variable.name, variable.value) != variable.value:
                yield Oddity("variable_conflict", f"{variable.name} was measured with two values.", event.index)
            yield from _malformed(variable, event.index)


def _is_authority(variable: Variable) -> bool:
    """Whether this is the one entry of db that a driver was accepted by, before the hand-over; not db itself."""
    try:
        return variable.name == "db" and bool(parse_authority(variable.value))
    except ParseError:
        return False


def _malformed(variable: Variable, index: int) -> Iterator[Oddity]:
    if variable.name == "SecureBoot":
        if variable.value not in (b"\0", b"\1"):
            yield Oddity(
                "secure_boot_malformed", f"SecureBoot has {len(variable.value)} bytes, or is no switch.", index
            )
        return
    try:
        count_signatures(variable.value)
    except ParseError as error:
        yield Oddity("signature_list_malformed", f"{variable.name} cannot be read: {error}", index)


def _windows(pcrs: Mapping[int, Sequence[VerifiedEvent]], measures: _Digests) -> Iterator[Oddity]:
    """Windows' records: readable, and none behind the mark that ends its boot."""
    for pcr in sorted(_WINDOWS_PCRS):
        ended = tagged = False
        for event in pcrs.get(pcr, []):
            if event.digest == measures.windows:
                ended = True
            elif event.untrusted_type == EV_EVENT_TAG:
                tagged = True
                if ended:
                    text = f"PCR {pcr} was extended after Windows had ended its boot."
                    yield Oddity("windows_late", text, event.index)
                if not _windows_note(event.untrusted_data):
                    yield Oddity("windows_malformed", f"A record of Windows in PCR {pcr} cannot be read.", event.index)
        if tagged and not ended:
            yield Oddity("windows_unfinished", f"PCR {pcr} has no mark that ends Windows' boot: the log is cut.")


def _programs(pcrs: Mapping[int, Sequence[VerifiedEvent]], measures: _Digests) -> Iterator[Oddity]:
    """PFP: PCR 4 has the programs that were started, PCR 5 that the operating system took over from the firmware."""
    if not any(event.untrusted_type == EV_EFI_BOOT_SERVICES_APPLICATION for event in pcrs.get(4, [])):
        yield Oddity("boot_program_missing", "PCR 4 has no boot program: the log ends before one was started.")
    elif not any(event.digest == measures.exit for event in pcrs.get(5, [])):
        text = "PCR 5 does not say that the firmware was left: not measured, or measured and not in the log."
        yield Oddity("exit_boot_services_missing", text)
