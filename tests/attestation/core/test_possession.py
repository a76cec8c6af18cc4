"""Proofs of possession: signed by the registered key, over this nonce, for a transport key that will do."""

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

from attestation.core.base64url import to_b64u
from attestation.core.possession import (
    PROOF_LIMIT,
    TYPE,
    SigningKey,
    fingerprint,
    parse_host_key,
    parse_transport_key,
    prove,
    verify_possession,
)
from attestation.errors import BadSignature, ParseError, Refusal, UnacceptableKey, WrongNonce

NONCE = bytes(range(32))
RSA, EC = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
TRANSPORT = rsa.generate_private_key(65537, 2048)
KEYS = [pytest.param(RSA, id="rsa"), pytest.param(EC, id="p256")]


def spki(key: SigningKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def signed(payload: bytes, *, typ: str = TYPE, algorithm: str = "ES256", **more: str) -> str:
    return jws.serialize_compact(
        {"alg": algorithm, "typ": typ, **more}, payload, ECKey.import_key(EC), algorithms=[algorithm]
    )


@pytest.mark.parametrize("key", KEYS)
def test_a_host_proves_that_it_has_its_key(key: SigningKey) -> None:
    public = parse_host_key(spki(key))
    assert verify_possession(prove(key, nonce=NONCE), public, nonce=NONCE).transport_spki is None


@pytest.mark.parametrize("key", KEYS)
def test_a_proof_vouches_for_a_transport_key(key: SigningKey) -> None:
    proof = prove(key, nonce=NONCE, transport_spki=spki(TRANSPORT))
    assert verify_possession(proof, parse_host_key(spki(key)), nonce=NONCE).transport_spki == spki(TRANSPORT)


@pytest.mark.parametrize("key", KEYS)
def test_an_old_proof_is_refused(key: SigningKey) -> None:
    with pytest.raises(WrongNonce):
        verify_possession(prove(key, nonce=bytes(32)), parse_host_key(spki(key)), nonce=NONCE)


def test_another_hosts_proof_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    for key in (other, RSA):
        with pytest.raises(BadSignature):
            verify_possession(prove(key, nonce=NONCE), EC.public_key(), nonce=NONCE)


@pytest.mark.parametrize("at", range(0, 200, 7))
def test_a_changed_proof_is_refused(at: int) -> None:
    proof = prove(EC, nonce=NONCE, transport_spki=spki(TRANSPORT))
    at %= len(proof)
    changed = proof[:at] + ("A" if proof[at] != "A" else "B") + proof[at + 1 :]
    with pytest.raises(Refusal):
        verify_possession(changed, EC.public_key(), nonce=NONCE)


GOOD = json.dumps({"nonce": to_b64u(NONCE)}).encode()


@pytest.mark.parametrize(
    ("payload", "header", "refusal"),
    [
        (GOOD, {"typ": "JWT"}, BadSignature),
        (GOOD, {"kid": "another"}, BadSignature),
        (b"{}", {}, WrongNonce),
        (b"[]", {}, WrongNonce),
        (b"[1]", {}, ParseError),
        (b"7", {}, ParseError),
        (b"not json", {}, ParseError),
        (b"[" * 2000, {}, ParseError),
        (b'{"nonce": 7}', {}, ParseError),
        (b'{"nonce": []}', {}, ParseError),
        (b'{"nonce": "", "nonce": ""}', {}, ParseError),
        (b'{"nonce": "", "more": ""}', {}, ParseError),
        (b'{"nonce": "AA==", "transport_key": "AAAA"}', {}, ParseError),
    ],
)
def test_what_is_signed_and_no_proof_is_refused(payload: bytes, header: dict[str, str], refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        verify_possession(signed(payload, **header), EC.public_key(), nonce=NONCE)


@pytest.mark.parametrize("proof", ["", ".", "..", "a.b.c", "é", "x" * (PROOF_LIMIT + 1)])
def test_what_is_not_even_signed_is_refused(proof: str) -> None:
    with pytest.raises(Refusal):
        verify_possession(proof, EC.public_key(), nonce=NONCE)


def test_a_transport_key_that_will_not_do_is_refused() -> None:
    for key, refusal in ((b"\0\0\0", ParseError), (spki(EC), UnacceptableKey)):
        with pytest.raises(refusal):
            verify_possession(prove(EC, nonce=NONCE, transport_spki=key), EC.public_key(), nonce=NONCE)


def test_no_algorithm_but_the_keys_own_counts() -> None:
    payload = json.dumps({"nonce": to_b64u(NONCE)}).encode()
    proof = jws.serialize_compact({"alg": "RS256", "typ": TYPE}, payload, RSAKey.import_key(RSA), algorithms=["RS256"])
    unsigned = ".".join((to_b64u(b'{"alg":"none"}'), to_b64u(payload), ""))
    for each in (proof, unsigned):
        with pytest.raises(Refusal):
            verify_possession(each, RSA.public_key(), nonce=NONCE)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(rsa.generate_private_key(65537, 1024), id="short"),  # noqa: S505  (to be refused)
        pytest.param(ec.generate_private_key(ec.SECP384R1()), id="another curve"),
        pytest.param(ed25519.Ed25519PrivateKey.generate(), id="another kind"),
    ],
)
def test_weak_and_unknown_keys_are_refused(key: SigningKey | ed25519.Ed25519PrivateKey) -> None:
    for parse in (parse_host_key, parse_transport_key):
        with pytest.raises(UnacceptableKey):
            parse(spki(key))


def test_what_is_no_key_is_refused() -> None:
    for data in (b"", b"\x30", spki(EC) + b"\0", spki(EC)[:-1], bytes(5000)):
        with pytest.raises(ParseError):
            parse_host_key(data)


def test_a_key_is_known_by_its_fingerprint() -> None:
    assert len(fingerprint(spki(EC))) == 64
    assert fingerprint(spki(EC)) != fingerprint(spki(RSA))


@given(st.text(max_size=300))
def test_any_text_is_a_proof_or_a_refusal(proof: str) -> None:
    with pytest.raises(Refusal):
        verify_possession(proof, EC.public_key(), nonce=NONCE)
