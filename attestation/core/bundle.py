"""Bundles of certificates, in every form that makers and platforms hand them out in.

PEM with one or many, DER with one or several, PKCS #7 (.p7b), ZIP, and cabinets such as Microsoft's TrustedTpm.cab.
What is found are candidates: raw bytes with the path they came by. One that cannot be read spoils no other.
"""

import binascii
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import Final

from attestation.core.cabinet import MAGIC, PackedFile, read_cabinet
from attestation.core.certificate_reader import CERTIFICATE_LIMIT, plain
from attestation.core.der import SEQUENCE, Element, read_element, read_elements
from attestation.errors import ParseError, TooLarge

BUNDLE_LIMIT: Final = 8 * 1024 * 1024
UNPACKED_LIMIT: Final = 32 * 1024 * 1024
MOST_FILES: Final = 8192
MOST_CERTIFICATES: Final = 8192
LARGEST_RATIO: Final = 100
PATH_LIMIT: Final = 300

_ZIP: Final = b"PK\x03\x04"
_ZIP_ENTRY: Final = b"PK\x01\x02"
_BEGIN, _END, _DASHES = b"-----BEGIN ", b"-----END ", b"-----"
_CERTIFICATE_LABELS: Final = {b"CERTIFICATE", b"X509 CERTIFICATE"}
_PKCS7_LABELS: Final = {b"PKCS7", b"CMS"}
_SIGNED_DATA: Final = bytes.fromhex("06092a864886f70d010702")
_CONTEXT_0: Final = 0xA0
_ENDINGS: Final = (".cer", ".crt", ".der", ".pem", ".p7b", ".p7c")
# Everything that Python's zipfile raises on damaged or unusual files, by its source.
_BAD_ZIP: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,  # zipfile's own, for a compression or a version that it does not read
    RuntimeError,
    ValueError,
    EOFError,
    OverflowError,
    LookupError,
)


class Form(StrEnum):
    """How a bundle holds its certificates."""

    PEM = "PEM"
    DER = "DER"
    PKCS7 = "PKCS #7"
    ZIP = "ZIP"
    CABINET = "cabinet"


@dataclass(frozen=True, slots=True)
class Candidate:
    """What should be a certificate: its bytes, and the path in its archive; `problem` says why there are no bytes."""

    path: str
    der: bytes
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The candidates of a file, in their order there, and the files beside them that are no certificates."""

    form: Form
    candidates: tuple[Candidate, ...]
    ignored: tuple[str, ...]


def read_bundle(data: bytes) -> Bundle:
    """Return what a bundle holds, or raise ParseError when it holds no certificate or breaks a bound."""
    if len(data) > BUNDLE_LIMIT:
        raise TooLarge(f"The file is larger than {BUNDLE_LIMIT >> 20} MiB.")
    form = _form(data)
    if form is None:
        raise ParseError("The file is no certificate, and no PEM, DER, PKCS #7, ZIP or cabinet file with some.")
    candidates: list[Candidate] = []
    ignored: list[str] = []
    for file in _ARCHIVES[form](data) if form in _ARCHIVES else [PackedFile("", data)]:
        found = list(_candidates(file))
        candidates += found
        ignored += [] if found else [plain(file.path, limit=PATH_LIMIT)]
        if len(candidates) > MOST_CERTIFICATES:
            raise TooLarge(f"The file holds more than {MOST_CERTIFICATES} certificates.")
    if not candidates:
        raise ParseError(f"The {form.value} file holds no certificate.")
    return Bundle(form, tuple(candidates), tuple(ignored))


def _form(data: bytes) -> Form | None:
    if data.startswith(MAGIC):
        return Form.CABINET
    if data.startswith(_ZIP):
        return Form.ZIP
    return _plain_form(data)


def _plain_form(data: bytes) -> Form | None:
    """Tell what needs no unpacking; an archive within an archive is none of these, so nothing nests."""
    if data[:1] == bytes((SEQUENCE,)):
        return Form.PKCS7 if _SIGNED_DATA in data[:32] else Form.DER
    return Form.PEM if _BEGIN in data else None


def _candidates(file: PackedFile) -> Iterator[Candidate]:
    form, path = _plain_form(file.content), plain(file.path, limit=PATH_LIMIT)
    if form is None:
        if path.lower().endswith(_ENDINGS):
            yield Candidate(path, b"", "The file is neither PEM nor DER.")
        return
    try:
        for found in _READERS[form](file.content):
            problem = str(found) if isinstance(found, ParseError) else ""
            yield Candidate(path, b"" if isinstance(found, ParseError) else found, problem)
    except ParseError as error:
        yield Candidate(path, b"", str(error))


def _from_der(data: bytes) -> Iterator[bytes]:
    """Yield one certificate after the other; what follows the last, and begins none, stays with it as padding."""
    at = 0
    while at < len(data):
        size = len(read_element(data[at : at + CERTIFICATE_LIMIT + 8], largest=CERTIFICATE_LIMIT).raw)
        more = data[at + size : at + size + 1] == bytes((SEQUENCE,))
        end = at + size if more else len(data)
        yield data[at:end]
        at = end


def _from_pem(data: bytes) -> Iterator[bytes | ParseError]:
    """Yield what is between the lines of RFC 7468; other labels and the text around are passed over.

    A block that is no base64 is yielded as its error, since the next block begins anew.
    """
    at = data.find(_BEGIN)
    while at >= 0:
        label_at = at + len(_BEGIN)
        label = data[label_at : max(data.find(_DASHES, label_at, label_at + 64), label_at)]
        end = data.find(_END + label + _DASHES, label_at)
        if not label or end < 0:
            raise ParseError(f"PEM at offset {at}: a beginning without its end.")
        try:
            if label in _CERTIFICATE_LABELS | _PKCS7_LABELS:
                content = _base64(data[label_at + len(label) + len(_DASHES) : end])
                yield from _from_pkcs7(content) if label in _PKCS7_LABELS else (content,)
        except ParseError as error:
            yield ParseError(f"PEM at offset {at}: {error}")
        at = data.find(_BEGIN, end)


def _base64(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(b"".join(text.split()), strict_mode=True)
    except binascii.Error as error:
        raise ParseError(f"no base64 ({error}).") from error


def _from_pkcs7(data: bytes) -> Iterator[bytes]:
    """Yield the certificates of a SignedData (RFC 5652, 5.1); its signatures, if any, say nothing here."""
    content = _child(_element(read_element(data, largest=BUNDLE_LIMIT), SEQUENCE), 1, _CONTEXT_0)
    signed = _child(content, 0, SEQUENCE)
    certificates = _child(signed, 3, _CONTEXT_0)
    for element in read_elements(certificates.value, largest=BUNDLE_LIMIT):
        if element.tag == SEQUENCE:
            yield element.raw


def _child(parent: Element, index: int, tag: int) -> Element:
    children = list(read_elements(parent.value, largest=BUNDLE_LIMIT))
    if index >= len(children):
        raise ParseError("This PKCS #7 holds no certificates.")
    return _element(children[index], tag)


def _element(element: Element, tag: int) -> Element:
    if element.tag != tag:
        raise ParseError("This PKCS #7 holds no certificates.")
    return element


def _from_zip(data: bytes) -> Iterator[PackedFile]:
    """Yield the files of a ZIP archive, none of them before all claims are within bounds."""
    if data.count(_ZIP_ENTRY) > MOST_FILES:
        raise TooLarge(f"The ZIP file holds more than {MOST_FILES} files.")
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _require_modest(entries)
            for entry in entries:
                with archive.open(entry) as file:
                    yield PackedFile(entry.filename, file.read(entry.file_size))
    except _BAD_ZIP as error:
        raise ParseError(f"The ZIP file cannot be read: {error}.") from error


def _require_modest(entries: Iterable[zipfile.ZipInfo]) -> None:
    left = UNPACKED_LIMIT
    for entry in entries:
        left -= entry.file_size
        if left < 0 or entry.file_size > LARGEST_RATIO * max(entry.compress_size, 1):
            raise TooLarge("The ZIP file holds more than is unpacked.")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ParseError("The ZIP file is packed in an unusual way. Pack it again, with deflate.")


def _from_cabinet(data: bytes) -> Iterable[PackedFile]:
    return read_cabinet(data, most_files=MOST_FILES, unpacked_limit=UNPACKED_LIMIT)


_ARCHIVES: Final[dict[Form, Callable[[bytes], Iterable[PackedFile]]]] = {
    Form.ZIP: _from_zip,
    Form.CABINET: _from_cabinet,
}
_READERS: Final[dict[Form, Callable[[bytes], Iterator[bytes | ParseError]]]] = {
    Form.PEM: _from_pem,
    Form.DER: _from_der,
    Form.PKCS7: _from_pkcs7,
}
