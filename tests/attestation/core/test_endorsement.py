"""A maker's certificate counts for the TPM it was made for, under an authority that the operator trusts."""

import contextlib
import re
from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.authority import AIK_CERTIFICATE, Authority
from attestation.core.certificate_reader import Tolerance, certificate_key, parse_certificate, read_certificate
from attestation.core.endorsement import Endorsement, verify_endorsement
from attestation.core.tpm import TpmPublic, parse_public
from attestation.errors import (
    EndorsementMismatch,
    EndorsementNotTolerated,
    EndorsementRefused,
    EndorsementUntrusted,
    ParseError,
    TooLarge,
)
from tests.boot_logs import COLLECTION
from tests.certificate_forge import (
    CHAIN,
    EK,
    EK_KEY,
    EVERYTHING,
    LATER,
    MIDDLE,
    MIDDLE_KEY,
    NOW,
    ROOT,
    ROOT_KEY,
    TLS_SERVER,
    Form,
    authority,
    intel,
    lenient,
    made_by,
    nuvoton,
    trusted,
)
from tests.tpm_forge import mutated
from tests.tpm_lab import ECC_EK, RSA_EK, Maker, Tpm

REAL = COLLECTION / "certs"
real = pytest.mark.skipif(not REAL.exists(), reason="the collection of real EK certificates lies beside the repository")


def verify(der: bytes, authorities: list[Authority] = CHAIN, *, now: datetime = NOW) -> Endorsement:
    return verify_endorsement(der, EK, authorities=authorities, now=now)


@pytest.mark.parametrize("kind", [RSA_EK, ECC_EK])
def test_a_tpm_of_a_trusted_maker_is_endorsed(maker: Maker, tpm: Tpm, kind: str) -> None:
    ek = parse_public(tpm.ek(kind).public)
    endorsement = verify_endorsement(tpm.ek_certificate(kind), ek, authorities=made_by(maker), now=datetime.now(UTC))
    assert (endorsement.manufacturer, endorsement.model) == ("id:00001014", "swtpm")
    assert endorsement.version.startswith("id:")
    assert endorsement.root_fingerprint == maker.authorities()[0].fingerprint(hashes.SHA256()).hex()


def test_the_certificate_of_another_tpm_is_refused(maker: Maker, tpm: Tpm, other_tpm: Tpm) -> None:
    ek = parse_public(tpm.ek().public)
    certificate = other_tpm.ek_certificate()
    with pytest.raises(EndorsementMismatch):
        verify_endorsement(certificate, ek, authorities=made_by(maker), now=datetime.now(UTC))


def test_the_maker_must_be_trusted(maker: Maker, tpm: Tpm) -> None:
    ek = parse_public(tpm.ek().public)
    certificate = tpm.ek_certificate()
    root, middle = made_by(maker)
    for authorities in ([], [root], [middle], CHAIN):
        with pytest.raises(EndorsementUntrusted):
            verify_endorsement(certificate, ek, authorities=authorities, now=datetime.now(UTC))


def test_a_good_chain_says_who_vouches_and_until_when() -> None:
    endorsement = verify(Form().der())
    assert endorsement.issuer == "CN=middle"
    assert endorsement.serial == "1267"
    assert endorsement.not_after == LATER
    assert (endorsement.manufacturer, endorsement.model, endorsement.version) == ("", "", "")


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        pytest.param(Form(not_after=NOW - timedelta(days=1)), "expired on", id="expired"),
        pytest.param(Form(not_before=NOW + timedelta(days=1)), "not valid before", id="not yet valid"),
        pytest.param(Form(purposes=()), "2.23.133.8.1", id="no purpose"),
        pytest.param(Form(purposes=(x509.ObjectIdentifier("2.23.133.8.3"),)), "2.23.133.8.1", id="an AK certificate"),
        pytest.param(Form(ca=True), "authority", id="an authority"),
        pytest.param(Form(usage="digital_signature"), "not for encryption", id="for signing"),
        pytest.param(Form(signer=EK_KEY), "not signed by", id="signed by itself in the maker's name"),
        pytest.param(
            Form(extra=(x509.InhibitAnyPolicy(0),)), "critical extension 2.5.29.54", id="critical and not understood"
        ),
    ],
)
def test_a_wrong_ek_certificate_is_refused_and_says_why(form: Form, sentence: str) -> None:
    der = form.der()
    with pytest.raises(EndorsementRefused, match=sentence) as caught:
        verify(der)
    assert caught.value.code == "ek_certificate_refused"


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        pytest.param({"ca": False}, "does not say that it is an authority", id="not an authority"),
        pytest.param({"ca": None}, "does not say that it is an authority", id="no basic constraints"),
        pytest.param({"usage": "crl_sign"}, "not for signing certificates", id="other key usage"),
        pytest.param({"usage": None}, "not for signing certificates", id="no key usage"),
        pytest.param({"not_after": NOW - timedelta(days=1)}, "expired on", id="expired"),
        pytest.param({"signer": MIDDLE_KEY}, "not signed by", id="not signed by the root"),
        pytest.param({"extra": (x509.InhibitAnyPolicy(0),)}, "critical extension", id="not understood"),
        pytest.param({"purposes": (AIK_CERTIFICATE,)}, "is for attestation keys", id="for attestation keys"),
        pytest.param({"purposes": (TLS_SERVER,)}, "is for other purposes", id="for servers"),
    ],
)
def test_a_wrong_intermediate_is_refused(changed: dict[str, Any], sentence: str) -> None:
    form: dict[str, Any] = {"signer": ROOT_KEY, **changed}
    middle = authority("middle", "root", MIDDLE_KEY, form.pop("signer"), **form)
    with pytest.raises(EndorsementRefused, match=sentence):
        verify(Form().der(), [ROOT, middle])


def test_an_expired_root_is_refused() -> None:
    root = authority("root", "root", ROOT_KEY, ROOT_KEY, not_after=NOW - timedelta(days=1))
    with pytest.raises(EndorsementRefused, match="expired"):
        verify(Form().der(), [root, MIDDLE])


def test_a_longer_chain_than_an_authority_allows_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    below = authority("below", "middle", key, MIDDLE_KEY)
    der = Form(issuer="below", signer=key).der()
    with pytest.raises(EndorsementRefused, match="allows 0 authorities below it, there are 1"):
        verify(der, [*CHAIN, below])
    free = authority("middle", "root", MIDDLE_KEY, ROOT_KEY)
    assert verify(der, [ROOT, free, below]).issuer == "CN=below"


def test_authorities_that_vouch_for_each_other_end_nowhere() -> None:
    left = authority("middle", "other", MIDDLE_KEY, ROOT_KEY)
    right = authority("other", "middle", ROOT_KEY, MIDDLE_KEY)
    with pytest.raises(EndorsementRefused, match="too long"):
        verify(Form().der(), [left, right])


def test_an_intermediate_alone_is_no_root() -> None:
    with pytest.raises(EndorsementUntrusted):
        verify(Form().der(), [MIDDLE])


def test_a_namesake_beside_the_true_authority_does_no_harm() -> None:
    namesake = authority("middle", "root", EK_KEY, ROOT_KEY)
    for authorities in ([namesake, *CHAIN], [*CHAIN, namesake]):
        assert verify(Form().der(), authorities).issuer == "CN=middle"


MALFORMED = [
    pytest.param(Form().der() + bytes(300), Tolerance.PADDING, id="padding"),
    pytest.param(nuvoton(), Tolerance.SET_ORDER, id="a SET out of order"),
    pytest.param(intel(Form()), Tolerance.NULL_PARAMETERS, id="NULL beside ECDSA"),
]


@pytest.mark.parametrize(("der", "tolerance"), MALFORMED)
def test_a_malformed_certificate_counts_only_where_its_maker_may_make_such(der: bytes, tolerance: Tolerance) -> None:
    assert read_certificate(der).tolerances == {tolerance}
    assert verify(der, lenient(tolerance)).tolerances == (tolerance,)
    assert verify(der, lenient(*Tolerance)).tolerances == (tolerance,)
    for others in ((), set(Tolerance) - {tolerance}):
        with pytest.raises(EndorsementNotTolerated, match=tolerance.value) as caught:
            verify(der, lenient(*others))
        assert caught.value.code == "ek_malformation_not_tolerated"


@pytest.mark.parametrize(("der", "tolerance"), MALFORMED)
def test_what_is_forgiven_is_in_no_way_unsigned(der: bytes, tolerance: Tolerance) -> None:
    """Mending is for the parser: the signature is over the bytes as they came."""
    body = read_certificate(der).body
    at = der.index(body) + body.index(bytes.fromhex("1267"))
    forged = der[:at] + b"\x12\x68" + der[at + 2 :]
    with pytest.raises(EndorsementRefused, match="not signed by"):
        verify(forged, lenient(*Tolerance))


def test_a_malformed_authority_counts_only_where_its_maker_may_make_such() -> None:
    form = Form("middle", "root", MIDDLE_KEY, ROOT_KEY, ca=True, usage="key_cert_sign", purposes=())
    der = intel(form)
    allowed = frozenset({Tolerance.NULL_PARAMETERS})
    assert verify(Form().der(), [ROOT, trusted(der, tolerated=allowed)]).tolerances == ("ecdsa_null_parameters",)
    with pytest.raises(EndorsementNotTolerated, match="ecdsa_null_parameters"):
        verify(Form().der(), [ROOT, trusted(der, tolerated=EVERYTHING - allowed)])
    allowed_below = [replace(ROOT, tolerated=EVERYTHING), trusted(der)]
    with pytest.raises(EndorsementNotTolerated):
        verify(Form().der(), allowed_below)


def test_padding_after_the_certificate_is_no_part_of_it() -> None:
    der = Form().der()
    padded = verify(der + bytes(300), lenient(Tolerance.PADDING))
    assert padded.fingerprint == verify(der).fingerprint
    assert read_certificate(der + bytes(300)).der == der


def test_a_chain_is_told_from_the_issuer_to_the_root() -> None:
    found = verify(Form().der())
    assert found.chain == (MIDDLE.read.fingerprint, ROOT.read.fingerprint)
    assert found.root_fingerprint == ROOT.read.fingerprint
    assert found.tolerances == ()


def aia(*addresses: str, method: x509.ObjectIdentifier = AuthorityInformationAccessOID.CA_ISSUERS) -> Any:
    places = [x509.AccessDescription(method, x509.UniformResourceIdentifier(address)) for address in addresses]
    return x509.AuthorityInformationAccess(places)


def test_a_missing_issuer_is_named_with_its_address() -> None:
    with pytest.raises(EndorsementUntrusted, match="“CN=middle” has signed the EK certificate") as caught:
        verify(Form(access=aia("ldap://maker.example/ca", "http://maker.example/middle.crt")).der(), [ROOT])
    assert "should be at http://maker.example/middle.crt" in str(caught.value)
    with pytest.raises(EndorsementUntrusted, match="“CN=root” has signed “CN=middle”"):
        verify(Form().der(), [MIDDLE])


@pytest.mark.parametrize(
    "access",
    [
        pytest.param(aia("ldap://maker.example/ca"), id="another scheme"),
        pytest.param(aia("http://maker.example/<b> x"), id="a space"),
        pytest.param(aia("http://" + "a" * 400), id="too long"),
        pytest.param(aia("javascript:alert(1)"), id="a script"),
        pytest.param(aia("http://ocsp.example", method=AuthorityInformationAccessOID.OCSP), id="OCSP"),
    ],
)
def test_an_unusable_address_is_not_shown(access: Any) -> None:
    with pytest.raises(EndorsementUntrusted) as caught:
        verify(Form(access=access).der(), [ROOT])
    assert "should be at" not in str(caught.value)


def test_what_a_person_can_change_is_told_before_what_cannot() -> None:
    expired = authority("middle", "root", MIDDLE_KEY, ROOT_KEY, not_after=NOW - timedelta(days=1))
    orphan = authority("middle", "elsewhere", MIDDLE_KEY, ROOT_KEY)
    for authorities in ([ROOT, expired, orphan], [ROOT, orphan, expired]):
        with pytest.raises(EndorsementUntrusted, match="CN=elsewhere"):
            verify(Form().der(), authorities)


def test_what_is_no_certificate_is_malformed() -> None:
    der = Form().der()
    for wrong in (b"", b"\x30", b"\x30\x80", der[:-1], der[4:], b"\x31" + der[1:], b"\x30\x84\xff\xff\xff\xff"):
        with pytest.raises(ParseError):
            parse_certificate(wrong)
    with pytest.raises(TooLarge):
        parse_certificate(der + bytes(17_000))


def test_deep_nesting_is_malformed() -> None:
    nested = b""
    for _ in range(60):
        nested = bytes((0x30, len(nested))) + nested
    with pytest.raises(ParseError):
        parse_certificate(nested)


def test_an_unknown_version_is_malformed() -> None:
    der = Form().der()
    version = bytes.fromhex("a003020102")
    with pytest.raises(ParseError):
        parse_certificate(der.replace(version, bytes.fromhex("a00302017d"), 1))


def test_two_extensions_of_one_kind_are_malformed() -> None:
    der = Form().der()
    purpose, usage = bytes.fromhex("0603551d25"), bytes.fromhex("0603551d0f")
    assert der.count(purpose) == der.count(usage) == 1
    with pytest.raises(ParseError):
        parse_certificate(der.replace(purpose, usage))


@given(st.binary() | mutated(Form(ca=False).der()) | mutated(MIDDLE.read.der))
def test_any_bytes_give_a_certificate_or_a_parse_error(data: bytes) -> None:
    with contextlib.suppress(ParseError):
        assert isinstance(parse_certificate(data), x509.Certificate)


GOOD = Form().der()


@given(mutated(GOOD))
def test_any_change_to_the_certificate_is_refused(data: bytes) -> None:
    """Save in the padding, and in the signature's own algorithm parameters, which nobody signs or reads."""
    try:
        verify(data, lenient(*Tolerance))
    except (ParseError, EndorsementRefused):
        return
    assert signed_part(data) == signed_part(GOOD)


def signed_part(der: bytes) -> bytes:
    return read_certificate(der).body


# Real certificates of real TPMs.


def real_certificates() -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in sorted(REAL.glob("ek/*.der"))]


@pytest.fixture(scope="module")
def real_authorities() -> list[Authority]:
    pems = b"".join(path.read_bytes() for path in sorted(REAL.glob("*/*.pem")))
    blocks = [b64decode(block) for block in re.findall(rb"-BEGIN CERTIFICATE-----(.*?)-----END", pems, re.DOTALL)]
    blocks += [path.read_bytes() for path in sorted(REAL.glob("ek/*root_signer*.der"))]
    found = []
    for der in blocks:
        with contextlib.suppress(ParseError):
            found.append(trusted(der, tolerated=EVERYTHING))
    return found


def endorsed(der: bytes) -> TpmPublic:
    """Stand in for the TPM that this certificate was made for."""
    key = certificate_key(parse_certificate(der))
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    return replace(EK, key=key)


@real
@pytest.mark.parametrize("path", real_certificates())
def test_every_real_certificate_is_read(path: Path) -> None:
    assert parse_certificate(path.read_bytes()).serial_number


@real
@pytest.mark.parametrize("path", real_certificates())
def test_no_real_certificate_surprises_verification(path: Path, real_authorities: list[Authority]) -> None:
    der = path.read_bytes()
    with contextlib.suppress(EndorsementRefused):
        verify_endorsement(der, endorsed(der), authorities=real_authorities, now=NOW)


@real
@pytest.mark.parametrize(
    ("name", "manufacturer", "needed"),
    [
        pytest.param("keylime_st_ecdsa_sha256_der_85f38843", "id:53544D20", (), id="STM, P-256"),
        pytest.param("keylime_st_sha256_with_rsa_der_02d30b10", "id:53544D20", ("padding",), id="STM, RSA, padded"),
        pytest.param("keylime_malformed_cert_933cdb17", "id:4E544300", ("set_order",), id="Nuvoton, SETs out of order"),
        pytest.param("tpm_ek_v1_cloud_host_signer_0_2021_10_12_ECP_9fdd7997", "id:474F4F47", (), id="Google, P-256"),
        pytest.param("tpm_ek_v1_cloud_host_signer_0_2021_10_12_RSA_af614aee", "id:474F4F47", (), id="Google, RSA"),
    ],
)
def test_genuine_tpms_are_endorsed(
    name: str, manufacturer: str, needed: tuple[str, ...], real_authorities: list[Authority]
) -> None:
    der = (REAL / "ek" / f"{name}.der").read_bytes()
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    endorsement = verify_endorsement(der, endorsed(der), authorities=real_authorities, now=moment)
    assert endorsement.manufacturer == manufacturer
    assert endorsement.model
    assert endorsement.tolerances == needed
    with pytest.raises(EndorsementUntrusted):
        verify_endorsement(der, endorsed(der), authorities=CHAIN, now=moment)


@real
def test_a_key_that_is_marked_for_oaep_is_an_rsa_key() -> None:
    """STM's older certificates; `cryptography` alone gives no key for them."""
    der = next(REAL.glob("ek/STM_TPM_EK_Intermediate_CA_02_*.der")).read_bytes()
    assert isinstance(endorsed(der).key, rsa.RSAPublicKey)
    assert Tolerance.OAEP_KEY in read_certificate(der).tolerances


@real
def test_a_certificate_that_is_signed_with_sha1_is_refused(real_authorities: list[Authority]) -> None:
    der = next(REAL.glob("ek/STM_TPM_EK_Intermediate_CA_02_*.der")).read_bytes()
    with pytest.raises(EndorsementRefused, match="no longer safe"):
        verify_endorsement(der, endorsed(der), authorities=real_authorities, now=datetime(2022, 1, 1, tzinfo=UTC))
