"""Small forges for certificates: a maker's chain of two authorities, and EK certificates below it, right or wrong."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from attestation.core.authority import EK_CERTIFICATE, Authority
from attestation.core.certificate_reader import Tolerance, read_certificate
from attestation.core.der import SEQUENCE, encode_element, read_element, read_elements
from attestation.core.tpm import parse_public
from tests.tpm_forge import SoftKey
from tests.tpm_lab import Maker

NOW = datetime(2026, 11, 23, tzinfo=UTC)
YEAR = timedelta(days=365)
LATER = NOW + 40 * YEAR  # so that tests by today's clock do not expire

TLS_SERVER = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.1")
ROOT_KEY, MIDDLE_KEY, EK_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
EK = parse_public(SoftKey(EK_KEY).public)


@dataclass(frozen=True)
class Form:
    """One certificate to make; the defaults are a good EK certificate under the intermediate."""

    subject: str | x509.Name = ""
    issuer: str | x509.Name = "middle"
    key: Any = EK_KEY
    signer: Any = MIDDLE_KEY
    ca: bool | None = None
    path_length: int | None = None
    usage: str | None = "key_agreement"
    purposes: tuple[x509.ObjectIdentifier, ...] = (EK_CERTIFICATE,)
    not_before: datetime = NOW - YEAR
    not_after: datetime = LATER
    extra: tuple[x509.ExtensionType, ...] = ()
    access: x509.AuthorityInformationAccess | None = None

    def der(self) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(self.subject))
            .issuer_name(named(self.issuer))
            .public_key(self.key.public_key())
            .serial_number(4711)
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
        )
        if self.ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(self.ca, self.path_length), critical=True)
        if self.usage is not None:
            builder = builder.add_extension(key_usage(self.usage), critical=True)
        if self.purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(self.purposes), critical=False)
        if self.access is not None:
            builder = builder.add_extension(self.access, critical=False)
        for extension in self.extra:
            builder = builder.add_extension(extension, critical=True)
        return builder.sign(self.signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def named(name: str | x509.Name) -> x509.Name:
    if isinstance(name, x509.Name):
        return name
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])


def key_usage(wanted: str) -> x509.KeyUsage:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
    )
    return x509.KeyUsage(**{name: name == wanted for name in names.split()}, encipher_only=False, decipher_only=False)


NOTHING: frozenset[Tolerance] = frozenset()
EVERYTHING = frozenset(Tolerance)


def authority(name: str, issuer: str, key: Any, signer: Any, **changed: Any) -> Authority:
    form: dict[str, Any] = {"ca": True, "usage": "key_cert_sign", "purposes": (), **changed}
    return trusted(Form(name, issuer, key, signer, **form).der())


def trusted(der: bytes, *, tolerated: frozenset[Tolerance] = NOTHING) -> Authority:
    return Authority(read_certificate(der), tolerated)


def made_by(maker: Maker) -> list[Authority]:
    return [trusted(each.public_bytes(serialization.Encoding.DER)) for each in maker.authorities()]


ROOT = authority("root", "root", ROOT_KEY, ROOT_KEY)
MIDDLE = authority("middle", "root", MIDDLE_KEY, ROOT_KEY, path_length=0)
CHAIN = [ROOT, MIDDLE]


def lenient(*tolerances: Tolerance) -> list[Authority]:
    """The good chain, its intermediate's maker allowed some exceptions."""
    return [ROOT, replace(MIDDLE, tolerated=frozenset(tolerances))]


def out_of_order(der: bytes) -> bytes:
    """Swap the two attributes of the subject's only RDN, as Nuvoton's encoder orders them."""
    short, long = (part.raw for part in read_elements(read_element(der[der.index(SUBJECT) :]).value))
    assert der.count(short + long) == 1
    return der.replace(short + long, long + short)


MULTIVALUED = x509.Name(
    [
        x509.RelativeDistinguishedName(
            [x509.NameAttribute(NameOID.COMMON_NAME, "ab"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "abcdef")]
        )
    ]
)
SUBJECT = read_element(read_element(MULTIVALUED.public_bytes()).value).raw  # the SET


def nuvoton() -> bytes:
    """An EK certificate with a SET out of order that its issuer has signed as it is."""
    body = out_of_order(read_certificate(Form(MULTIVALUED).der()).body)
    return signed(body, MIDDLE_KEY, ECDSA_WITH_SHA256)


ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
ECDSA_AND_NULL = bytes.fromhex("300c06082a8648ce3d0403020500")


def signed(body: bytes, signer: ec.EllipticCurvePrivateKey, algorithm: bytes) -> bytes:
    signature = b"\0" + signer.sign(body, ec.ECDSA(hashes.SHA256()))
    return encode_element(SEQUENCE, body + algorithm + encode_element(0x03, signature))


def intel(form: Form) -> bytes:
    """The certificate of a form with NULL beside ecdsa-with-SHA256, signed like that."""
    fields = [field.raw for field in read_elements(read_element(read_certificate(form.der()).body).value)]
    assert fields[2] == ECDSA_WITH_SHA256
    body = encode_element(SEQUENCE, b"".join([*fields[:2], ECDSA_AND_NULL, *fields[3:]]))
    return signed(body, form.signer, ECDSA_AND_NULL)
