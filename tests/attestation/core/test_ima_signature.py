"""A file's signature counts when a trusted key made it over this very digest, and in no other case."""

import contextlib
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.ima_signature import parse_signature, parse_signer, signed_by
from attestation.errors import ParseError
from tests.ima_signing import SigningKey, certificate, ima_signature

DIGEST = hashlib.sha256(b"content").digest()


@pytest.fixture(params=["RSA", "EC"])
def key(request: pytest.FixtureRequest, rsa_key: rsa.RSAPrivateKey, ec_key: ec.EllipticCurvePrivateKey) -> SigningKey:
    return rsa_key if request.param == "RSA" else ec_key


def holds(data: bytes, key: SigningKey, digest: bytes = DIGEST, algorithm: str = "sha256") -> bool:
    return signed_by(parse_signature(data), parse_signer(certificate(key)), algorithm=algorithm, digest=digest)


@pytest.mark.parametrize(("number", "name"), [(4, "sha256"), (5, "sha384"), (6, "sha512"), (7, "sha224")])
def test_a_signature_over_the_digest_holds(key: SigningKey, number: int, name: str) -> None:
    digest = hashlib.new(name, b"content").digest()
    assert holds(ima_signature(key, digest, algorithm=number), key, digest, name)


def test_a_signature_names_its_key(key: SigningKey) -> None:
    assert parse_signature(ima_signature(key, DIGEST)).key_id in parse_signer(certificate(key)).key_ids


def test_a_certificate_may_name_its_key_otherwise(key: SigningKey) -> None:
    signer = parse_signer(certificate(key, identifier=b"someone\x01\x02\x03\x04"))
    assert 0x01020304 in signer.key_ids
    assert len(signer.key_ids) == 2
    assert signer.subject == "CN=IMA signer"


def test_a_signature_by_another_key_does_not_hold(key: SigningKey) -> None:
    assert not holds(ima_signature(ec.generate_private_key(ec.SECP256R1()), DIGEST), key)


def test_a_signature_over_another_digest_does_not_hold(key: SigningKey) -> None:
    assert not holds(ima_signature(key, hashlib.sha256(b"other").digest()), key)


def test_a_signature_over_a_digest_of_another_algorithm_does_not_hold(key: SigningKey) -> None:
    assert not holds(ima_signature(key, DIGEST), key, algorithm="sha512")
    assert not holds(ima_signature(key, DIGEST), key, algorithm="verity:sha256")
    assert not holds(ima_signature(key, DIGEST), key, DIGEST[:20])


def test_a_sha1_signature_does_not_hold(key: SigningKey) -> None:
    digest = hashlib.sha1(b"content", usedforsecurity=False).digest()
    assert not holds(ima_signature(key, digest, algorithm=2), key, digest, "sha1")


def test_a_damaged_signature_does_not_hold(key: SigningKey) -> None:
    data = ima_signature(key, DIGEST)
    for at in (2, len(data) - 1, len(data) // 2):
        assert not holds(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :], key)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x01" + bytes(20), id="a SHA-1 hash in its place"),
        pytest.param(b"\x04\x04" + bytes(32), id="a hash in its place"),
        pytest.param(b"\3\1" + bytes(20), id="version 1"),
        pytest.param(b"\x06\3\4" + bytes(40), id="fs-verity, version 3"),
        pytest.param(b"\3\2\4" + bytes(4) + b"\0\0", id="an empty signature"),
        pytest.param(b"\3\2\4" + bytes(4) + b"\0\x09" + bytes(8), id="a byte too few"),
        pytest.param(b"\3\2\4" + bytes(4) + b"\0\x07" + bytes(8), id="a byte too many"),
        pytest.param(b"\3\2\4" + bytes(4) + b"\x08\0" + bytes(2048), id="too long"),
    ],
)
def test_what_is_no_version_2_signature_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError, match="byte"):
        parse_signature(data)


def test_a_certificate_with_a_weak_key_is_refused() -> None:
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505  # to see it refused
    for key in (weak, ec.generate_private_key(ec.SECP256K1())):
        with pytest.raises(ParseError, match="neither RSA"):
            parse_signer(certificate(key))


def test_what_is_no_certificate_is_refused(ec_key: ec.EllipticCurvePrivateKey) -> None:
    der = certificate(ec_key)
    pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
    for data in (b"", der[:-1], der[1:], pem):
        with pytest.raises(ParseError):
            parse_signer(data)


@given(st.binary(max_size=64))
def test_any_bytes_are_a_signature_or_refused(data: bytes) -> None:
    for each in (data, b"\3\2" + data):
        with contextlib.suppress(ParseError):
            parse_signature(each)


DER = certificate(ec.derive_private_key(7, ec.SECP256R1()), identifier=b"identifier")


@given(st.binary(max_size=8), st.integers(0, len(DER)))
def test_any_bytes_are_a_certificate_or_refused(data: bytes, at: int) -> None:
    for each in (data, DER[:at] + data + DER[at + len(data) :]):
        with contextlib.suppress(ParseError):
            parse_signer(each)
