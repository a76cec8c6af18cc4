"""What the runtime policy's findings say, and how many of them: the first files of each kind, then a count."""

from collections import defaultdict
from collections.abc import Callable
from typing import Final

from attestation.core.finding import Deviation, Finding
from attestation.core.ima import IMA_PCR
from attestation.core.ima_templates import ImaEntry, decode_line, path_text
from attestation.errors import ParseError

SHOWN_FINDINGS: Final = 20
MEASURED_FILE: Final = "Measured file"

_SUBSTATUS: Final = "CodeIntegrityPolicy"
_SHOWN_DIGESTS: Final = 3
_SHOWN_PATH: Final = 300
_ACCEPT: Final = "if the file is meant to be there, accept its digest in the runtime policy"
_RESTART: Final = "then start the host again, because the list keeps every entry until then"

# A code, and what makes its finding: nobody reads the ten thousandth, so it is not made.
Trouble = tuple[str, Callable[[], Finding]]

_MORE: Final = {
    "ima_unknown_file": "files that nobody approved were measured",
    "ima_changed_file": "files are not as approved",
    "ima_violation": "files could not be measured",
    "ima_bad_signature": "files carry a signature that does not hold",
    "ima_boot_aggregate": "boot aggregates do not fit the quote",
    "ima_unreadable_entry": "entries cannot be read",
}


def finding(code: str, what: str, why: str, remedy: str, deviations: tuple[Deviation, ...] = ()) -> Finding:
    return Finding(code, _SUBSTATUS, what, why, remedy, (IMA_PCR,), deviations=deviations)


def _deviation(entry: ImaEntry, expected: str = "") -> tuple[Deviation, ...]:
    """The file as a runtime policy's text names it, so that it can be accepted just as it was found."""
    return (Deviation(IMA_PCR, MEASURED_FILE, path_text(entry.path), True, expected, entry.file_digest),)


NO_BOOT_AGGREGATE: Final = finding(
    "ima_boot_aggregate",
    "The IMA list does not begin with the boot that it belongs to.",
    "It has no proved boot_aggregate entry, by which the kernel ties the list to PCRs 0 to 9.",
    "Start the host with its TPM switched on and IMA built into the kernel.",
)


class Groups:
    """Collects findings in bounded memory, however many files are wrong."""

    def __init__(self) -> None:
        self._shown: defaultdict[str, list[Finding]] = defaultdict(list)
        self._more: defaultdict[str, int] = defaultdict(int)

    def add(self, trouble: Trouble) -> None:
        code, make = trouble
        if len(self._shown[code]) < SHOWN_FINDINGS:
            self._shown[code].append(make())
        else:
            self._more[code] += 1

    def findings(self) -> tuple[Finding, ...]:
        return tuple(each for code in self._shown for each in (*self._shown[code], *self._count(code)))

    def _count(self, code: str) -> tuple[Finding, ...]:
        if code not in self._more:
            return ()
        first = self._shown[code][0]
        what = f"{self._more[code]} more {_MORE[code]}."
        return (finding(code, what, f"Only the first {SHOWN_FINDINGS} are shown.", first.remedy),)


def unknown_file(entry: ImaEntry) -> Finding:
    why = f"The runtime policy does not name it. Its digest is {entry.file_digest}."
    if entry.signature:
        why += " It carries a signature, by none of the policy's signing certificates."
    remedy = f"Remove the file, {_RESTART}; {_ACCEPT}."
    what = f"{_quoted(entry)} was measured, and nobody approved it."
    return finding("ima_unknown_file", what, why, remedy, _deviation(entry))


def changed_file(entry: ImaEntry, approved: tuple[bytes, ...]) -> Finding:
    shown = [_readable(digest) for digest in approved[:_SHOWN_DIGESTS]]
    if len(approved) > _SHOWN_DIGESTS:
        shown.append(f"{len(approved) - _SHOWN_DIGESTS} more")
    why = f"Its digest is {entry.file_digest}; the runtime policy accepts {' or '.join(shown)}."
    remedy = f"Restore the approved file, {_RESTART}; {_ACCEPT}."
    what, expected = f"{_quoted(entry)} is not as approved.", _readable(approved[0]) if approved else ""
    return finding("ima_changed_file", what, why, remedy, _deviation(entry, expected))


def bad_signature(entry: ImaEntry, reason: str) -> Finding:
    return finding(
        "ima_bad_signature",
        f"The signature of {_quoted(entry)} does not hold.",
        f"{reason} The file's digest is {entry.file_digest}.",
        f"Install the file as its maker signed it, {_RESTART}; {_ACCEPT}.",
    )


def violation(untrusted_line: bytes) -> Finding:
    """The kernel extends ones for a violation: that one happened is proved, the name of the file is not."""
    try:
        name = f"the list calls it {_quoted(decode_line(untrusted_line))}"
    except ParseError:
        name = "the list gives it no readable name"
    return finding(
        "ima_violation",
        f"A file could not be measured; {name}.",
        "It was open for writing while it was measured, so what was run or read is not known. The name is not proved.",
        f"Stop what writes to measured files, or leave them out of the kernel's IMA policy, {_RESTART}.",
    )


def other_boot_aggregate(entry: ImaEntry) -> Finding:
    return finding(
        "ima_boot_aggregate",
        "The IMA list belongs to another boot.",
        f"Its boot aggregate {entry.file_digest} is not the digest of the quoted PCRs 0 to 9, or 0 to 7.",
        "Start the host again; if it stays, the kernel cannot use the TPM yet when IMA begins: build its driver in.",
    )


def unreadable(reason: str) -> Finding:
    return finding(
        "ima_unreadable_entry",
        "An entry of the IMA list cannot be read.",
        f"The TPM vouches for it, but it is not of a known template. {reason}",
        "Use one of the kernel's IMA templates, such as ima-ng or ima-sig, and start the host again.",
    )


def _quoted(entry: ImaEntry) -> str:
    path = entry.shown_path
    return f"“{path if len(path) <= _SHOWN_PATH else path[: _SHOWN_PATH - 1] + '…'}”"


def _readable(digest: bytes) -> str:
    name, _, value = digest.partition(b":\0")
    return f"{name.decode('ascii', 'replace')}:{value.hex()}"
