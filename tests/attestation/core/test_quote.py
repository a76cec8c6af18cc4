"""A quote counts when this host's TPM made it for this challenge over exactly these PCRs."""

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.core.quote import QUOTED_PCRS, verify_quote
from attestation.core.tpm import TpmPublic, parse_public
from attestation.errors import (
    AkNotRestricted,
    BadSignature,
    NotFromTpm,
    ParseError,
    Refusal,
    WrongNonce,
    WrongPcrDigest,
    WrongSelection,
)
from tests import tpm_forge
from tests.tpm_forge import ECDSA, RSAPSS, SHA384, SoftKey, flipped
from tests.tpm_lab import RESIDENT, Key, Tpm

NONCE = bytes(range(32))
SELECTION = ("sha256", QUOTED_PCRS)
ZEROS = dict.fromkeys(QUOTED_PCRS, bytes(32))
ZERO_DIGEST = hashlib.sha256(bytes(32 * len(QUOTED_PCRS))).digest()

soft = SoftKey(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def evidence(tpm: Tpm, ak: Key, ak_public: TpmPublic) -> dict[str, Any]:
    """Everything a good quote needs; each test spoils one thing."""
    quote, signature = tpm.quote(ak, NONCE, QUOTED_PCRS)
    return {
        "quote": quote,
        "signature": signature,
        "ak": ak_public,
        "nonce": NONCE,
        "selection": SELECTION,
        "pcr_values": tpm.pcrs(QUOTED_PCRS),
    }


def check(evidence: dict[str, Any], **changed: Any) -> Any:
    arguments = {**evidence, **changed}
    return verify_quote(arguments.pop("quote"), arguments.pop("signature"), **arguments)


def test_a_good_quote_gives_the_values_it_vouches_for(tpm: Tpm, evidence: dict[str, Any]) -> None:
    quote = check(evidence)
    assert quote.pcrs == tpm.pcrs(QUOTED_PCRS)
    assert quote.bank == "sha256"
    assert quote.clock.clock > 0
    assert quote.firmware_version > 0


@pytest.mark.parametrize(
    "kind", ["ecc384:ecdsa-sha384:null", "rsa2048:rsassa-sha256:null", "rsa2048:rsapss-sha256:null"]
)
def test_every_kind_of_attestation_key_quotes(tpm: Tpm, kind: str) -> None:
    key = tpm.primary(kind)
    quote, signature = tpm.quote(key, NONCE, QUOTED_PCRS)
    tpm.forget(key)
    values = tpm.pcrs(QUOTED_PCRS)
    ak = parse_public(key.public)
    verified = verify_quote(quote, signature, ak=ak, nonce=NONCE, selection=SELECTION, pcr_values=values)
    assert verified.pcrs == values


def test_a_quote_for_another_challenge_is_refused(evidence: dict[str, Any]) -> None:
    for nonce in (bytes(32), b"", NONCE[:-1], NONCE + b"\0"):
        with pytest.raises(WrongNonce):
            check(evidence, nonce=nonce)


def test_another_hosts_quote_is_refused(other_tpm: Tpm, evidence: dict[str, Any]) -> None:
    key = other_tpm.primary("ecc256:ecdsa-sha256:null")
    quote, signature = other_tpm.quote(key, NONCE, QUOTED_PCRS)
    other_tpm.forget(key)
    with pytest.raises(BadSignature):
        check(evidence, quote=quote, signature=signature)


@pytest.mark.parametrize("index", [0, 5, 40, 60, -1])
def test_a_flipped_bit_in_the_quote_is_refused(evidence: dict[str, Any], index: int) -> None:
    with pytest.raises(BadSignature):
        check(evidence, quote=flipped(evidence["quote"], index))


@pytest.mark.parametrize("index", range(0, 72, 3))
def test_a_flipped_bit_in_the_signature_is_refused(evidence: dict[str, Any], index: int) -> None:
    with pytest.raises((BadSignature, ParseError)):
        check(evidence, signature=flipped(evidence["signature"], index))


@pytest.mark.parametrize("pcrs", [QUOTED_PCRS[:-1], QUOTED_PCRS[1:], (*QUOTED_PCRS, 16), (7,)])
def test_a_quote_over_other_pcrs_is_refused(tpm: Tpm, ak: Key, evidence: dict[str, Any], pcrs: tuple[int, ...]) -> None:
    quote, signature = tpm.quote(ak, NONCE, pcrs)
    with pytest.raises(WrongSelection):
        check(evidence, quote=quote, signature=signature, pcr_values=tpm.pcrs(pcrs))


@pytest.mark.parametrize("bank", [0x0004, 0x000C])
def test_a_quote_of_another_bank_is_refused(bank: int) -> None:
    quote = tpm_forge.quote(NONCE, ZERO_DIGEST, QUOTED_PCRS, bank=bank)
    with pytest.raises(WrongSelection):
        forged(soft, quote)


def test_other_values_than_the_quoted_ones_are_refused(evidence: dict[str, Any]) -> None:
    values = evidence["pcr_values"]
    swapped = {**values, 0: bytes(31) + b"\1"}
    missing = {pcr: value for pcr, value in values.items() if pcr != 7}
    for wrong in (swapped, missing, {**values, 16: bytes(32)}, {**values, 0: bytes(20)}, {}):
        with pytest.raises(WrongPcrDigest):
            check(evidence, pcr_values=wrong)


def test_values_that_only_join_to_the_quoted_bytes_are_refused(evidence: dict[str, Any]) -> None:
    values = dict(evidence["pcr_values"])
    values[0], values[1] = values[0] + values[1][:1], values[1][1:]
    with pytest.raises(WrongPcrDigest):
        check(evidence, pcr_values=values)


def test_a_statement_that_no_tpm_makes_is_refused() -> None:
    with pytest.raises(NotFromTpm):
        forged(soft, tpm_forge.quote(NONCE, ZERO_DIGEST, QUOTED_PCRS, magic=0x00544347))


def test_a_certification_is_no_quote() -> None:
    with pytest.raises(NotFromTpm):
        forged(soft, tpm_forge.certification(NONCE, b"\0\x0b" + bytes(32)))


def test_a_quote_of_a_key_that_signs_anything_is_refused(tpm: Tpm) -> None:
    """The attack restricted keys are for: a TPM signs a quote that its host has written."""
    key = tpm.primary("ecc256:ecdsa-sha256:null", f"{RESIDENT}|userwithauth|sign")
    quote = tpm_forge.quote(NONCE, ZERO_DIGEST, QUOTED_PCRS)
    signature = tpm.sign(key, quote)
    tpm.forget(key)
    ak = parse_public(key.public)
    with pytest.raises(AkNotRestricted):
        verify_quote(quote, signature, ak=ak, nonce=NONCE, selection=SELECTION, pcr_values=ZEROS)


def test_a_well_formed_quote_of_a_large_hash_key_verifies(ec_key: ec.EllipticCurvePrivateKey, rsa_key: Any) -> None:
    for key in (SoftKey(ec_key, ECDSA, SHA384), SoftKey(rsa_key, RSAPSS, SHA384)):
        digest = hashlib.sha384(bytes(32 * len(QUOTED_PCRS))).digest()
        assert forged(key, tpm_forge.quote(NONCE, digest, QUOTED_PCRS)).pcrs == ZEROS


def test_a_digest_with_another_hash_than_the_keys_is_refused(ec_key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(WrongPcrDigest):
        forged(SoftKey(ec_key, ECDSA, SHA384), tpm_forge.quote(NONCE, ZERO_DIGEST, QUOTED_PCRS))


def test_a_malformed_quote_is_refused_even_when_it_is_signed() -> None:
    for quote in (b"", tpm_forge.quote(NONCE, ZERO_DIGEST, QUOTED_PCRS) + b"\0"):
        with pytest.raises(Refusal):
            forged(soft, quote)


def forged(key: SoftKey, quote: bytes) -> Any:
    ak = parse_public(key.public)
    return verify_quote(quote, key.sign(quote), ak=ak, nonce=NONCE, selection=SELECTION, pcr_values=ZEROS)
