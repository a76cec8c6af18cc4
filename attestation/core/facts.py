"""Answers questions about a boot from the events that PCRs vouch for, each answer with the event it leans on.

The log comes from the host, and no digest covers an event's type or its label. So a fact is read from bytes whose hash
is the digest, or from a digest that is compared with the hash of bytes we know; a separator is told by its digest, so
that no forged record can move the line between what the firmware measured and what came later. What cannot be known
that way is None: unproven, which is neither yes nor no.

An administrator of the running host can extend a PCR further, with a record to match. That shows as a PCR that no
baseline has; so a rule may lean on a fact from behind a mark only for a PCR that a baseline pins.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from attestation.core.linux import linux_facts
from attestation.core.replay import LOG_PCRS, VerifiedEvent
from attestation.core.uefi import (
    GLOBAL_VARIABLE,
    IMAGE_SECURITY,
    SHIM,
    Signature,
    Variable,
    certificate_subject,
    parse_authority,
    parse_signature_lists,
    parse_variable,
)
from attestation.core.windows import windows_facts
from attestation.errors import ParseError

FactValue = bool | int | str | tuple[str, ...] | tuple[int, ...] | Mapping[str, str]

HANDOVERS: Final = (bytes(4), b"\xff" * 4)
"""What the firmware measures into PCRs 0 to 7 when it hands over (PFP, EV_SEPARATOR)."""

_EV_S_CRTM_VERSION: Final = 0x8
_MEASURED_TEXT: Final = 4096


@dataclass(frozen=True, slots=True)
class Fact:
    """An answer, and the PCR and the event (its index in the log) that it leans on."""

    value: FactValue
    pcr: int
    event: int


def read_facts(events: Sequence[VerifiedEvent], *, bank: str) -> dict[str, Fact | None]:
    """Return every fact that we know to ask for, None where these events do not prove it."""
    boot = _Boot(events, bank)
    facts: dict[str, Fact | None] = {name: question(boot) for name, question in _QUESTIONS.items()}
    facts |= _linux_facts(facts["kernel_command_line"])
    facts |= {name: None if found is None else Fact(*found) for name, found in windows_facts(events, bank=bank).items()}
    return facts


class _Boot:
    """The events by PCR, and the part of PCR 7 that only the firmware can have written."""

    def __init__(self, events: Sequence[VerifiedEvent], bank: str) -> None:
        self.bank = bank
        self.pcrs: dict[int, list[VerifiedEvent]] = {}
        for event in events:
            self.pcrs.setdefault(event.pcr, []).append(event)
        self._handovers = {self.hash(content) for content in HANDOVERS}
        settings = self.pcrs.get(7, [])
        at = next((at for at, event in enumerate(settings) if event.digest in self._handovers), None)
        # Without a separator nobody knows where the firmware's part ends; then nothing of it is proved.
        self.settings, self.authorities = ([], []) if at is None else (settings[:at], settings[at + 1 :])
        self.handover = None if at is None else settings[at]

    def hash(self, content: bytes) -> bytes:
        return hashlib.new(self.bank, content).digest()

    def setting(self, name: str, guid: object) -> tuple[Variable, VerifiedEvent] | None:
        """Return a variable as the firmware measured it first; db comes again for each driver that it accepted."""
        named = ((each, event) for each, event in _variables(self.settings) if (each.name, each.guid) == (name, guid))
        return next(named, None)


def _variables(events: Iterable[VerifiedEvent]) -> Iterable[tuple[Variable, VerifiedEvent]]:
    for event in events:
        if event.data is not None:
            try:
                yield parse_variable(event.data), event
            except ParseError:
                continue


def _secure_boot(boot: _Boot) -> Fact | None:
    """UEFI, "Globally Defined Variables": SecureBoot is 1 when on; firmware without it measures an empty value."""
    found = boot.setting("SecureBoot", GLOBAL_VARIABLE)
    if found is None or found[0].value not in (b"", b"\0", b"\1"):
        return None
    return Fact(found[0].value == b"\1", 7, found[1].index)


def _signatures(boot: _Boot, name: str, guid: object) -> tuple[tuple[Signature, ...], VerifiedEvent] | None:
    found = boot.setting(name, guid)
    if found is None:
        return None
    try:
        return parse_signature_lists(found[0].value), found[1]
    except ParseError:
        return None


def _subjects(name: str, guid: object) -> Callable[[_Boot], Fact | None]:
    def question(boot: _Boot) -> Fact | None:
        found = _signatures(boot, name, guid)
        return None if found is None else Fact(tuple(map(_signature_words, found[0])), 7, found[1].index)

    return question


def _revocations(boot: _Boot) -> Fact | None:
    found = _signatures(boot, "dbx", IMAGE_SECURITY)
    return None if found is None else Fact(len(found[0]), 7, found[1].index)


def _revocations_hash(boot: _Boot) -> Fact | None:
    found = boot.setting("dbx", IMAGE_SECURITY)
    return None if found is None else Fact(hashlib.sha256(found[0].value).hexdigest(), 7, found[1].index)


def _signature_words(signature: Signature) -> str:
    if signature.kind != "x509":
        return f"{signature.kind} {signature.data.hex()[:128]}"
    return certificate_subject(signature.data) or f"certificate {hashlib.sha256(signature.data).hexdigest()}"


def _firmware_action(text: bytes) -> Callable[[_Boot], Fact | None]:
    """Whether the firmware measured this action before it handed over. Its absence is proved by every digest there."""

    def question(boot: _Boot) -> Fact | None:
        if boot.handover is None:
            return None
        marks = {boot.hash(text), boot.hash(text + b"\0")}
        event = next((event for event in boot.settings if event.digest in marks), None)
        return Fact(event is not None, 7, (event or boot.handover).index)

    return question


def _boot_authorities(boot: _Boot) -> list[tuple[Signature, VerifiedEvent]]:
    """The entries of db that a program was accepted by, in their order (PFP, EV_EFI_VARIABLE_AUTHORITY)."""
    found = []
    for variable, event in _variables(boot.authorities):
        if variable.guid == IMAGE_SECURITY and variable.name == "db":
            try:
                found.append((parse_authority(variable.value), event))
            except ParseError:
                continue
    return found


def _shim_certificate(boot: _Boot) -> Fact | None:
    """The certificate that the first program of the boot, shim on most, was accepted by."""
    for signature, event in _boot_authorities(boot)[:1]:
        return Fact(_signature_words(signature), 7, event.index)
    return None


def _authorities(boot: _Boot) -> Fact | None:
    found = _boot_authorities(boot)
    return Fact(tuple(_signature_words(each) for each, _ in found), 7, found[0][1].index) if found else None


def _sbat(boot: _Boot) -> Fact | None:
    """The revocation level that shim enforces (shim, SBAT.md)."""
    for variable, event in _variables(boot.authorities):
        if variable.guid == SHIM and variable.name == "SbatLevel":
            text = variable.value[:_MEASURED_TEXT].decode("utf-8", "replace").rstrip("\0\n")
            return Fact(text, 7, event.index)
    return None


def _firmware_version(boot: _Boot) -> Fact | None:
    """EV_S_CRTM_VERSION comes first in PCR 0; elsewhere the name could be put on any other event (PFP)."""
    for event in boot.pcrs.get(0, [])[:1]:
        if event.data is not None and event.untrusted_type == _EV_S_CRTM_VERSION:
            return _text_fact(event)
    return None


def _text_fact(event: VerifiedEvent) -> Fact | None:
    """The event's proved bytes as text, when they are text and not empty."""
    data = (event.data or b"")[:_MEASURED_TEXT]
    wide = len(data) >= 2 and len(data) % 2 == 0 and not any(data[1::2])
    text = data.decode("utf-16-le" if wide else "utf-8", "replace").rstrip("\0")
    return Fact(text, event.pcr, event.index) if text and text.isprintable() else None


def _kernel_command_line(boot: _Boot) -> Fact | None:
    """What GRUB (PCR 8) or a systemd boot stub (PCR 12) handed to the kernel.

    GRUB's label is in no digest. But each line is, and only a command line begins with a path; the command that set
    it, "linux" and the same words, stands before it. A line that is not proved could be the real one, so it spoils all.
    """
    return _grub_command_line(boot.pcrs[8]) if 8 in boot.pcrs else _stub_command_line(boot)


def _stub_command_line(boot: _Boot) -> Fact | None:
    """PCR 12 is in no baseline, and may be extended later by an administrator.

    So the line leans on PCR 9 where the kernel measured its load options, the same bytes, before it left the firmware.
    """
    lines = boot.pcrs.get(12, [])
    found = [fact for fact in map(_text_fact, lines) if fact is not None]
    if not found or len(found) != len(lines) or len({fact.value for fact in found}) != 1:
        return None
    options = next((event for event in boot.pcrs.get(9, []) if event.digest == lines[0].digest), None)
    return found[0] if options is None else Fact(found[0].value, 9, options.index)


def _grub_command_line(events: Sequence[VerifiedEvent]) -> Fact | None:
    loaded: set[bytes] = set()
    set_by_command: list[VerifiedEvent] = []
    others: list[VerifiedEvent] = []
    for event in events:
        if event.data is None:
            return None
        line = event.data.rstrip(b"\0")
        word, _, rest = line.partition(b" ")
        if word in (b"linux", b"linuxefi", b"linux16"):
            loaded.add(rest)
        elif line.startswith((b"/", b"(")):
            (set_by_command if line in loaded else others).append(event)
    if set_by_command:
        return _text_fact(set_by_command[-1])
    return _text_fact(others[-1]) if len({event.data for event in others}) == 1 else None


def _initial_ramdisk(boot: _Boot) -> Fact | None:
    """The digest of the initrd in a unified kernel image: systemd's stub measures a section's name, then the section.

    GRUB and the kernel measure an initrd as well, but what tells it from other files there is in no digest.
    """
    name, sections = boot.hash(b".initrd\0"), boot.pcrs.get(11, [])
    for event, content in pairwise(sections):
        if event.digest == name:
            return Fact(content.digest.hex(), 11, content.index)
    return None


def _linux_facts(line: Fact | None) -> dict[str, Fact | None]:
    """What the command line says, and what it does not say, where it is proved in a PCR that a baseline pins.

    A line that only a PCR beyond the baselines has proves nothing: an administrator of the running host can put it
    there.
    """
    if line is None or line.pcr not in LOG_PCRS or not isinstance(line.value, str):
        return dict.fromkeys(linux_facts(None))
    values = linux_facts(line.value)
    return {name: None if value is None else Fact(value, line.pcr, line.event) for name, value in values.items()}


_QUESTIONS: Final[Mapping[str, Callable[[_Boot], Fact | None]]] = {
    "secure_boot": _secure_boot,
    "platform_key": _subjects("PK", GLOBAL_VARIABLE),
    "key_exchange_keys": _subjects("KEK", GLOBAL_VARIABLE),
    "db": _subjects("db", IMAGE_SECURITY),
    "dbx_entries": _revocations,
    "dbx_sha256": _revocations_hash,
    "uefi_debug_mode": _firmware_action(b"UEFI Debug Mode"),
    "firmware_dma_protection_disabled": _firmware_action(b"DMA Protection Disabled"),
    "shim_certificate": _shim_certificate,
    "boot_authorities": _authorities,
    "sbat": _sbat,
    "firmware_version": _firmware_version,
    "kernel_command_line": _kernel_command_line,
    "initrd": _initial_ramdisk,
}
