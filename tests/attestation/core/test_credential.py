"""The TPM opens what our own TPM2_MakeCredential seals, and only for the key that was named."""

import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tpm2_pytss import TSS2_Exception

from attestation.core.credential import make_credential
from attestation.core.endorsement import require_ek
from attestation.core.tpm import ALG_NULL, parse_public
from attestation.errors import UnacceptableKey
from tests.tpm_forge import SoftKey, flipped
from tests.tpm_lab import ECC_EK, RSA_EK, Key, Tpm

SECRET = secrets.token_bytes(32)
EKS = [RSA_EK, ECC_EK]


def sealed(ek: Key, name: bytes, secret: bytes = SECRET) -> tuple[bytes, bytes]:
    public = parse_public(ek.public)
    require_ek(public)
    ephemeral = None
    if isinstance(public.key, ec.EllipticCurvePublicKey):
        ephemeral = ec.generate_private_key(public.key.curve)
    return make_credential(public, name, secret, seed=secrets.token_bytes(64), ephemeral=ephemeral)


@pytest.mark.parametrize("kind", EKS)
@pytest.mark.parametrize("length", [1, 16, 32])
def test_the_tpm_opens_a_credential_for_its_own_key(tpm: Tpm, ak: Key, kind: str, length: int) -> None:
    secret = SECRET[:length]
    assert tpm.activate(ak, tpm.ek(kind), *sealed(tpm.ek(kind), ak.name, secret)) == secret


@pytest.mark.parametrize("kind", EKS)
def test_a_credential_for_another_key_stays_shut(tpm: Tpm, ak: Key, kind: str) -> None:
    blob, secret = sealed(tpm.ek(kind), flipped(ak.name, -1))
    with pytest.raises(TSS2_Exception):
        tpm.activate(ak, tpm.ek(kind), blob, secret)


@pytest.mark.parametrize("kind", EKS)
def test_another_tpm_does_not_open_it(tpm: Tpm, other_tpm: Tpm, ak: Key, kind: str) -> None:
    blob, secret = sealed(other_tpm.ek(kind), ak.name)
    with pytest.raises(TSS2_Exception):
        tpm.activate(ak, tpm.ek(kind), blob, secret)


@pytest.mark.parametrize("kind", EKS)
def test_a_changed_credential_stays_shut(tpm: Tpm, ak: Key, kind: str) -> None:
    blob, secret = sealed(tpm.ek(kind), ak.name)
    with pytest.raises(TSS2_Exception):
        tpm.activate(ak, tpm.ek(kind), flipped(blob, -1), secret)


def test_an_ecc_endorsement_key_needs_an_ephemeral_key_on_its_curve(tpm: Tpm, ak: Key) -> None:
    ek = parse_public(tpm.ek(ECC_EK).public)
    for ephemeral in (None, ec.generate_private_key(ec.SECP256R1())):
        with pytest.raises(ValueError, match="ephemeral"):
            make_credential(ek, ak.name, SECRET, seed=b"", ephemeral=ephemeral)


def test_short_seeds_and_long_secrets_are_refused(tpm: Tpm, ak: Key) -> None:
    ek = parse_public(tpm.ek(RSA_EK).public)
    with pytest.raises(ValueError, match="seed"):
        make_credential(ek, ak.name, SECRET, seed=bytes(31), ephemeral=None)
    with pytest.raises(ValueError, match="longer"):
        make_credential(ek, ak.name, bytes(33), seed=bytes(32), ephemeral=None)


def test_a_key_that_names_no_symmetric_algorithm_gets_no_credential(ec_key: ec.EllipticCurvePrivateKey) -> None:
    ek = parse_public(SoftKey(ec_key, scheme=ALG_NULL, attributes=0x00030032).public)
    with pytest.raises(UnacceptableKey):
        require_ek(ek)
    with pytest.raises(UnacceptableKey):
        make_credential(ek, bytes(34), SECRET, seed=b"", ephemeral=ec_key)


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param(0x00030032 & ~(1 << 1), id="not fixedTPM"),
        pytest.param(0x00030032 & ~(1 << 16), id="not restricted"),
        pytest.param(0x00030032 & ~(1 << 17), id="does not decrypt"),
        pytest.param(0x00030032 | 1 << 18, id="signs"),
    ],
)
def test_a_key_with_other_attributes_is_no_endorsement_key(ec_key: ec.EllipticCurvePrivateKey, attributes: int) -> None:
    with pytest.raises(UnacceptableKey):
        require_ek(parse_public(SoftKey(ec_key, scheme=ALG_NULL, attributes=attributes).public))
