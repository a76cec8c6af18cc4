"""Authorities in words: every reason has a remedy, every exception an explanation, every real certificate its facts."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from attestation.core.authority import Reason
from attestation.core.authority_words import EXCEPTIONS, REMEDIES, authority_facts
from attestation.core.certificate_reader import Tolerance, read_certificate
from tests.boot_logs import COLLECTION
from tests.certificate_forge import MIDDLE, MIDDLE_KEY, ROOT, ROOT_KEY, Form, authority

PUBLISHED = COLLECTION / "certs" / "keylime_tpm_cert_store"


def test_every_reason_has_a_remedy_and_every_exception_its_words() -> None:
    assert set(REMEDIES) == set(Reason)
    assert set(EXCEPTIONS) == set(Tolerance)


def test_an_authority_says_what_it_is() -> None:
    facts = authority_facts(MIDDLE.read)
    assert (facts.subject, facts.issuer, facts.serial) == ("CN=middle", "CN=root", "1267")
    assert (facts.key, facts.signed_with) == ("ECC secp256r1", "ECDSA and SHA-256")
    assert (facts.purposes, facts.path_length, facts.issuer_address) == ((), 0, "")
    assert authority_facts(ROOT.read).path_length is None


def test_purposes_are_named_where_the_tcg_names_them() -> None:
    other = x509.ObjectIdentifier("1.2.3")
    made = authority("a", "root", MIDDLE_KEY, ROOT_KEY, purposes=(*Form().purposes, other))
    assert authority_facts(made.read).purposes == ("endorsement keys", "1.2.3")


def test_a_name_of_many_lines_is_one_line() -> None:
    assert authority_facts(authority("a\nb\x00c", "root", MIDDLE_KEY, ROOT_KEY).read).subject.isprintable()


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the collection of real certificates is not here")
@pytest.mark.parametrize(
    ("name", "key", "signed_with"),
    [("STM_ECC_01I", "ECC secp256r1", "ECDSA and SHA-384"), ("IFX_RSA_RT", "RSA 2048", "RSA and SHA-1")],
)
def test_published_authorities_are_read(name: str, key: str, signed_with: str) -> None:
    pem = x509.load_pem_x509_certificate((PUBLISHED / f"{name}.pem").read_bytes())
    facts = authority_facts(read_certificate(pem.public_bytes(serialization.Encoding.DER)))
    assert (facts.key, facts.signed_with) == (key, signed_with)
