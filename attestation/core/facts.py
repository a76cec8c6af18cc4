"""Answers questions about a boot from the events that PCRs vouch for, each answer with the event it leans on.

The log comes from the host, and no digest covers an event's type or its label. So a fact is read from bytes whose hash
is the digest, or from a digest that is compared with the hash of bytes we know. What cannot be known that way is None:
unproven, which is neither yes nor no.

An administrator of the running host can extend a PCR further, with a record to match. That shows as a PCR that no
baseline has; so a rule may lean on a fact from behind a mark only for a PCR that a baseline pins.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from attestation.core.boot import Boot, Fact, FactValue
from attestation.core.linux import linux_facts
from attestation.core.replay import LOG_PCRS, VerifiedEvent
from attestation.core.secure_boot import secure_boot_facts
from attestation.core.windows import END_OF_PHASE, windows_facts

__all__ = ["Fact", "FactValue", "read_facts"]

_EV_S_CRTM_VERSION: Final = 0x8
_MEASURED_TEXT: Final = 4096
# What the kernel's EFI stub puts before the name of what it measures: its load options, the initial ramdisk.
_STUB_TAGS: Final = (b"\xed\x22\x3b\x8f", b"\xec\x22\x3b\x8f")
_WINDOWS_SETTINGS: Final = (12, 13)
# A further command line would come with its command and its kernel: three measurements, of which none may be hidden.
_FEWEST_TO_BOOT: Final = 3


def read_facts(events: Sequence[VerifiedEvent], *, bank: str, confidential: bool = False) -> dict[str, Fact | None]:
    """Return every fact that we know to ask for, None where these events do not prove it.

    `confidential` says that the events are of a confidential guest's log (CCEL), with registers in place of PCRs.
    """
    boot = Boot(events, bank=bank, confidential=confidential)
    facts = secure_boot_facts(boot)
    facts |= {name: question(boot) for name, question in _QUESTIONS.items()}
    facts |= _linux_facts(facts["kernel_command_line"])
    windows = {} if confidential else windows_facts(events, bank=bank)
    facts |= {name: None if found is None else Fact(*found) for name, found in windows.items()}
    settings = any(found is not None and found[1] in _WINDOWS_SETTINGS for found in windows.values())
    return {"platform": _platform(boot, facts["kernel_command_line"], windows=settings), **facts}


def _platform(boot: Boot, command_line: Fact | None, *, windows: bool) -> Fact | None:
    """Which system's rules are to judge this boot: "linux" or "windows".

    What an administrator of a running Linux can add to PCRs 12 and 13 makes no Windows of it: the boot manager also
    ends PCR 14, which baselines pin, and never extends PCRs 8 and 9, which boot loaders and kernels do.
    """
    if command_line is not None and command_line.pcr in LOG_PCRS:
        return Fact("linux", command_line.pcr, command_line.event)
    section = boot.hash(b".linux\0")
    stub = next((event for event in boot.measured(9) if event.untrusted_data.startswith(_STUB_TAGS)), None)
    kernel = stub or next((event for event in boot.measured(11) if event.digest == section), None)
    if kernel is not None:
        return Fact("linux", kernel.pcr, kernel.index)
    end = boot.hash(END_OF_PHASE)
    ended = next((event for event in boot.measured(14) if event.digest == end), None)
    if not windows or ended is None or boot.measured(8) or boot.measured(9):
        return None
    return Fact("windows", ended.pcr, ended.index)


def _firmware_version(boot: Boot) -> Fact | None:
    """EV_S_CRTM_VERSION comes first in PCR 0; elsewhere the name could be put on any other event (PFP)."""
    for event in boot.measured(0)[:1]:
        if event.data is not None and event.untrusted_type == _EV_S_CRTM_VERSION:
            return _text_fact(event)
    return None


def _text_fact(event: VerifiedEvent) -> Fact | None:
    """The event's proved bytes as text, when they are text and not empty."""
    data = (event.data or b"")[:_MEASURED_TEXT]
    wide = len(data) >= 2 and len(data) % 2 == 0 and not any(data[1::2])
    text = data.decode("utf-16-le" if wide else "utf-8", "replace").rstrip("\0")
    return Fact(text, event.pcr, event.index) if text and text.isprintable() else None


def _kernel_command_line(boot: Boot) -> Fact | None:
    """What GRUB (PCR 8) or a systemd boot stub (PCR 12) handed to the kernel.

    GRUB's label is in no digest. But each line is, and only a command line begins with a path; the command that set
    it, "linux" and the same words, stands before it. A line that is not proved could be the real one, so it spoils all.
    """
    if boot.confidential:
        return _shared_command_line(boot.measured(8))
    return _grub_command_line(boot.measured(8)) if boot.measured(8) else _stub_command_line(boot)


def _stub_command_line(boot: Boot) -> Fact | None:
    """PCR 12 is in no baseline, and may be extended later by an administrator.

    So the line leans on PCR 9 where the kernel measured its load options, the same bytes, before it left the firmware.
    """
    lines = boot.measured(12)
    found = [fact for fact in map(_text_fact, lines) if fact is not None]
    if not found or len(found) != len(lines) or len({fact.value for fact in found}) != 1:
        return None
    options = next((event for event in boot.measured(9) if event.digest == lines[0].digest), None)
    return found[0] if options is None else Fact(found[0].value, 9, options.index)


def _grub_command_line(events: Sequence[VerifiedEvent]) -> Fact | None:
    if any(event.data is None for event in events):
        return None
    set_by_command, others = _grub_lines(events)
    if set_by_command:
        return _text_fact(set_by_command[-1])
    return _text_fact(others[-1]) if len({event.data for event in others}) == 1 else None


def _shared_command_line(events: Sequence[VerifiedEvent]) -> Fact | None:
    """A register that has GRUB's lines also has the files it read, whose bytes are not in the log.

    So a line counts when too few unproved measurements follow it to hide another one.
    """
    set_by_command, _ = _grub_lines(events)
    if not set_by_command:
        return None
    line = set_by_command[-1]
    hidden = {event.digest for event in events if event.data is None and event.index > line.index}
    return _text_fact(line) if len(hidden) < _FEWEST_TO_BOOT else None


def _grub_lines(events: Sequence[VerifiedEvent]) -> tuple[list[VerifiedEvent], list[VerifiedEvent]]:
    """The proved lines that begin with a path: those that a command set, and the others."""
    loaded: set[bytes] = set()
    set_by_command: list[VerifiedEvent] = []
    others: list[VerifiedEvent] = []
    for event in events:
        line = (event.data or b"").rstrip(b"\0")
        word, _, rest = line.partition(b" ")
        if word in (b"linux", b"linuxefi", b"linux16"):
            loaded.add(rest)
        elif line.startswith((b"/", b"(")):
            (set_by_command if line in loaded else others).append(event)
    return set_by_command, others


def _initial_ramdisk(boot: Boot) -> Fact | None:
    """The digest of the initrd in a unified kernel image: systemd's stub measures a section's name, then the section.

    GRUB and the kernel measure an initrd as well, but what tells it from other files there is in no digest.
    """
    name = boot.hash(b".initrd\0")
    for event, content in pairwise(boot.measured(11)):
        if event.digest == name:
            return Fact(content.digest.hex(), content.pcr, content.index)
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


_QUESTIONS: Final[Mapping[str, Callable[[Boot], Fact | None]]] = {
    "firmware_version": _firmware_version,
    "kernel_command_line": _kernel_command_line,
    "initrd": _initial_ramdisk,
}
