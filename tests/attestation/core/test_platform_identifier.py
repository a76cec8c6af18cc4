"""A platform identifier is one TPM's key, in whichever form Windows writes it, and XML that expands to nothing else."""

import base64
import hashlib
import time
from struct import pack

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.platform_identifier import (
    NAMESPACE,
    PLATFORM_IDENTIFIER_LIMIT,
    PlatformIdentifier,
    parse_platform_identifier,
)
from attestation.core.tpm import parse_public
from attestation.errors import ParseError, TooLarge
from tests.tpm_forge import SoftKey
from tests.tpm_lab import ECC_EK, RSA_EK, Tpm

KEY = rsa.RSAPublicNumbers(65537, (1 << 2047) + 1).public_key()
OTHER_KEY = rsa.RSAPublicNumbers(65537, (1 << 2047) + 3).public_key()
POINT = ec.derive_private_key(7, ec.SECP256R1()).public_key()


def rsa_blob(
    key: rsa.RSAPublicKey, *, exponent: int | None = None, bits: int | None = None, primes: int = 0, more: bytes = b""
) -> bytes:
    """BCRYPT_RSAKEY_BLOB (bcrypt.h)."""
    numbers = key.public_numbers()
    small = (numbers.e if exponent is None else exponent).to_bytes(3, "big")
    modulus = numbers.n.to_bytes(key.key_size // 8, "big")
    head = pack("<4s5I", b"RSA1", bits or key.key_size, len(small), len(modulus), primes, 0)
    return head + small + modulus + more


def ecc_blob(key: ec.EllipticCurvePublicKey, magic: bytes, *, size: int = 0) -> bytes:
    """BCRYPT_ECCKEY_BLOB."""
    width, numbers = key.key_size // 8, key.public_numbers()
    return magic + pack("<I", size or width) + b"".join(n.to_bytes(width, "big") for n in (numbers.x, numbers.y))


def spki(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pkcs1(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.PKCS1)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def element(name: str, text: str) -> str:
    return f"<{name}>{text}</{name}>"


def document(*elements: str, root: str = "PlatformIdentifiers", namespace: str = NAMESPACE + "2016/04") -> str:
    """The published document's frame, with `elements` where its key stands."""
    head = "<PlatformIdMessages/><Version>1.0.0.0</Version><ForeignKey>hyp01</ForeignKey>"
    guid = element("MachineGuid", "67F8C025-DE98-47EB-A000-000000000001")
    return f'<{root} xmlns="{namespace}">{head}{guid}{"".join(elements)}</{root}>'


def key_document(data: bytes, *others: str) -> str:
    return document(element("EKPub", b64(data)), *others)


def endorsement(tpm: Tpm, kind: str) -> tuple[bytes, bytes]:
    """A TPM's endorsement key and the maker's certificate for it."""
    return tpm.ek(kind).public, tpm.ek_certificate(kind)


def read(text: str) -> PlatformIdentifier:
    return parse_platform_identifier(text.encode())


ENCODED: dict[str, tuple[bytes, rsa.RSAPublicKey | ec.EllipticCurvePublicKey]] = {
    "RSA1": (rsa_blob(KEY), KEY),
    "ECK1": (ecc_blob(POINT, b"ECK1"), POINT),
    "ECS1": (ecc_blob(POINT, b"ECS1"), POINT),
    "SubjectPublicKeyInfo": (spki(KEY), KEY),
    "an elliptic SubjectPublicKeyInfo": (spki(POINT), POINT),
    "RSAPublicKey": (pkcs1(KEY), KEY),
}


@pytest.mark.parametrize(("data", "key"), ENCODED.values(), ids=ENCODED)
def test_a_key_is_read_in_every_form_that_windows_has(
    data: bytes, key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
) -> None:
    found = read(key_document(data))
    assert (found.ek, found.spki) == (key, spki(key))
    assert found.fingerprint == hashlib.sha256(spki(key)).hexdigest()


def test_a_p384_key_is_read() -> None:
    key = ec.derive_private_key(7, ec.SECP384R1()).public_key()
    assert read(key_document(ecc_blob(key, b"ECK3"))).ek == key


@pytest.mark.parametrize("template", [RSA_EK, ECC_EK])
@pytest.mark.parametrize("sized", [True, False])
def test_the_tpms_own_structure_gives_the_key_that_an_enrolment_sends(tpm: Tpm, template: str, sized: bool) -> None:
    public, certificate = endorsement(tpm, template)
    found = read(key_document(public if sized else public[2:], element("EKCertificate", b64(certificate))))
    assert found.ek == parse_public(public).key
    assert found.fingerprint == hashlib.sha256(parse_public(public).spki).hexdigest()
    assert found.ek_certificate == certificate


def test_a_certificate_is_kept_and_alone_is_enough(tpm: Tpm) -> None:
    public, certificate = endorsement(tpm, RSA_EK)
    found = read(document(element("EKCertificate", b64(certificate))))
    assert (found.ek, found.ek_certificate) == (parse_public(public).key, certificate)


def test_of_two_certificates_the_one_for_the_key_counts(tpm: Tpm) -> None:
    public, certificate = endorsement(tpm, RSA_EK)
    _, elliptic = endorsement(tpm, ECC_EK)
    certificates = element(
        "EKCertificates", "".join(element("Certificate", b64(each)) for each in (elliptic, certificate))
    )
    assert read(key_document(public, certificates)).ek_certificate == certificate


def test_a_key_without_a_certificate_is_one_without_a_certificate() -> None:
    assert read(key_document(rsa_blob(KEY))).ek_certificate is None


def test_what_else_it_says_is_text() -> None:
    found = read(
        document(
            element("SerialNumber", " 7CX1 "),
            element("MacAddresses", element("MacAddress", "00-11-22-33-44-55") + element("MacAddress", "66-77")),
            element("EKPub", b64(rsa_blob(KEY))),
        ).replace(
            "<PlatformIdMessages/>",
            "<PlatformIdMessages><Message>No EK certificate was found.</Message></PlatformIdMessages>",
        )
    )
    assert found.untrusted_name == "hyp01"
    assert found.untrusted_machine_guid == "67F8C025-DE98-47EB-A000-000000000001"
    assert found.untrusted_serial_number == "7CX1"
    assert found.untrusted_mac_addresses == ("00-11-22-33-44-55", "66-77")
    assert found.untrusted_messages == ("No EK certificate was found.",)


def test_texts_that_are_not_there_are_empty_and_long_ones_are_cut() -> None:
    bare = (
        f'<PlatformIdentifiers xmlns="{NAMESPACE}2016/04">{element("EKPub", b64(rsa_blob(KEY)))}</PlatformIdentifiers>'
    )
    found = read(bare)
    assert (found.untrusted_name, found.untrusted_serial_number, found.untrusted_mac_addresses) == ("", "", ())
    assert len(read(key_document(rsa_blob(KEY)).replace("hyp01", "h" * 5000)).untrusted_name) == 256


def test_a_key_is_known_by_what_it_is_wherever_it_stands() -> None:
    nested = element("Tpm", element("Keys", element("Endorsement", rsa_blob(KEY).hex())))
    assert read(document(nested)).ek == KEY


def test_other_keys_do_not_hide_the_one_that_is_called_so() -> None:
    assert read(key_document(rsa_blob(KEY), element("StorageRoot", b64(rsa_blob(OTHER_KEY))))).ek == KEY


def test_the_same_key_twice_is_one_key() -> None:
    assert read(key_document(rsa_blob(KEY), element("EKSpki", b64(spki(KEY))))).ek == KEY


def test_a_hash_of_the_key_is_no_key() -> None:
    hashes = element("EKPubHash", "ab" * 32) + element("EKCertificateHash", b64(bytes(64)))
    assert read(key_document(rsa_blob(KEY), hashes)).ek == KEY


XML = key_document(rsa_blob(KEY))
SAVED = {
    "Out-File -Encoding UTF8": XML.encode("utf-8-sig"),
    "Out-File": XML.encode("utf-16"),
    "big-endian": b"\xfe\xff" + XML.encode("utf-16-be"),
    "a declaration of another encoding": b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-16"?>' + XML.encode(),
    "line ends": XML.replace("><", ">\r\n<").encode(),
}


@pytest.mark.parametrize("saved", SAVED.values(), ids=SAVED)
def test_every_way_in_which_powershell_saves_it_is_read(saved: bytes) -> None:
    assert parse_platform_identifier(saved).ek == KEY


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
REFUSED = {
    "nothing": ("", "no XML"),
    "no XML": ("hyp01", "no XML"),
    "half of it": (XML[:200], "no XML"),
    "something behind it": (XML + "<a/>", "no XML"),
    "another document": ("<html/>", "not what Get-PlatformIdentifier writes"),
    "another root": (document(root="PlatformIdentifier"), "not what"),
    "another namespace": (document(namespace="http://example.org/2016/04"), "not what"),
    "no namespace": (XML.replace(f' xmlns="{NAMESPACE}2016/04"', ""), "not what"),
    "a document type": ("<!DOCTYPE PlatformIdentifiers>" + XML, "document type"),
    "an external document type": ('<!DOCTYPE P SYSTEM "http://example.org/x.dtd">' + XML, "document type"),
    "an external entity": ('<!DOCTYPE P [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + XML, "document type"),
    "a billion laughs": (f'<!DOCTYPE P [<!ENTITY l0 "ha">{LAUGHS}]>' + XML.replace("hyp01", "&l9;"), "document type"),
    "an unknown entity": (XML.replace("hyp01", "&host;"), "no XML"),
    "too deep": (document("<a>" * 20 + "</a>" * 20), "too many elements"),
    "too many elements": (document("<a/>" * 300), "too many elements"),
    "no key": (document(), "names no endorsement key"),
    "an empty key": (document(element("EKPub", "")), "names no endorsement key"),
    "a key that is none": (key_document(b"\x30" + bytes(100)), "no form that is known"),
    "a key of an unknown form": (key_document(b"DSA1" + bytes(100)), "TPM"),
    "a private key": (key_document(rsa_blob(KEY, primes=128)), "private key"),
    "a key of 1024 bits": (
        key_document(rsa_blob(rsa.RSAPublicNumbers(65537, (1 << 1023) + 1).public_key())),
        "key of 1024 bits",
    ),
    "a small key in DER": (
        key_document(spki(rsa.RSAPublicNumbers(65537, (1 << 1023) + 1).public_key())),
        "of a kind that no EK may be",
    ),
    "a key of other bits than it says": (key_document(rsa_blob(KEY, bits=3072)), "key of 3072 bits"),
    "another exponent": (key_document(rsa_blob(KEY, exponent=3)), "exponent 3"),
    "a byte behind the key": (key_document(rsa_blob(KEY, more=b"\0")), "1 bytes follow"),
    "a key cut short": (key_document(rsa_blob(KEY)[:-1]), "are left"),
    "a point that is nowhere": (key_document(ecc_blob(POINT, b"ECK1")[:-1] + b"\0"), "not on the curve"),
    "coordinates of another size": (key_document(ecc_blob(POINT, b"ECK1", size=48)), "coordinates of 48 bytes"),
    "a key of Edwards": (
        key_document(bytes.fromhex("302a300506032b6570032100") + bytes(60)),
        "no form that is known|no EK may be",
    ),
    "a key larger than any": (key_document(bytes(5000)), "5000 bytes"),
    "two keys": (key_document(rsa_blob(KEY), element("EKPublic", b64(rsa_blob(OTHER_KEY)))), "several"),
    "a certificate that is none": (key_document(rsa_blob(KEY), element("EKCert", b64(bytes(500)))), "no certificate"),
    "a certificate that is broken": (
        key_document(rsa_blob(KEY), element("EKCert", b64(b"\x30\x82\x01\xf0" + bytes(496)))),
        "not an X.509 certificate|malformed",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_platform_identifier_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        read(text)


def test_a_certificate_for_another_key_is_refused(tpm: Tpm) -> None:
    _, certificate = endorsement(tpm, RSA_EK)
    with pytest.raises(ParseError, match="for another key"):
        read(key_document(rsa_blob(KEY), element("EKCertificate", b64(certificate))))


def test_certificates_of_two_keys_and_no_key_are_refused(tpm: Tpm) -> None:
    certificates = (endorsement(tpm, template)[1] for template in (RSA_EK, ECC_EK))
    with pytest.raises(ParseError, match="several"):
        read(document(*(element("EKCertificate", b64(each)) for each in certificates)))


def test_a_signing_key_of_a_tpm_is_read_as_the_key_that_it_says() -> None:
    """Whether a key may be an endorsement key is for `require_ek` to say, when the TPM shows it."""
    soft = SoftKey(ec.derive_private_key(7, ec.SECP256R1()))
    assert read(key_document(soft.public)).ek == POINT


def test_a_file_above_the_limit_is_refused_unread() -> None:
    with pytest.raises(TooLarge):
        parse_platform_identifier(b"<" * (PLATFORM_IDENTIFIER_LIMIT + 1))


@pytest.mark.parametrize(
    "filling",
    [
        "A" * (900 << 10),
        "<!--" + "-a" * (400 << 10) + "-->",
        "&amp;" * (180 << 10),
        "<![CDATA[" + "]" * 900_000 + "]]>",
    ],
)
def test_a_full_file_is_read_in_time(filling: str) -> None:
    started = time.process_time()
    assert read(document(element("Note", filling), element("EKPub", b64(rsa_blob(KEY))))).ek == KEY
    assert time.process_time() - started < 5


@given(st.binary(max_size=300))
def test_any_bytes_give_a_host_or_a_parse_error(data: bytes) -> None:
    for candidate in (data, key_document(data).encode(), document(element("Certificate", b64(data))).encode()):
        try:
            parse_platform_identifier(candidate)
        except ParseError:
            continue


@given(st.integers(0, len(XML) - 1), st.integers(0, 255))
def test_any_changed_byte_gives_a_host_or_a_parse_error(at: int, value: int) -> None:
    whole = bytearray(XML.encode())
    whole[at] = value
    try:
        parse_platform_identifier(bytes(whole))
    except ParseError:
        return
