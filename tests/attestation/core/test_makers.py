"""A certificate is put under the maker that its bundle or its names say, and only as a label for people."""

from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from attestation.core.bundle import read_bundle
from attestation.core.certificate_reader import Tolerance, parse_certificate
from attestation.core.makers import MAKERS, NAME_LIMIT, called_root, maker_of, usual_tolerances
from tests.boot_logs import COLLECTION
from tests.certificate_forge import MIDDLE_KEY, ROOT_KEY, Form


def certificate(organisation: str, *, issuer: str = "") -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)] if organisation else [])
    above = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, issuer)] if issuer else [])
    form: dict[str, Any] = {"ca": True, "usage": "key_cert_sign", "purposes": ()}
    return parse_certificate(Form(name, above, MIDDLE_KEY, ROOT_KEY, **form).der())


@pytest.mark.parametrize(
    ("path", "maker", "root"),
    [
        ("STMicro\\RootCA\\STM TPM ECC Root CA 01.crt", "STMicroelectronics", True),
        ("TrustedTPM/QC/IntermediateCA/a.cer", "Qualcomm", False),
        ("C:\\tmp\\NewMaker\\rootca\\a.cer", "NewMaker", True),
        ("\x1b[2J" + "x" * 90 + "/RootCA/a.cer", "[2J" + "x" * (NAME_LIMIT - 3), True),
        ("Intel/a.cer", "Acme", None),
        ("RootCA/a.cer", "Acme", True),
        ("a.cer", "Acme", None),
        ("", "Acme", None),
    ],
)
def test_folders_name_the_maker_where_they_are_those_of_trusted_tpm(path: str, maker: str, root: bool | None) -> None:
    assert maker_of(certificate("Acme"), path) == maker
    assert called_root(path) is root


@pytest.mark.parametrize(
    ("organisation", "issuer", "maker"),
    [
        ("Infineon Technologies AG", "VeriSign, Inc.", "Infineon"),
        ("Some reseller", "Nuvoton Technology Corporation", "Nuvoton"),
        ("", "STMicroelectronics NV", "STMicroelectronics"),
        ("Acme\nLtd.\x00", "", "Acme Ltd."),
        ("", "", "Unnamed maker"),
        ("\x00", "", "Unnamed maker"),
    ],
)
def test_names_say_the_maker_where_folders_do_not(organisation: str, issuer: str, maker: str) -> None:
    assert maker_of(certificate(organisation, issuer=issuer)) == maker


def test_only_makers_that_are_known_to_need_them_start_with_exceptions() -> None:
    assert usual_tolerances("Nuvoton") == {Tolerance.SET_ORDER, Tolerance.PADDING}
    assert usual_tolerances("STMicroelectronics") == {Tolerance.OAEP_KEY, Tolerance.PADDING}
    assert usual_tolerances("Intel") == {Tolerance.NULL_PARAMETERS}
    others = {maker.name for maker in MAKERS} - {"Nuvoton", "STMicroelectronics", "Intel"}
    assert not any(usual_tolerances(name) for name in {*others, "Acme", ""})


@pytest.mark.skipif(not COLLECTION.exists(), reason="the collection of real certificates lies beside the repository")
def test_the_makers_of_published_bundles_are_known() -> None:
    folder = COLLECTION / "certs" / "loicsikidi"
    found = {
        maker_of(parse_certificate(candidate.der))
        for path in folder.glob("*.pem")
        for candidate in read_bundle(path.read_bytes()).candidates
    }
    assert found == {"AMD", "Infineon", "Intel", "Microsoft", "NationZ", "Nuvoton", "STMicroelectronics", "GlobalSign"}
