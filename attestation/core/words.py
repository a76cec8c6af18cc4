"""Says in words what a verified event is.

The digest of an event is proved; its type is not in any digest and much of its data is only a hint. So the name is
what the record calls itself, and `proved` says whether the text was hashed into the PCR. Words are for people: no
decision may rest on them. Whatever the bytes are, the answer is short, printable words.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

from attestation.core.event_types import type_name
from attestation.core.replay import EV_IPL, GRUB_LABELS, VerifiedEvent
from attestation.core.sipa import parse_sipa
from attestation.core.uefi import (
    GLOBAL_VARIABLE,
    Variable,
    certificate_subject,
    parse_authority,
    parse_gpt,
    parse_signature_lists,
    uefi_variable,
)
from attestation.errors import ParseError

LONGEST_TEXT: Final = 2048
EV_EFI_VARIABLE_AUTHORITY: Final = 0x800000E0

COMMAND_LINE: Final = "Kernel command line"
LOAD_OPTIONS: Final = "Kernel load options"
GRUB_COMMAND: Final = "GRUB command"
FILE_READ: Final = "File read by the boot loader"
BOOT_PROGRAM: Final = "Boot program"

_IMAGE_HEAD: Final = Struct("<QQQQ")
_BLOB: Final = Struct("<QQ")
_TAG: Final = Struct("<II")
_NODE: Final = Struct("<BBH")
_MOST_NODES: Final = 64
_TAGS: Final = {0x8F3B22ED: LOAD_OPTIONS, 0x8F3B22EC: "Initial ramdisk", 0xF5BC582A: "Boot loader configuration"}
_WINDOWS_PCRS: Final = frozenset((11, 12, 13, 14))
_SIGNATURE_LISTS: Final = frozenset(("PK", "KEK", "db", "dbx", "dbt", "dbr"))
_SEPARATORS: Final = {
    bytes(4): "the firmware hands over",
    b"\xff" * 4: "the firmware hands over",
    b"\1\0\0\0": "the firmware reports an error",
    b"WBCL": "end of a Windows boot phase",
}


@dataclass(frozen=True, slots=True)
class EventWords:
    """`proved` is about the text: it was hashed into the PCR. The name follows the record's own, unproved, type."""

    name: str
    text: str
    proved: bool


def describe(event: VerifiedEvent) -> EventWords:
    """Return what this event is, for people. Total: any bytes give words."""
    describer = _DESCRIBERS.get(event.untrusted_type, _other)
    return describer(event, event.untrusted_data if event.data is None else event.data, event.data is not None)


def secure_boot(events: Iterable[VerifiedEvent]) -> bool | None:
    """Whether the firmware measured Secure Boot as on into PCR 7; None when the proved data do not say.

    Goes by the proved bytes alone, whatever type the record claims (UEFI, "Globally Defined Variables": 1 is on).
    """
    for event in events:
        variable = uefi_variable(event.data) if event.pcr == 7 and event.data is not None else None
        if variable is not None and (variable.guid, variable.name) == (GLOBAL_VARIABLE, "SecureBoot"):
            return variable.value == b"\1"
    return None


def printable(text: str) -> str:
    """The text on one line, bounded, with everything that could move or hide letters spelt out."""
    shown = text[: LONGEST_TEXT + 1].rstrip("\0")
    shown = "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in shown)
    return shown if len(shown) <= LONGEST_TEXT else shown[: LONGEST_TEXT - 1] + "…"


def _text(data: bytes) -> str:
    """Bytes as text: UTF-16 when every second byte of the start is zero, as UEFI writes it; else UTF-8."""
    bounded = data[: 4 * LONGEST_TEXT]
    wide = len(bounded) >= 4 and len(bounded) % 2 == 0 and not any(bounded[1:64:2]) and bounded[0] != 0
    return printable(bounded.decode("utf-16-le" if wide else "utf-8", "replace"))


def _blob(data: bytes) -> str:
    """Readable data as text, anything else as its size."""
    if not data:
        return "nothing"
    body = data[:LONGEST_TEXT].rstrip(b"\0\n")
    if body and body.isascii() and all(letter >= 0x20 or letter in b"\t\n" for letter in body):
        return printable(body.decode("ascii").replace("\n", " "))
    return f"{len(data)} bytes"


def _other(event: VerifiedEvent, data: bytes, proved: bool) -> EventWords:
    return EventWords(type_name(event.untrusted_type), _blob(data), proved)


def _named(name: str) -> Callable[[VerifiedEvent, bytes, bool], EventWords]:
    return lambda event, data, proved: EventWords(name, _text(data) or "nothing", proved)


def _separator(event: VerifiedEvent, data: bytes, proved: bool) -> EventWords:
    return EventWords("Separator", _SEPARATORS.get(data, "an unexpected separator"), proved)


def _variable(event: VerifiedEvent, data: bytes, proved: bool) -> EventWords:
    variable = uefi_variable(data)
    if variable is None:
        # Some firmware hashes the value alone; then the name in the record proves nothing.
        variable = uefi_variable(event.untrusted_data)
        proved = False
    if variable is None:
        return EventWords("UEFI variable", _blob(data), False)
    kind = "Secure Boot authority" if event.untrusted_type == EV_EFI_VARIABLE_AUTHORITY else "UEFI variable"
    text = _signatures(variable, event.untrusted_type == EV_EFI_VARIABLE_AUTHORITY) or _variable_text(variable)
    return EventWords(printable(f"{kind} {variable.name}")[:120], text, proved)


def _signatures(variable: Variable, authority: bool) -> str:
    """Whom a signature list or an authority names, and how many hashes it has; empty when it is neither."""
    if variable.name not in _SIGNATURE_LISTS or not variable.value:
        return ""
    try:
        found = (parse_authority(variable.value),) if authority else parse_signature_lists(variable.value)
    except ParseError:
        return ""
    names = [certificate_subject(each.data) or "an unreadable certificate" for each in found if each.kind == "x509"]
    hashes = len(found) - len(names)
    return printable("; ".join([*names, *([f"{hashes} hashes" if hashes != 1 else "1 hash"] if hashes else [])]))


def _variable_text(variable: Variable) -> str:
    name, value, known = variable.name, variable.value, variable.guid == GLOBAL_VARIABLE
    if known and name == "SecureBoot":
        return "on" if value == b"\1" else "off"
    if known and name == "BootOrder":
        return " ".join(f"{value[at + 1]:02X}{value[at]:02X}" for at in range(0, min(len(value) - 1, 128), 2))
    if known and name.startswith("Boot") and len(name) == 8:
        # EFI_LOAD_OPTION: attributes, length of the device paths, then the description.
        description = value[6 : 2 * LONGEST_TEXT].decode("utf-16-le", "replace").partition("\0")[0]
        return printable(description) or _blob(value)
    return _blob(value)


def _ipl(event: VerifiedEvent, data: bytes, proved: bool) -> EventWords:
    label = next((label for label in GRUB_LABELS if event.untrusted_data.startswith(label)), None)
    if label is not None:
        # Proved data are shown whole: a label that was hashed too is part of what was measured.
        return EventWords(_GRUB_NAMES[label.strip(b": ")], _text(data if proved else data[len(label) :]), proved)
    if event.pcr == 12 and proved:
        return EventWords(COMMAND_LINE, _text(data), True)
    return EventWords(_IPL_NAMES.get(event.pcr, "Boot loader event"), _text(data), proved)


def _tag(event: VerifiedEvent, data: bytes, proved: bool) -> EventWords:
    # The data of a tagged event is only a label; its digest is over what the label names (Linux, EFI stub).
    if len(data) < _TAG.size:
        return _other(event, data, proved)
    number, size = _TAG.unpack_from(data)
    name = _TAGS.get(number)
    if name is None and event.pcr in _WINDOWS_PCRS:
        return EventWords("Windows boot record", _windows_words(data), proved)
    if name is None:
        return EventWords(f"Tagged event {number:#010x}", f"{size} bytes", proved)
    return EventWords(name, _text(data[_TAG.size : _TAG.size + size]), proved)


def _windows_words(data: bytes) -> str:
    try:
        return f"{sum(1 for outer in parse_sipa(data) for _ in outer.walk())} records"
    except ParseError:
        return f"{len(data)} unreadable bytes"


def _image(event: VerifiedEvent, data: bytes, proved: bool) -> EventWords:
    # UEFI_IMAGE_LOAD_EVENT is never hashed; the digest is the program's Authenticode hash.
    name = BOOT_PROGRAM if event.untrusted_type == 0x80000003 else "Firmware driver"
    path = _file_path(data[_IMAGE_HEAD.size :])
    return EventWords(name, path or "loaded from memory", proved)


def _file_path(path: bytes) -> str:
    """The file name nodes of a UEFI device path (UEFI, "Media Device Path"): type 4, sub-type 4, UTF-16."""
    names = []
    offset = 0
    for _ in range(_MOST_NODES):
        if len(path) - offset < _NODE.size:
            break
        kind, subtype, size = _NODE.unpack_from(path, offset)
        if size < _NODE.size or kind == 0x7F:
            break
        if (kind, subtype) == (4, 4):
            node = path[offset + _NODE.size : offset + min(size, LONGEST_TEXT)]
            names.append(node.decode("utf-16-le", "replace").rstrip("\0"))
        offset += size
    return printable("\\".join(names).replace("\\\\", "\\"))


def _partition_table(event: VerifiedEvent, data: bytes, proved: bool) -> EventWords:
    try:
        table = parse_gpt(data)
    except ParseError:
        return EventWords("Partition table", f"{len(data)} bytes", proved)
    names = ", ".join(each.name or str(each.kind) for each in table.partitions)
    return EventWords("Partition table", printable(f"disk {table.disk}: {names or 'no partition'}"), proved)


def _firmware(event: VerifiedEvent, data: bytes, proved: bool) -> EventWords:
    if len(data) == _BLOB.size:
        base, size = _BLOB.unpack(data)
        return EventWords("Firmware volume", f"{size} bytes at {base:#x}", proved)
    return EventWords("Firmware volume", _blob(data), proved)


_GRUB_NAMES: Final = {
    b"kernel_cmdline": COMMAND_LINE,
    b"grub_kernel_cmdline": COMMAND_LINE,
    b"module_cmdline": "Module command line",
    b"grub_module_cmdline": "Module command line",
    b"grub_cmd": GRUB_COMMAND,
}
_IPL_NAMES: Final = {8: GRUB_COMMAND, 9: FILE_READ, 11: "Unified kernel section", 14: "Machine owner keys"}
_DESCRIBERS: Final[Mapping[int, Callable[[VerifiedEvent, bytes, bool], EventWords]]] = {
    0x1: _named("Firmware code"),
    0x4: _separator,
    0x5: _named("Firmware action"),
    0x6: _tag,
    0x8: _named("Firmware version"),
    EV_IPL: _ipl,
    0x80000001: _variable,
    0x80000002: _variable,
    0x8000000C: _variable,
    EV_EFI_VARIABLE_AUTHORITY: _variable,
    0x80000003: _image,
    0x80000004: _image,
    0x80000005: _image,
    0x80000006: _partition_table,
    0x80000007: _named("Firmware action"),
    0x80000008: _firmware,
    0x8000000A: _firmware,
}
