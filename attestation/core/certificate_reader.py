"""Certificates as TPM makers really write them: read with named tolerances, so that each can be allowed or not.

Nothing is forgiven silently. Whoever trusts a certificate decides whether it may have needed what `tolerances` names.
The issuer's signature is verified over `body`, the bytes as they came: what is mended is mended for the parser alone.
"""

import hashlib
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from attestation.core.der import SEQUENCE, VERSION, Element, encode_element, read_element, read_elements, sort_sets
from attestation.errors import ParseError, TooLarge

CERTIFICATE_LIMIT: Final = 16 * 1024
ADDRESS_LIMIT: Final = 300
NAME_LIMIT: Final = 120

_RSAES_OAEP: Final = bytes.fromhex("06092a864886f70d010107")
_RSAES_OAEP_ID: Final = "1.2.840.113549.1.1.7"
_RSA_ENCRYPTION: Final = bytes.fromhex("300d06092a864886f70d0101010500")
_ECDSA_WITH_SHA2: Final = bytes.fromhex("06082a8648ce3d0403")
_NULL: Final = bytes.fromhex("0500")
_BROKEN: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_filters = threading.RLock()
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


class Tolerance(StrEnum):
    """One way in which real certificates are malformed; the value is stable, in the database and in the ledger."""

    PADDING = "padding"
    SET_ORDER = "set_order"
    OAEP_KEY = "rsaes_oaep_key"
    NULL_PARAMETERS = "ecdsa_null_parameters"


MEANING: Final = {
    Tolerance.PADDING: "bytes behind the certificate, as in an NV index that is larger than what it holds",
    Tolerance.SET_ORDER: "SETs that are not in the order of DER (X.690, 11.6)",
    Tolerance.OAEP_KEY: "an RSA key that is marked for RSAES-OAEP alone",
    Tolerance.NULL_PARAMETERS: "NULL parameters beside an ECDSA signature, which has none (RFC 5758, 3.2)",
}


@dataclass(frozen=True, slots=True)
class ReadCertificate:
    """A parsed certificate, the bytes its issuer signed, its own bytes without padding, and what had to be forgiven."""

    certificate: x509.Certificate
    body: bytes
    der: bytes
    tolerances: frozenset[Tolerance]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.der).hexdigest()


def read_certificate(der: bytes) -> ReadCertificate:
    """Read an X.509 certificate and say which malformations it has, or raise ParseError.

    Everything that verification reads later is read once here, so that no malformed extension surprises it.
    """
    if len(der) > CERTIFICATE_LIMIT:
        raise TooLarge(f"The certificate has {len(der)} bytes; at most {CERTIFICATE_LIMIT} are accepted.")
    outer = read_element(der)
    parts = list(islice(read_elements(outer.value), 3))
    if outer.tag != SEQUENCE or not parts or parts[0].tag != SEQUENCE:
        raise ParseError("This is not an X.509 certificate.")
    needed = {Tolerance.PADDING} if len(outer.raw) != len(der) else set()
    try:
        certificate = _strictly(outer.raw)
    except ParseError as error:
        mended, mends = _mended(outer.raw)
        if not mends:
            raise error
        certificate = _strictly(mended)
        needed |= mends
    if certificate.public_key_algorithm_oid.dotted_string == _RSAES_OAEP_ID:
        needed.add(Tolerance.OAEP_KEY)
    return ReadCertificate(certificate, parts[0].raw, outer.raw, frozenset(needed))


def parse_certificate(der: bytes) -> x509.Certificate:
    """Return the certificate alone, for those who show it and trust nothing because of it, or raise ParseError."""
    return read_certificate(der).certificate


def certificate_key(certificate: x509.Certificate) -> object:
    """Return the certificate's key; STM marks RSA keys as RSAES-OAEP, which says nothing else about the key."""
    try:
        return certificate.public_key()
    except UnsupportedAlgorithm:
        fields = list(read_elements(read_element(certificate.tbs_certificate_bytes).value))
        algorithm, key = islice(read_elements(fields[_first(fields) + 5].value), 2)
        if not algorithm.value.startswith(_RSAES_OAEP):
            raise
        return serialization.load_der_public_key(encode_element(SEQUENCE, _RSA_ENCRYPTION + key.raw))


def certificate_names(certificate: x509.Certificate) -> tuple[str, str]:
    """Return subject and issuer as text (RFC 4514); names longer than X.520 allows are taken as they are."""
    with quiet():
        return certificate.subject.rfc4514_string(), certificate.issuer.rfc4514_string()


def short_name(certificate: x509.Certificate) -> str:
    """Return what people call this certificate: its common name, or its unit where that is only a host's name."""
    with quiet():
        name = certificate.subject
        kinds = (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME)
        texts = [str(each.value) for kind in kinds for each in name.get_attributes_for_oid(kind)]
    telling = [text for text in texts if " " in text or "." not in text]
    return plain(next(iter([*telling, *texts]), ""), limit=NAME_LIMIT) or "without a name"


def plain(text: str, *, limit: int) -> str:
    """Return untrusted text as it can be shown and stored: printable, one line, not too long."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:limit].strip()


def name_key(name: x509.Name) -> str:
    """Return a digest by which equal names are found; that they are equal is for `cryptography` to say."""
    with quiet():
        return hashlib.sha256(name.rfc4514_string().encode("utf-8", "surrogatepass")).hexdigest()


def find_extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    return next((entry.value for entry in certificate.extensions if isinstance(entry.value, kind)), None)


def issuer_address(certificate: x509.Certificate) -> str:
    """Return where the certificate says that its issuer's is (AIA, RFC 5280, 4.2.2.1), "" when it says nothing usable.

    Text for a person to read and judge: nothing here or above fetches it.
    """
    access = find_extension(certificate, x509.AuthorityInformationAccess)
    for description in access or ():
        place = description.access_location
        if description.access_method != AuthorityInformationAccessOID.CA_ISSUERS:
            continue
        if isinstance(place, x509.UniformResourceIdentifier) and _is_web(place.value):
            return place.value
    return ""


@contextmanager
def quiet() -> Iterator[None]:
    """Python warns about names longer than X.520 allows, which makers write; the operator can do nothing about it."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_web(address: str) -> bool:
    plain = address.isascii() and address.isprintable() and " " not in address and len(address) <= ADDRESS_LIMIT
    return plain and address.startswith(("http://", "https://"))


def _strictly(der: bytes) -> x509.Certificate:
    try:
        with quiet():
            certificate = x509.load_der_x509_certificate(der)
            _touch(certificate)
    except _BROKEN as error:
        raise ParseError(f"The certificate is malformed: {error}.") from error
    return certificate


def _touch(certificate: x509.Certificate) -> None:
    """Have everything parsed that `cryptography` parses only when it is asked for."""
    _ = certificate.extensions, certificate.subject, certificate.issuer
    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    certificate_key(certificate)


def _mended(der: bytes) -> tuple[bytes, set[Tolerance]]:
    """Return the certificate as DER has it, and what was mended; the same bytes when nothing known is wrong."""
    needed: set[Tolerance] = set()
    for tolerance, mend in _MENDS.items():
        mended = mend(read_element(der))
        if mended != der:
            der = mended
            needed.add(tolerance)
    return der, needed


def _without_nulls(outer: Element) -> bytes:
    """Drop the NULL that Intel's OnDie CA puts beside ecdsa-with-SHA384, in the signed part and outside."""
    parts = list(read_elements(outer.value))
    fields = list(read_elements(parts[0].value))
    at = _first(fields) + 1
    inner = [field.raw if n != at else _plain_algorithm(field) for n, field in enumerate(fields)]
    rest = [_plain_algorithm(parts[1]) if len(parts) > 1 else b"", *(part.raw for part in parts[2:])]
    return encode_element(SEQUENCE, b"".join([encode_element(SEQUENCE, b"".join(inner)), *rest]))


def _plain_algorithm(element: Element) -> bytes:
    fields = list(read_elements(element.value)) if element.tag == SEQUENCE else []
    if len(fields) == 2 and fields[0].raw.startswith(_ECDSA_WITH_SHA2) and fields[1].raw == _NULL:
        return encode_element(SEQUENCE, fields[0].raw)
    return element.raw


def _first(fields: list[Element]) -> int:
    """Return the index of a TBSCertificate's serial number, which follows the version where there is one."""
    return 1 if fields and fields[0].tag == VERSION else 0


_MENDS: Final[dict[Tolerance, Callable[[Element], bytes]]] = {
    Tolerance.SET_ORDER: sort_sets,
    Tolerance.NULL_PARAMETERS: _without_nulls,
}
