"""An IMA list as fields, for `guardhouse inspect`."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from attestation.core.comparison import Banks
from attestation.core.ima import IMA_BANKS, IMA_PCR, Extension, ima_records, ima_values, replay_list
from attestation.core.ima_templates import binary_from_text, is_text
from attestation.errors import ImaMismatch, ParseError
from cli.inspect_tables import bank_fields, warning


def read_ima(data: bytes, *, measured: Banks | None) -> Mapping[str, Any]:
    """The list in its binary or its text form; every bank is what the kernel extends since 5.8."""
    binary, warnings = _binary(data)
    templates: Counter[str] = Counter()
    violations = 0
    for _, listed, line, _, _ in ima_records(binary):
        size = int.from_bytes(line[:4], "little")
        templates[line[4 : 4 + size].decode("ascii", "replace")] += 1
        violations += not any(listed)
    banks = {bank: ima_values(binary, bank=bank, extension=Extension.REHASHED) for bank in IMA_BANKS}
    return {
        "entries": templates.total(),
        "violations": violations,
        "templates": dict(templates),
        "banks": bank_fields(banks),
        "warnings": warnings + ([] if measured is None else _comparison(binary, banks, measured)),
    }


def _binary(data: bytes) -> tuple[bytes, list[dict[str, Any]]]:
    """The binary list. Tools for text leave a newline behind it, which is not the kernel's and no record's begin."""
    if is_text(data):
        return binary_from_text(data), []
    if data.endswith(b"\n") and not _readable(data) and _readable(data[:-1]):
        return data[:-1], [warning("trailing_newline", "A newline follows the list; the kernel wrote none.")]
    return data, []


def _readable(data: bytes) -> bool:
    try:
        return sum(1 for _ in ima_records(data)) > 0
    except ParseError:
        return False


def _comparison(data: bytes, banks: Banks, measured: Banks) -> list[dict[str, Any]]:
    """A list grows while a host runs, so PCR values that a part of it leads to are as good as any."""
    common = [bank for bank in banks if IMA_PCR in measured.get(bank, {})]
    if not common:
        return [warning("bank_absent", "There is no value of PCR 10 to compare with.")]
    found = (_difference(data, bank, banks[bank].get(IMA_PCR), measured[bank][IMA_PCR]) for bank in common)
    return [each for each in found if each is not None]


def _difference(data: bytes, bank: str, led: bytes | None, value: bytes) -> dict[str, Any] | None:
    if led == value:
        return None
    for extension in Extension:
        try:
            replayed = replay_list(data, quoted=value, bank=bank, extension=extension)
        except ImaMismatch:
            continue
        if extension is Extension.INSECURE_PADDED_SHA1:
            text = f"PCR 10 ({bank}) was extended with SHA-1 digests and zeros, by a kernel before 5.8."
            return warning("insecure_padded_sha1", text)
        text = f"PCR 10 ({bank}) covers the first {replayed.position.entries} entries of the list."
        return warning("list_longer", text)
    return warning("pcr_mismatch", f"PCR 10 ({bank}) is not what any part of the list leads to.")
