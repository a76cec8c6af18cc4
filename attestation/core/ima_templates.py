"""Reads what a line of an IMA list says, and turns the text form of a list into the binary one.

Documentation/security/IMA-templates.rst. A template is a row of fields; all but the legacy one write each field as its
length and its content. The words of a line are worth as much as the line: replay proves it, this module only reads it.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from struct import Struct
from typing import Final

from attestation.core.ima import IMA_LIMIT, ima_records
from attestation.errors import ParseError, TooLarge

LONGEST_PATH: Final = 4096
BOOT_AGGREGATE: Final = b"boot_aggregate"
DIGEST_SIZES: Final[Mapping[str, int]] = {"sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64}

TEMPLATES: Final[Mapping[str, str]] = {
    "ima": "d|n",
    "ima-ng": "d-ng|n-ng",
    "ima-ngv2": "d-ngv2|n-ng",
    "ima-sig": "d-ng|n-ng|sig",
    "ima-sigv2": "d-ngv2|n-ng|sig",
    "ima-buf": "d-ng|n-ng|buf",
    "ima-modsig": "d-ng|n-ng|sig|d-modsig|modsig",
}

_U32: Final = Struct("<I")
_UNSAFE: Final = re.compile(rb"[^\x20-\x5b\x5d-\x7e]")
_LEGACY: Final = "ima"
_LEGACY_DIGEST: Final = 20
_FILE_DIGESTS: Final = frozenset({"d-ng", "d-ngv2"})
_NAME_FIELD: Final = "n-ng"
_BINARY_FIELDS: Final = frozenset({"sig", "buf", "modsig"})
_LONGEST_ALGORITHM: Final = 64
_LONGEST_DIGEST: Final = 64
_LONGEST_LINE: Final = 4 << 20
_VERSIONED_FILE: Final = "ima:"  # d-ngv2 says whether the digest is the file's own or its fs-verity digest


# By the length of its name, the head of a line of the two usual templates with a SHA-256 file digest: the name with
# its size, size of the template data, size of the digest field, the field, size of the path; where the path begins;
# the name again; what follows the path.
_USUAL: Final = {
    len(name): (Struct(f"<{4 + len(name)}sII40sI").unpack_from, 56 + len(name), _U32.pack(len(name)) + name, behind)
    for name, behind in ((b"ima-ng", b"\0"), (b"ima-sig", b"\0" + bytes(4)))
}
_USUAL_DIGEST: Final = 40
_NEVER: Final = (Struct("").unpack_from, 0, b"", b"")


class BootAggregate(Enum):
    """What a boot_aggregate entry is the digest of; kernels before 5.8 left PCRs 8 and 9 out."""

    PCRS_0_TO_9 = "0-9"
    PCRS_0_TO_7 = "0-7"
    DIFFERS = "differs"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True)
class ImaEntry:
    """One line in words. `path` is bytes, as the kernel's are; for ima-buf it names what was measured.

    `algorithm` is the digest's ("sha256"), with "verity:" before it when the digest is not of the file's bytes but of
    its fs-verity descriptor. Fields that the template does not have are empty.
    """

    template: str
    path: bytes
    algorithm: str
    digest: bytes
    signature: bytes = b""
    buffer: bytes = b""
    modsig_digest: str = ""
    modsig: bytes = b""

    @property
    def template_digest(self) -> bytes:
        """Algorithm and digest as the current templates write them, whatever this one does."""
        return self.algorithm.encode("ascii", "replace") + b":\0" + self.digest

    @property
    def file_digest(self) -> str:
        return f"{self.algorithm}:{self.digest.hex()}"

    @property
    def shown_path(self) -> str:
        """The path for people: what could break a line or a terminal is escaped."""
        text = self.path.decode("utf-8", "backslashreplace")
        return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def path_text(path: bytes) -> str:
    """Write a path in printable ASCII that stands for it alone: every other byte, and a backslash, as "\\xNN"."""
    return _UNSAFE.sub(lambda found: b"\\x%02x" % found.group()[0], path).decode("ascii")


def decode_line(line: bytes) -> ImaEntry:
    """Read a line (see `attestation.core.ima`); ParseError names the byte of the line where it is wrong."""
    name, at = _sized(line, 0)
    try:
        template = name.decode("ascii")
    except UnicodeDecodeError:
        raise ParseError("The template name at byte 4 of the IMA entry is not ASCII.") from None
    if template == _LEGACY:
        path, behind = _sized(line, at + _LEGACY_DIGEST)
        _ends(line, behind)
        return ImaEntry(template, _path(path, at), "sha1", line[at : at + _LEGACY_DIGEST])
    size, at = _size(line, at)
    if size != len(line) - at:
        raise ParseError(f"The template data at byte {at} of the IMA entry does not fill the entry.")
    values: dict[str, bytes] = {}
    for kind in _fields(template):
        values[kind], behind = _sized(line, at)
        if kind == _NAME_FIELD:
            values[kind] = _terminated(values[kind], at)
        at = behind
    _ends(line, at)
    return _entry(template, values)


def ima_entries(data: bytes) -> Iterator[tuple[int, ImaEntry, bool]]:
    """Read a binary list: each record's PCR, entry, and whether it is a violation (then no word of it is proved)."""
    for pcr, listed, line, _, end in ima_records(data):
        try:
            yield pcr, decode_line(line), not any(listed)
        except ParseError as error:
            raise ParseError(f"{error} The entry ends at byte {end} of the list.") from None


def path_and_digest(line: bytes) -> tuple[bytes, bytes]:
    """Return `decode_line(line)`'s path and template_digest; quickly for the usual lines, which nearly all are."""
    unpack, begin, expected, behind = _USUAL.get(line[0], _NEVER) if line else _NEVER
    if len(line) > begin > 0:
        name, size, digest_size, digest, path_size = unpack(line)
        end = begin + path_size - 1
        path = line[begin:end]
        if (
            name == expected
            and digest_size == _USUAL_DIGEST
            and 0 < path_size <= LONGEST_PATH
            and size == len(line) - begin + _USUAL_DIGEST + 8
            and (line[end:] == behind or (len(behind) > 1 and _is_sized(line, end)))
            and digest.startswith(b"sha256:\0")
            and b"\0" not in path
        ):
            return path, digest
    entry = decode_line(line)
    return entry.path, entry.template_digest


def usual_line(path: bytes, digest: bytes) -> bytes:
    """Return the line that a kernel writes for a file under ima-ng, its usual template: `path_and_digest` undone."""
    name, data = b"ima-ng", _field(digest) + _field(path + b"\0")
    return _field(name) + _field(data)


def _is_sized(line: bytes, end: int) -> bool:
    """Whether a path ends here, and one more field fills the line: a file's signature."""
    return len(line) >= end + 5 and line[end] == 0 and _U32.unpack_from(line, end + 1)[0] == len(line) - end - 5


def boot_aggregate(entry: ImaEntry, *, pcrs: Mapping[int, bytes], bank: str) -> BootAggregate:
    """Hold a boot_aggregate entry against the quoted PCRs of a bank; one of another bank cannot be proved by them."""
    if entry.algorithm != bank or any(pcr not in pcrs for pcr in range(10)):
        return BootAggregate.UNPROVEN
    for last, outcome in ((9, BootAggregate.PCRS_0_TO_9), (7, BootAggregate.PCRS_0_TO_7)):
        if hashlib.new(bank, b"".join(pcrs[pcr] for pcr in range(last + 1))).digest() == entry.digest:
            return outcome
    return BootAggregate.DIFFERS


def is_text(data: bytes) -> bool:
    """Tell the text form (ascii_runtime_measurements) from the binary one, whose first byte is a PCR's number."""
    return data[:1] != b"" and data[:1] in b" 0123456789"


def binary_from_text(data: bytes) -> bytes:
    """Turn ascii_runtime_measurements into the binary list that the same kernel would give, or raise ParseError.

    A path with a newline cannot be told from two lines: such a list is refused or does not lead to PCR 10, and the
    binary form is the one to send.
    """
    if len(data) > IMA_LIMIT:
        raise TooLarge(f"The IMA list has {len(data)} bytes; the limit is reached at byte {IMA_LIMIT}.")
    parts, offset = [], 0
    for text in data.split(b"\n"):
        if text:
            try:
                parts.append(_binary_record(text))
            except ParseError as error:
                raise ParseError(f"The line at byte {offset} of the IMA list is malformed. {error}") from None
            except ValueError:  # another number of words, odd digits, a name that is not ASCII
                raise ParseError(f"The line at byte {offset} of the IMA list is malformed.") from None
        elif offset < len(data):
            raise ParseError(f"The line at byte {offset} of the IMA list is empty.")
        offset += len(text) + 1
    return b"".join(parts)


def _binary_record(text: bytes) -> bytes:
    if len(text) > _LONGEST_LINE:
        raise ParseError(f"It is longer than {_LONGEST_LINE} bytes.")
    pcr, listed, name, *words = text.lstrip(b" ").split(b" ")
    if not pcr.isdigit() or len(pcr) > 2:
        raise ParseError("It does not begin with a PCR.")
    head = _U32.pack(int(pcr)) + _hex(listed) + _field(name)
    template = name.decode("ascii")
    if template == _LEGACY:
        digest, path = words
        if len(digest) != 2 * _LEGACY_DIGEST:
            raise ParseError("Its digest is not SHA-1.")
        return head + _hex(digest) + _field(path)
    kinds = _fields(template)
    if len(words) > len(kinds):
        raise ParseError("It has more fields than its template.")
    words += [b""] * (len(kinds) - len(words))  # an editor took away the blank before an empty field
    return head + _field(b"".join(_field(_binary_field(kind, word)) for kind, word in zip(kinds, words, strict=True)))


def _binary_field(kind: str, word: bytes) -> bytes:
    if kind in _BINARY_FIELDS:
        return _hex(word)
    if kind == _NAME_FIELD:
        return word + b"\0"
    if not word:
        return b""
    algorithm, colon, digest = word.rpartition(b":")
    if not colon:
        raise ParseError("A digest names no algorithm.")
    return algorithm + b":\0" + _hex(digest)


def _hex(text: bytes) -> bytes:
    """bytes.fromhex would let blanks pass."""
    if not text.isalnum() and text:
        raise ParseError("A field is not hexadecimal.")
    return bytes.fromhex(text.decode("ascii"))


def _field(content: bytes) -> bytes:
    return _U32.pack(len(content)) + content


def _fields(template: str) -> tuple[str, ...]:
    """The fields of a template by name, or of one that the kernel's command line put together ("d-ng|n-ng").

    No digest covers a template's name. So whatever it says, the file's digest is the first field and its path the
    second: else a host could let another field of the same line, such as the digest of a module without its appended
    signature, pass for the file's.
    """
    kinds = tuple(TEMPLATES.get(template, template).split("|"))
    rest = kinds[2:]
    known = set(rest) <= {*_BINARY_FIELDS, "d-modsig"} and len(set(rest)) == len(rest)
    if not known or kinds[0] not in _FILE_DIGESTS or kinds[1:2] != (_NAME_FIELD,):
        raise ParseError(f"The IMA template {template[:64]!r} is not known.")
    return kinds


def _entry(template: str, values: Mapping[str, bytes]) -> ImaEntry:
    algorithm, digest = _digest(values.get("d-ng", b"") or values.get("d-ngv2", b""))
    modsig_algorithm, modsig_digest = _digest(values["d-modsig"]) if values.get("d-modsig") else ("", b"")
    return ImaEntry(
        template=template,
        path=values[_NAME_FIELD],
        algorithm=algorithm.removeprefix(_VERSIONED_FILE),
        digest=digest,
        signature=values.get("sig", b""),
        buffer=values.get("buf", b""),
        modsig_digest=f"{modsig_algorithm}:{modsig_digest.hex()}" if modsig_algorithm else "",
        modsig=values.get("modsig", b""),
    )


def _digest(value: bytes) -> tuple[str, bytes]:
    """Split "sha256:", a NUL and the digest; the digest has its algorithm's size, where we know that."""
    name, separator, digest = value.partition(b":\0")
    algorithm = name.decode("ascii", "replace")
    plain = algorithm.rpartition(":")[2]
    if not separator or not algorithm.isprintable() or not plain or len(name) > _LONGEST_ALGORITHM:
        raise ParseError("The digest field of the IMA entry does not name its algorithm.")
    if not 0 < len(digest) <= _LONGEST_DIGEST or len(digest) != DIGEST_SIZES.get(plain, len(digest)):
        raise ParseError(f"The digest field of the IMA entry has {len(digest)} bytes of {algorithm}.")
    return algorithm, digest


def _terminated(name: bytes, at: int) -> bytes:
    if not name.endswith(b"\0"):
        raise ParseError(f"The name at byte {at} of the IMA entry does not end with NUL.")
    return _path(name[:-1], at)


def _path(name: bytes, at: int) -> bytes:
    """No name of the kernel's has a NUL: what has one was made to be read as two things."""
    if len(name) > LONGEST_PATH or b"\0" in name:
        raise ParseError(f"The name at byte {at} of the IMA entry is too long or holds a NUL.")
    return name


def _ends(line: bytes, at: int) -> None:
    if at != len(line):
        raise ParseError(f"The IMA entry has {len(line) - at} bytes at byte {at}, behind its last field.")


def _sized(line: bytes, at: int) -> tuple[bytes, int]:
    size, at = _size(line, at)
    if size > len(line) - at:
        raise ParseError(f"A field at byte {at} of the IMA entry claims {size} bytes.")
    return line[at : at + size], at + size


def _size(line: bytes, at: int) -> tuple[int, int]:
    if at + 4 > len(line):
        raise ParseError(f"The IMA entry ends at byte {len(line)}, before its next field.")
    return _U32.unpack_from(line, at)[0], at + 4
