"""A health certificate says whose key it is and until when, and only our own signers' word counts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.certificate import (
    HEALTH_EKU,
    HealthClaims,
    Signer,
    build_crl,
    build_health_certificate,
    build_signer,
    serial_text,
    verify_health_certificate,
)
from attestation.errors import CertificateExpired, CertificateUnknown
from tests.tpm_forge import flipped, mutated

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
CLAIMS = HealthClaims("7d1b9d0e-6c66-4d6c-9f5b-0a2f5d0a4c11", "kvm-07.example", "tpm")
SERIAL = 0x0A1B2C3D4E5F60718293

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


def signer(key: ec.EllipticCurvePrivateKey = KEY, fabric: str = "Lab") -> x509.Certificate:
    der = build_signer(key, number=3, fabric=fabric, not_before=NOW - HOUR, not_after=NOW + 100 * HOUR)
    return x509.load_der_x509_certificate(der)


SIGNER = signer()


def spki(key: rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def issue(key: rsa.RSAPrivateKey, **changed: Any) -> bytes:
    arguments: dict[str, Any] = {
        "claims": CLAIMS,
        "transport_spki": spki(key),
        "serial": SERIAL,
        "not_before": NOW,
        "not_after": NOW + 8 * HOUR,
        "signer": Signer(KEY, SIGNER),
    }
    return build_health_certificate(**{**arguments, **changed})


def verify(der: bytes, *, now: datetime = NOW + HOUR) -> Any:
    return verify_health_certificate(der, signers=[SIGNER], now=now)


def test_a_certificate_says_what_was_certified(rsa_key: rsa.RSAPrivateKey) -> None:
    health = verify(issue(rsa_key))
    assert health.claims == CLAIMS
    assert health.transport_spki == spki(rsa_key)
    assert health.serial == "a1b2c3d4e5f60718293" == serial_text(SERIAL)
    assert (health.not_before, health.not_after) == (NOW, NOW + 8 * HOUR)
    assert health.signer_fingerprint == SIGNER.fingerprint(hashes.SHA256()).hex()


def test_it_is_for_health_and_key_encipherment_alone(rsa_key: rsa.RSAPrivateKey) -> None:
    extensions = x509.load_der_x509_certificate(issue(rsa_key)).extensions
    purpose = extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert purpose.critical
    assert list(purpose.value) == [HEALTH_EKU]
    assert usage.critical
    assert usage.value.key_encipherment
    assert not usage.value.digital_signature


def test_a_signer_issues_certificates_and_lists_but_no_authorities() -> None:
    basic = SIGNER.extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = SIGNER.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (basic.ca, basic.path_length) == (True, 0)
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    SIGNER.verify_directly_issued_by(SIGNER)


def test_long_names_are_cut_to_what_x509_allows(rsa_key: rsa.RSAPrivateKey) -> None:
    long_name = HealthClaims(CLAIMS.attester_id, "h" * 200, "tpm")
    assert verify(issue(rsa_key, claims=long_name)).claims.name == "h" * 64
    assert signer(fabric="f" * 200).subject.rfc4514_string().endswith(" 3")


def test_any_of_several_signers_will_do(rsa_key: rsa.RSAPrivateKey) -> None:
    signers = [signer(OTHER_KEY), SIGNER]
    assert verify_health_certificate(issue(rsa_key), signers=signers, now=NOW).claims == CLAIMS


def test_a_strangers_certificate_is_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    """The same names, another key; and nobody trusted at all."""
    forged = issue(rsa_key, signer=Signer(OTHER_KEY, signer(OTHER_KEY)))
    with pytest.raises(CertificateUnknown):
        verify(forged)
    with pytest.raises(CertificateUnknown):
        verify_health_certificate(issue(rsa_key), signers=[], now=NOW)


@pytest.mark.parametrize("moment", [NOW - timedelta(seconds=1), NOW + 8 * HOUR, NOW + 9 * HOUR])
def test_a_certificate_counts_in_its_time_only(rsa_key: rsa.RSAPrivateKey, moment: datetime) -> None:
    der = issue(rsa_key)
    with pytest.raises(CertificateExpired):
        verify(der, now=moment)


def test_a_certificate_does_not_outlive_its_signer(rsa_key: rsa.RSAPrivateKey) -> None:
    der = issue(rsa_key, not_after=NOW + 1000 * HOUR)
    with pytest.raises(CertificateExpired, match="signer"):
        verify(der, now=NOW + 101 * HOUR)


def test_the_signers_own_certificate_is_no_health_certificate() -> None:
    with pytest.raises(CertificateUnknown):
        verify(SIGNER.public_bytes(serialization.Encoding.DER))


@pytest.mark.parametrize("index", [10, 100, 300, -1])
def test_a_changed_certificate_is_refused(rsa_key: rsa.RSAPrivateKey, index: int) -> None:
    der = flipped(issue(rsa_key), index)
    with pytest.raises(CertificateUnknown):
        verify(der)


def test_trailing_bytes_and_floods_are_refused(rsa_key: rsa.RSAPrivateKey) -> None:
    der = issue(rsa_key)
    for wrong in (der + b"\0", der + bytes(10_000), b""):
        with pytest.raises(CertificateUnknown):
            verify(wrong)


def other_purpose(**changed: Any) -> bytes:
    """A certificate that our own signer made for something else."""
    key = changed.get("key", OTHER_KEY).public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(SIGNER.subject)
        .issuer_name(SIGNER.subject)
        .public_key(key)
        .serial_number(SERIAL)
        .not_valid_before(NOW)
        .not_valid_after(NOW + 8 * HOUR)
    )
    for extension in changed.get("extensions", ()):
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


NO_AUTHORITY = x509.BasicConstraints(ca=False, path_length=None)
URIS = [f"urn:guardhouse:attester:{CLAIMS.attester_id}", "urn:guardhouse:mode:tpm"]


def uris(*values: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(value) for value in values])


HEALTH = x509.ExtendedKeyUsage([HEALTH_EKU])


@pytest.mark.parametrize(
    "extensions",
    [
        pytest.param([], id="nothing said"),
        pytest.param([NO_AUTHORITY, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), uris(*URIS)], id="TLS"),
        pytest.param([NO_AUTHORITY, uris(*URIS)], id="no purpose"),
        pytest.param([NO_AUTHORITY, HEALTH], id="no host"),
        pytest.param([NO_AUTHORITY, HEALTH, uris(*URIS, URIS[0])], id="two hosts"),
        pytest.param([NO_AUTHORITY, HEALTH, uris(*URIS)], id="not an RSA key"),
        pytest.param([x509.BasicConstraints(ca=True, path_length=0), HEALTH, uris(*URIS)], id="an authority"),
    ],
)
def test_a_certificate_for_another_purpose_is_refused(extensions: list[x509.ExtensionType]) -> None:
    with pytest.raises(CertificateUnknown):
        verify(other_purpose(extensions=extensions))


def test_a_revocation_list_names_what_was_revoked() -> None:
    der = build_crl(
        revoked=[(SERIAL, NOW), (17, NOW - HOUR)],
        signer=Signer(KEY, SIGNER),
        number=9,
        now=NOW,
        next_update=NOW + HOUR,
    )
    crl = x509.load_der_x509_crl(der)
    assert crl.is_signature_valid(KEY.public_key())
    assert {entry.serial_number for entry in crl} == {SERIAL, 17}
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 9
    assert (crl.last_update_utc, crl.next_update_utc) == (NOW, NOW + HOUR)
    assert not crl.is_signature_valid(OTHER_KEY.public_key())


def test_an_empty_revocation_list_is_a_list() -> None:
    der = build_crl(revoked=[], signer=Signer(KEY, SIGNER), number=1, now=NOW, next_update=NOW + HOUR)
    crl = x509.load_der_x509_crl(der)
    assert list(crl) == []


@given(st.binary() | mutated(other_purpose()))
def test_any_bytes_as_a_health_certificate_are_refused(data: bytes) -> None:
    with pytest.raises((CertificateUnknown, CertificateExpired)):
        verify(data)
