"""A secret goes to a key only when that key is in the host's TPM and opens in the quoted boot state only."""

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from tpm2_pytss import TSS2_Exception

from attestation.core.quote import BOOT_PCRS, QUOTED_PCRS
from attestation.core.tpm import TpmPublic, parse_public
from attestation.core.transport import policy_pcr, verify_transport_key
from attestation.errors import (
    AkNotRestricted,
    NotFromTpm,
    ParseError,
    TransportKeyNotBound,
    TransportKeyNotCertified,
    UnacceptableKey,
    WrongNonce,
)
from tests import tpm_forge
from tests.tpm_forge import AK_ATTRIBUTES, NULL, OAEP, SHA384, TRANSPORT_ATTRIBUTES, SoftKey, flipped
from tests.tpm_lab import RESIDENT, TRANSPORT, Key, Tpm

NONCE = bytes(range(32))
KIND = "rsa2048:oaep-sha256:null"
SELECTION = ("sha256", BOOT_PCRS)
ZEROS = dict.fromkeys(QUOTED_PCRS, bytes(32))
ZERO_POLICY = policy_pcr(SELECTION, ZEROS)

soft_ak = SoftKey(ec.generate_private_key(ec.SECP256R1()))


def transport_key(tpm: Tpm, attributes: str = TRANSPORT, *, policy: bytes | None = None, kind: str = KIND) -> Key:
    bound = policy_pcr(SELECTION, tpm.pcrs(BOOT_PCRS)) if policy is None else policy
    return tpm.child(kind, attributes, policy=bound)


def certified(tpm: Tpm, key: Key, ak: Key, nonce: bytes = NONCE) -> tuple[bytes, bytes, bytes]:
    return (key.public, *tpm.certify(key, ak, nonce))


@pytest.fixture
def key(tpm: Tpm) -> Iterator[Key]:
    key = transport_key(tpm)
    yield key
    tpm.forget(key)


def test_a_certified_and_bound_key_is_accepted(tpm: Tpm, ak: Key, ak_public: TpmPublic, key: Key) -> None:
    parts = certified(tpm, key, ak)
    accepted = verify_transport_key(*parts, ak=ak_public, nonce=NONCE, pcrs=tpm.pcrs(QUOTED_PCRS))
    assert accepted.spki == key.native.to_der()
    assert accepted.public.name == key.name


def test_what_is_encrypted_to_it_opens_until_the_boot_state_changes(other_tpm: Tpm) -> None:
    key = transport_key(other_tpm)
    public = serialization.load_der_public_key(parse_public(key.public).spki)
    assert isinstance(public, rsa.RSAPublicKey)
    box = public.encrypt(b"secret", padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    assert other_tpm.decrypt(key, box, BOOT_PCRS) == b"secret"
    other_tpm.extend(10, bytes(32))
    assert other_tpm.decrypt(key, box, BOOT_PCRS) == b"secret"
    other_tpm.extend(4, bytes(32))
    with pytest.raises(TSS2_Exception):
        other_tpm.decrypt(key, box, BOOT_PCRS)
    other_tpm.forget(key)


def test_a_key_certified_by_another_key_is_refused(tpm: Tpm, ak_public: TpmPublic, key: Key) -> None:
    other = tpm.primary("rsa2048:rsassa-sha256:null")
    parts = certified(tpm, key, other)
    tpm.forget(other)
    with pytest.raises(TransportKeyNotCertified):
        verify_transport_key(*parts, ak=ak_public, nonce=NONCE, pcrs=tpm.pcrs(QUOTED_PCRS))


def test_a_certification_of_another_key_is_refused(tpm: Tpm, ak: Key, ak_public: TpmPublic, key: Key) -> None:
    _, certify, signature = certified(tpm, ak, ak)
    with pytest.raises(TransportKeyNotCertified, match="another key"):
        verify_transport_key(key.public, certify, signature, ak=ak_public, nonce=NONCE, pcrs=ZEROS)


def test_a_certification_for_another_challenge_is_refused(tpm: Tpm, ak: Key, ak_public: TpmPublic, key: Key) -> None:
    parts = certified(tpm, key, ak, bytes(32))
    with pytest.raises(WrongNonce):
        verify_transport_key(*parts, ak=ak_public, nonce=NONCE, pcrs=tpm.pcrs(QUOTED_PCRS))


def test_a_quote_is_no_certification(tpm: Tpm, ak: Key, ak_public: TpmPublic, key: Key) -> None:
    quote, signature = tpm.quote(ak, NONCE, QUOTED_PCRS)
    with pytest.raises(NotFromTpm):
        verify_transport_key(key.public, quote, signature, ak=ak_public, nonce=NONCE, pcrs=ZEROS)


@pytest.mark.parametrize("policy", [b"", policy_pcr(SELECTION, {**ZEROS, 4: b"\1" * 32}), bytes(32)])
def test_a_key_bound_to_nothing_or_another_state_is_refused(
    tpm: Tpm, ak: Key, ak_public: TpmPublic, policy: bytes
) -> None:
    key = transport_key(tpm, policy=policy)
    parts = certified(tpm, key, ak)
    tpm.forget(key)
    with pytest.raises(TransportKeyNotBound):
        verify_transport_key(*parts, ak=ak_public, nonce=NONCE, pcrs=tpm.pcrs(QUOTED_PCRS))


def test_a_key_bound_to_fewer_pcrs_is_refused(tpm: Tpm, ak: Key, ak_public: TpmPublic) -> None:
    key = transport_key(tpm, policy=policy_pcr(("sha256", (7,)), tpm.pcrs((7,))))
    parts = certified(tpm, key, ak)
    tpm.forget(key)
    with pytest.raises(TransportKeyNotBound):
        verify_transport_key(*parts, ak=ak_public, nonce=NONCE, pcrs=tpm.pcrs(QUOTED_PCRS))


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        pytest.param(f"{TRANSPORT}|userwithauth", KIND, id="usable with a password"),
        pytest.param("sensitivedataorigin|decrypt", KIND, id="exportable"),
        pytest.param(f"{RESIDENT}|sign|decrypt", "rsa2048:null:null", id="signs as well"),
        pytest.param(f"{RESIDENT}|decrypt", "rsa2048:null:null", id="any padding"),
        pytest.param(f"{RESIDENT}|decrypt", "rsa2048:rsaes:null", id="weak padding"),
        pytest.param(f"{RESIDENT}|decrypt", "ecc256:ecdh-sha256:null", id="not RSA"),
        pytest.param(f"{RESIDENT}|restricted|decrypt", "rsa2048:aes128cfb", id="storage key"),
    ],
)
def test_a_key_of_another_form_is_refused(tpm: Tpm, ak: Key, ak_public: TpmPublic, attributes: str, kind: str) -> None:
    key = transport_key(tpm, attributes, kind=kind)
    parts = certified(tpm, key, ak)
    tpm.forget(key)
    with pytest.raises(UnacceptableKey):
        verify_transport_key(*parts, ak=ak_public, nonce=NONCE, pcrs=tpm.pcrs(QUOTED_PCRS))


def soft_transport(key: rsa.RSAPrivateKey, **changed: Any) -> SoftKey:
    form = {"scheme": OAEP, "attributes": TRANSPORT_ATTRIBUTES, "policy": ZERO_POLICY, **changed}
    return SoftKey(key, **form)


def soft_parts(key: SoftKey, ak: SoftKey = soft_ak) -> tuple[bytes, bytes, bytes]:
    certify = tpm_forge.certification(NONCE, parse_public(key.public).name)
    return key.public, certify, ak.sign(certify)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"attributes": TRANSPORT_ATTRIBUTES & ~(1 << 1)}, id="not fixedTPM"),
        pytest.param({"attributes": TRANSPORT_ATTRIBUTES & ~(1 << 4)}, id="not fixedParent"),
        pytest.param({"attributes": TRANSPORT_ATTRIBUTES & ~(1 << 5)}, id="made outside"),
        pytest.param({"attributes": TRANSPORT_ATTRIBUTES & ~(1 << 17)}, id="does not decrypt"),
        pytest.param({"attributes": TRANSPORT_ATTRIBUTES | 1 << 6}, id="userWithAuth"),
        pytest.param({"attributes": TRANSPORT_ATTRIBUTES | 1 << 11}, id="encryptedDuplication"),
        pytest.param({"attributes": TRANSPORT_ATTRIBUTES | 1 << 16}, id="restricted"),
        pytest.param({"attributes": TRANSPORT_ATTRIBUTES | 1 << 18}, id="signs"),
        pytest.param({"scheme_hash": SHA384}, id="OAEP with another hash"),
        pytest.param({"scheme": NULL}, id="no scheme"),
        pytest.param({"name_algorithm": SHA384}, id="another name hash"),
    ],
)
def test_each_wrong_attribute_is_refused(rsa_key: rsa.RSAPrivateKey, changed: dict[str, int]) -> None:
    good = soft_parts(soft_transport(rsa_key))
    ak = parse_public(soft_ak.public)
    verify_transport_key(*good, ak=ak, nonce=NONCE, pcrs=ZEROS)
    with pytest.raises(UnacceptableKey):
        verify_transport_key(*soft_parts(soft_transport(rsa_key, **changed)), ak=ak, nonce=NONCE, pcrs=ZEROS)


def test_a_certification_by_a_key_that_signs_anything_is_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    ak = soft_ak.having(AK_ATTRIBUTES & ~(1 << 16))
    parts = soft_parts(soft_transport(rsa_key), ak)
    with pytest.raises(AkNotRestricted):
        verify_transport_key(*parts, ak=parse_public(ak.public), nonce=NONCE, pcrs=ZEROS)


def test_changed_and_longer_structures_are_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    public, certify, signature = soft_parts(soft_transport(rsa_key))
    ak = parse_public(soft_ak.public)
    for parts, refusal in (
        ((public + b"\0", certify, signature), ParseError),
        ((public, certify, signature + b"\0"), ParseError),
        ((public, flipped(certify, -1), signature), TransportKeyNotCertified),
        ((flipped(public, 12), certify, signature), TransportKeyNotCertified),
    ):
        with pytest.raises(refusal):
            verify_transport_key(*parts, ak=ak, nonce=NONCE, pcrs=ZEROS)


def test_the_policy_counts_every_pcr_and_the_bank() -> None:
    policies = {policy_pcr(SELECTION, {**ZEROS, pcr: b"\1" * 32}) for pcr in BOOT_PCRS}
    assert len(policies | {ZERO_POLICY}) == len(BOOT_PCRS) + 1
    assert policy_pcr(("sha384", BOOT_PCRS), ZEROS) != ZERO_POLICY
