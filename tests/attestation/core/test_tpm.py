"""Our parsers agree with tpm2-tss on what a TPM makes, and refuse what none would."""

import contextlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.signature import verify_signature
from attestation.core.tpm import (
    ALG_NULL,
    CertifyAttest,
    KeyKind,
    QuoteAttest,
    TpmPublic,
    parse_attest,
    parse_public,
    require_ak,
)
from attestation.errors import AkNotRestricted, BadSignature, NotFromTpm, ParseError, UnacceptableKey
from tests import tpm_forge
from tests.tpm_forge import AK_ATTRIBUTES, RSAPSS, RSASSA, SHA384, SoftKey, flipped, mutated
from tests.tpm_lab import AK, ECC_EK, RESIDENT, RSA_EK, Key, Tpm

NONCE = bytes(range(32))
SIGNING_KEYS = [
    "ecc256:ecdsa-sha256:null",
    "ecc384:ecdsa-sha384:null",
    "rsa2048:rsassa-sha256:null",
    "rsa2048:rsapss-sha256:null",
]

ecc = SoftKey(ec.generate_private_key(ec.SECP256R1()))
QUOTE = tpm_forge.quote(NONCE, bytes(32), (0, 1))
PUBLIC_RSA = SoftKey(rsa.generate_private_key(65537, 2048), RSASSA).public
CERTIFICATION = tpm_forge.certification(NONCE, b"\0\x0b" + bytes(32))


@pytest.mark.parametrize("kind", SIGNING_KEYS)
def test_a_key_of_the_tpm_is_read_as_the_tpm_means_it(tpm: Tpm, kind: str) -> None:
    key = tpm.primary(kind)
    public = parse_public(key.public)
    tpm.forget(key)
    assert public.name == key.name
    assert public.spki == key.native.to_der()
    assert public.attributes == int(key.native.publicArea.objectAttributes)
    assert public.kind is (KeyKind.RSA if kind.startswith("rsa") else KeyKind.ECC)
    require_ak(public)


@pytest.mark.parametrize("kind", [RSA_EK, ECC_EK])
def test_endorsement_keys_are_read_as_the_tpm_means_them(tpm: Tpm, kind: str) -> None:
    ek = tpm.ek(kind)
    public = parse_public(ek.public)
    assert public.name == ek.name
    assert public.auth_policy == bytes(ek.native.publicArea.authPolicy)
    assert public.scheme == ALG_NULL
    assert public.symmetric is not None
    assert public.symmetric.bits == (128 if kind == RSA_EK else 256)


@pytest.mark.parametrize("kind", SIGNING_KEYS)
def test_what_the_tpm_signs_verifies_and_nothing_else_does(tpm: Tpm, kind: str) -> None:
    key = tpm.primary(kind)
    attest, signature = tpm.quote(key, NONCE, (0, 7))
    public = parse_public(key.public)
    tpm.forget(key)
    verify_signature(public, attest, signature)
    with pytest.raises(BadSignature):
        verify_signature(public, flipped(attest, -1), signature)
    with pytest.raises(BadSignature):
        verify_signature(public, attest, flipped(signature, -1))
    with pytest.raises(ParseError):
        verify_signature(public, attest, signature + b"\0")


def test_a_quote_is_read_as_the_tpm_means_it(tpm: Tpm, ak: Key) -> None:
    attest = parse_attest(tpm.quote(ak, NONCE, (0, 7, 23))[0])
    assert isinstance(attest, QuoteAttest)
    assert attest.extra_data == NONCE
    assert attest.selection == ((0x000B, frozenset({0, 7, 23})),)
    assert len(attest.pcr_digest) == 32
    assert attest.clock.clock > 0


def test_a_certification_is_read_as_the_tpm_means_it(tpm: Tpm, ak: Key) -> None:
    attest = parse_attest(tpm.certify(ak, ak, NONCE)[0])
    assert isinstance(attest, CertifyAttest)
    assert attest.name == ak.name


@pytest.mark.parametrize(("scheme", "scheme_hash"), [(RSASSA, SHA384), (RSAPSS, SHA384)])
def test_rsa_signatures_with_larger_hashes_verify(rsa_key: rsa.RSAPrivateKey, scheme: int, scheme_hash: int) -> None:
    key = SoftKey(rsa_key, scheme, scheme_hash)
    verify_signature(parse_public(key.public), b"message", key.sign(b"message"))


def test_a_signature_of_another_scheme_than_the_keys_is_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    public = parse_public(SoftKey(rsa_key, RSASSA).public)
    for other in (SoftKey(rsa_key, RSAPSS), SoftKey(rsa_key, RSASSA, SHA384)):
        with pytest.raises(BadSignature, match="another scheme"):
            verify_signature(public, b"message", other.sign(b"message"))


def test_a_signature_of_another_kind_than_the_key_is_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    no_scheme = parse_public(replace(ecc, scheme=ALG_NULL).public)
    with pytest.raises(BadSignature, match="another kind"):
        verify_signature(no_scheme, b"message", SoftKey(rsa_key, RSASSA).sign(b"message"))


@pytest.mark.parametrize(
    "signature",
    [
        pytest.param(tpm_forge.number(0x0018, 2) + tpm_forge.number(0x0004, 2) + bytes(4), id="SHA-1"),
        pytest.param(tpm_forge.number(0x0005, 2) + tpm_forge.number(0x000B, 2) + bytes(34), id="HMAC"),
        pytest.param(b"\0\x10", id="no signature"),
    ],
)
def test_signatures_of_weak_or_other_kinds_are_refused(signature: bytes) -> None:
    with pytest.raises(ParseError):
        verify_signature(parse_public(ecc.public), b"message", signature)


def test_an_ecdsa_signature_of_zeros_is_refused() -> None:
    zeros = tpm_forge.number(0x0018, 2) + tpm_forge.number(0x000B, 2) + bytes(4)
    with pytest.raises(BadSignature):
        verify_signature(parse_public(ecc.public), b"message", zeros)


@pytest.mark.parametrize(
    ("attributes", "refusal"),
    [
        pytest.param(AK_ATTRIBUTES & ~(1 << 16), AkNotRestricted, id="not restricted"),
        pytest.param(AK_ATTRIBUTES | 1 << 17, UnacceptableKey, id="decrypts as well"),
        pytest.param(AK_ATTRIBUTES & ~(1 << 18), UnacceptableKey, id="does not sign"),
        pytest.param(AK_ATTRIBUTES & ~(1 << 1), UnacceptableKey, id="not fixedTPM"),
        pytest.param(AK_ATTRIBUTES & ~(1 << 4), UnacceptableKey, id="not fixedParent"),
        pytest.param(AK_ATTRIBUTES & ~(1 << 5), UnacceptableKey, id="made outside"),
    ],
)
def test_a_key_that_could_forge_or_leave_is_no_attestation_key(attributes: int, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        require_ak(parse_public(ecc.having(attributes).public))


def test_a_key_without_a_scheme_is_no_attestation_key() -> None:
    with pytest.raises(UnacceptableKey, match="scheme"):
        require_ak(parse_public(replace(ecc, scheme=ALG_NULL).public))


def test_a_key_with_another_name_hash_is_no_attestation_key() -> None:
    with pytest.raises(UnacceptableKey, match="name"):
        require_ak(parse_public(replace(ecc, name_algorithm=SHA384).public))


@pytest.mark.parametrize("attributes", [f"{RESIDENT}|userwithauth|sign", AK.replace("restricted|", "")])
def test_an_unrestricted_key_of_a_real_tpm_is_no_attestation_key(tpm: Tpm, attributes: str) -> None:
    key = tpm.primary("ecc256:ecdsa-sha256:null", attributes)
    tpm.forget(key)
    with pytest.raises(AkNotRestricted):
        require_ak(parse_public(key.public))


@pytest.mark.parametrize(
    "public",
    [
        pytest.param(ecc.public + b"\0", id="trailing byte"),
        pytest.param(tpm_forge.sized(ecc.public[2:] + b"\0"), id="trailing byte inside"),
        pytest.param(ecc.public[:-1], id="cut"),
        pytest.param(b"", id="empty"),
        pytest.param(ecc.public[:-1] + bytes([ecc.public[-1] ^ 1]), id="point not on the curve"),
        pytest.param(tpm_forge.sized(b"\0\x08" + ecc.public[4:]), id="keyed hash"),
        pytest.param(tpm_forge.sized(ecc.public[2:4] + b"\0\x04" + ecc.public[6:]), id="SHA-1 name"),
    ],
)
def test_malformed_public_areas_are_refused(public: bytes) -> None:
    with pytest.raises(ParseError):
        parse_public(public)


def test_short_and_odd_rsa_keys_are_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    good = SoftKey(rsa_key, RSASSA).public
    modulus = rsa_key.public_key().public_numbers().n
    short = tpm_forge.number(1024, 2) + bytes(4) + tpm_forge.sized(tpm_forge.number(modulus >> 1024, 128))
    area = good[2 : -(256 + 2 + 4 + 2)]
    full = tpm_forge.sized(tpm_forge.number(modulus, 256))
    for tail in (
        short,
        tpm_forge.number(2048, 2) + tpm_forge.number(3, 4) + full,
        tpm_forge.number(2048, 2) + bytes(4) + tpm_forge.sized(bytes(256)),
        tpm_forge.number(3072, 2) + bytes(4) + full,
    ):
        with pytest.raises(ParseError):
            parse_public(tpm_forge.sized(area + tail))
    assert parse_public(tpm_forge.sized(area + tpm_forge.number(2048, 2) + bytes(4) + full)).spki


@pytest.mark.parametrize(
    ("attest", "refusal"),
    [
        pytest.param(tpm_forge.quote(NONCE, bytes(32), (0,), magic=0xFF544348), NotFromTpm, id="not TPM_GENERATED"),
        pytest.param(tpm_forge.attest(0x801A, NONCE, b""), NotFromTpm, id="creation, not quote"),
        pytest.param(QUOTE + b"\0", ParseError, id="trailing byte"),
        pytest.param(QUOTE[:-1], ParseError, id="cut"),
        pytest.param(b"", ParseError, id="empty"),
        pytest.param(tpm_forge.attest(0x8018, NONCE, b"\xff\xff\xff\xff"), ParseError, id="four billion banks"),
        pytest.param(tpm_forge.attest(0x8018, NONCE, bytes(3) + b"\1\0\x0b\xff" + bytes(300)), ParseError, id="bitmap"),
        pytest.param(tpm_forge.attest(0x8018, bytes(200), b""), ParseError, id="long extra data"),
    ],
)
def test_malformed_attestations_are_refused(attest: bytes, refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        parse_attest(attest)


@given(st.binary() | mutated(ecc.public) | mutated(PUBLIC_RSA))
def test_any_bytes_give_a_public_key_or_a_parse_error(data: bytes) -> None:
    with contextlib.suppress(ParseError):
        assert isinstance(parse_public(data), TpmPublic)


@given(st.binary() | mutated(QUOTE) | mutated(CERTIFICATION))
def test_any_bytes_give_an_attestation_or_a_refusal(data: bytes) -> None:
    with contextlib.suppress(ParseError, NotFromTpm):
        assert isinstance(parse_attest(data), QuoteAttest | CertifyAttest)


@given(st.binary() | mutated(ecc.sign(b"another message")))
def test_any_bytes_as_a_signature_are_refused(data: bytes) -> None:
    with pytest.raises((ParseError, BadSignature)):
        verify_signature(parse_public(ecc.public), b"message", data)
