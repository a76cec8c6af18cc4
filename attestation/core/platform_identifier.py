"""Reads what `Get-PlatformIdentifier` writes on a Windows host: which TPM it has, and how people call the machine.

Microsoft publishes no schema. Known from a document that somebody published (swtpm, issue 1068): the root
`PlatformIdentifiers` in the namespace below, messages, a version, the name as `ForeignKey` and a `MachineGuid`. Known
from the cmdlet's documentation: there are MAC addresses, a serial number and the endorsement key too. What their
elements are called is not, so a key or a certificate is known by what it is, wherever it stands.

XML with a document type is refused, and with it every entity: there is nothing to expand and nothing to fetch.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from attestation.core.certificate_reader import certificate_key, parse_certificate
from attestation.core.reader import Reader
from attestation.core.tpm import parse_public
from attestation.errors import ParseError, TooLarge

PLATFORM_IDENTIFIER_LIMIT: Final = 1 << 20
NAMESPACE: Final = "http://microsoft.com/windows/ptp/platformidentifier/"

EkKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_DEEPEST: Final = 16
_MOST_ELEMENTS: Final = 200
_LONGEST_TEXT: Final = 256
_SHORTEST_KEY: Final = 68
_LONGEST_KEY: Final = 4096
_RSA_BITS: Final = (2048, 3072, 4096)
_EXPONENT: Final = 65537
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_HEX: Final = re.compile("(?:[0-9A-Fa-f]{2})+")
# BCRYPT_RSAKEY_BLOB and BCRYPT_ECCKEY_BLOB (bcrypt.h): public keys for ECDH and for ECDSA.
_RSA_BLOB: Final = b"RSA1"
_ECC_BLOBS: Final[dict[bytes, ec.EllipticCurve]] = {
    b"ECK1": ec.SECP256R1(),
    b"ECS1": ec.SECP256R1(),
    b"ECK3": ec.SECP384R1(),
    b"ECS3": ec.SECP384R1(),
}


@dataclass(frozen=True, slots=True)
class PlatformIdentifier:
    """A host as a file describes it. Nobody vouches for any of it until the EK certificate has been verified."""

    ek: EkKey
    ek_certificate: bytes | None
    untrusted_name: str
    untrusted_machine_guid: str
    untrusted_serial_number: str
    untrusted_mac_addresses: tuple[str, ...]
    untrusted_messages: tuple[str, ...]

    @property
    def spki(self) -> bytes:
        return self.ek.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def fingerprint(self) -> str:
        """What an enrolled host with this TPM is known by."""
        return hashlib.sha256(self.spki).hexdigest()


@dataclass(frozen=True, slots=True)
class _Leaf:
    """An element with nothing but text in it; `path` are the local names that lead to it, in lower case."""

    path: tuple[str, ...]
    text: str


def parse_platform_identifier(data: bytes) -> PlatformIdentifier:
    """Return the host that the file describes; it has to name one endorsement key, and a certificate for no other."""
    leaves = _read_leaves(data)
    certified = {leaf: der for leaf in leaves if (der := _certificate(leaf)) is not None}
    certificates = tuple(certified.values())
    ek = _endorsement_key([leaf for leaf in leaves if leaf not in certified], certificates)
    mine = [der for der in certificates if certificate_key(parse_certificate(der)) == ek]
    if certificates and not mine:
        raise ParseError("The certificate in the platform identifier is for another key than its endorsement key.")
    return PlatformIdentifier(
        ek=ek,
        ek_certificate=mine[0] if mine else None,
        untrusted_name=_first(leaves, "foreignkey"),
        untrusted_machine_guid=_first(leaves, "machineguid"),
        untrusted_serial_number=_first(leaves, "serialnumber"),
        untrusted_mac_addresses=_under(leaves, "macaddress"),
        untrusted_messages=_under(leaves, "platformidmessages"),
    )


def _read_leaves(data: bytes) -> tuple[_Leaf, ...]:
    if len(data) > PLATFORM_IDENTIFIER_LIMIT:
        raise TooLarge(f"The platform identifier has {len(data)} bytes; {PLATFORM_IDENTIFIER_LIMIT} is the limit.")
    collector = _Collector()
    # The encoding that the document states is often not the one PowerShell saved it in; its first bytes are right.
    encoding = "utf-16" if data.startswith(_UTF16_MARKS) else "utf-8"
    parser = expat.ParserCreate(encoding, "}")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = collector.refuse_doctype
    parser.StartElementHandler = collector.start
    parser.EndElementHandler = collector.end
    parser.CharacterDataHandler = collector.text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ParseError(f"The platform identifier is no XML: {error}.") from error
    return tuple(collector.leaves)


@dataclass(slots=True)
class _Collector:
    """Gathers the leaves while expat walks the document, and ends the walk where it goes too far."""

    leaves: list[_Leaf] = field(default_factory=list)
    path: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    elements: int = 0
    is_leaf: bool = False

    def refuse_doctype(self, *_: object) -> None:
        raise ParseError("The platform identifier has a document type, which Windows never writes.")

    def start(self, name: str, _: object) -> None:
        namespace, _, local = name.rpartition("}")
        if not self.path and (local != "PlatformIdentifiers" or not namespace.startswith(NAMESPACE)):
            raise ParseError("The file is not what Get-PlatformIdentifier writes.")
        self.elements += 1
        if self.elements > _MOST_ELEMENTS or len(self.path) >= _DEEPEST:
            raise ParseError("The platform identifier has too many elements.")
        self.path.append(local.lower())
        self.texts.clear()
        self.is_leaf = True

    def end(self, _: str) -> None:
        if self.is_leaf:
            self.leaves.append(_Leaf(tuple(self.path), "".join(self.texts).strip()))
        self.is_leaf = False
        self.path.pop()

    def text(self, text: str) -> None:
        self.texts.append(text)


def _certificate(leaf: _Leaf) -> bytes | None:
    """Return the certificate that the element holds; one that is called so has to hold one, or nothing."""
    called_so = "cert" in leaf.path[-1]
    data = _binary(leaf.text)
    if data is None or not data.startswith(b"\x30"):
        if called_so and data is not None:
            raise ParseError("The EK certificate in the platform identifier is no certificate.")
        return None
    try:
        parse_certificate(data)
    except ParseError:
        if called_so:
            raise
        return None
    return data


def _endorsement_key(leaves: Sequence[_Leaf], certificates: Sequence[bytes]) -> EkKey:
    found = [(leaf, key) for leaf in leaves if (key := _public_key(leaf)) is not None]
    named = [key for leaf, key in found if any(part.startswith(("ek", "endorsement")) for part in leaf.path)]
    keys = named or [key for _, key in found]
    if not keys:
        keys = [_accepted(certificate_key(parse_certificate(der))) for der in certificates]
    if not keys:
        raise ParseError("The platform identifier names no endorsement key.")
    if any(key != keys[0] for key in keys):
        raise ParseError("The platform identifier names several endorsement keys.")
    return keys[0]


def _public_key(leaf: _Leaf) -> EkKey | None:
    """Return the key that the element holds; one that is called so has to hold one, or nothing."""
    data = _binary(leaf.text)
    if data is None:
        return None
    try:
        return _parse_key(data)
    except ParseError:
        if "pub" in leaf.path[-1]:
            raise
        return None


def _parse_key(data: bytes) -> EkKey:
    """Read a public key in whichever form Windows keeps it: CNG's blobs, the TPM's own structure, or DER."""
    if len(data) > _LONGEST_KEY:
        raise TooLarge(f"The endorsement key in the platform identifier has {len(data)} bytes.")
    if data.startswith(_RSA_BLOB):
        return _rsa_blob(data)
    if data[:4] in _ECC_BLOBS:
        return _ecc_blob(data, _ECC_BLOBS[data[:4]])
    if not data.startswith(b"\x30"):
        sized = int.from_bytes(data[:2], "big") == len(data) - 2
        return parse_public(data if sized else len(data).to_bytes(2, "big") + data).key
    try:
        return _accepted(serialization.load_der_public_key(data))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ParseError("The endorsement key in the platform identifier is in no form that is known.") from error


def _rsa_blob(data: bytes) -> EkKey:
    reader = Reader(data, what="BCRYPT_RSAKEY_BLOB", order="little")
    reader.take(4)
    bits, exponent_size, modulus_size, *primes = (reader.u32() for _ in range(5))
    if any(primes):
        raise reader.error("a private key")
    exponent, modulus = (int.from_bytes(reader.take(size), "big") for size in (exponent_size, modulus_size))
    reader.finish()
    if bits not in _RSA_BITS or modulus.bit_length() != bits or exponent != _EXPONENT:
        raise reader.error(f"a key of {bits} bits with a modulus of {modulus.bit_length()} and exponent {exponent}")
    try:
        return _accepted(rsa.RSAPublicNumbers(exponent, modulus).public_key())
    except ValueError as error:
        raise reader.error("this is no RSA key") from error


def _ecc_blob(data: bytes, curve: ec.EllipticCurve) -> EkKey:
    reader = Reader(data, what="BCRYPT_ECCKEY_BLOB", order="little")
    reader.take(4)
    size = reader.u32()
    if size != curve.key_size // 8:
        raise reader.error(f"coordinates of {size} bytes")
    x, y = (int.from_bytes(reader.take(size), "big") for _ in range(2))
    reader.finish()
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError as error:
        raise reader.error("the point is not on the curve") from error


def _accepted(key: object) -> EkKey:
    """Take the kinds of key that the TPM structures take, so that the two can be compared."""
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS:
        numbers = key.public_numbers()
        if numbers.e == _EXPONENT and numbers.n % 2:
            return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    raise ParseError("The endorsement key in the platform identifier is of a kind that no EK may be.")


def _binary(text: str) -> bytes | None:
    """Return the bytes of a text that is hexadecimal or base64 and longer than any hash; None for other texts."""
    packed = "".join(text.split())
    try:
        data = bytes.fromhex(packed) if _HEX.fullmatch(packed) else base64.b64decode(packed, validate=True)
    except ValueError:
        return None
    return data if len(data) >= _SHORTEST_KEY else None


def _first(leaves: Sequence[_Leaf], name: str) -> str:
    return next((_clip(leaf.text) for leaf in leaves if leaf.path[-1].endswith(name) and leaf.text), "")


def _under(leaves: Sequence[_Leaf], name: str) -> tuple[str, ...]:
    """Return the texts of the elements whose own name, or that of one around them, begins so."""
    return tuple(_clip(leaf.text) for leaf in leaves if leaf.text and any(part.startswith(name) for part in leaf.path))


def _clip(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
