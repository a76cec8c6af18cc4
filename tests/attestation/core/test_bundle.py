"""A bundle gives its certificates in every form, tells what is wrong with each, and stays within its bounds."""

import contextlib
import subprocess
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from attestation.core import bundle
from attestation.core.bundle import BUNDLE_LIMIT, Candidate, Form, read_bundle
from attestation.core.certificate_reader import read_certificate
from attestation.errors import ParseError, TooLarge
from tests.boot_logs import COLLECTION
from tests.cabinets import MSZIP, NONE, Cabinet, pkcs7
from tests.certificate_forge import MIDDLE, ROOT
from tests.tpm_forge import mutated

FIRST, SECOND = ROOT.read.der, MIDDLE.read.der
PEMS = [each.certificate.public_bytes(Encoding.PEM) for each in (ROOT, MIDDLE)]


def zipped(files: Mapping[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = BytesIO()
    with zipfile.ZipFile(data, "w", packing) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def ders(data: bytes) -> list[bytes]:
    found = read_bundle(data)
    assert not any(candidate.problem for candidate in found.candidates)
    return [candidate.der for candidate in found.candidates]


FORMS = [
    pytest.param(PEMS[0] + PEMS[1], Form.PEM, id="PEM"),
    pytest.param(
        b"\xef\xbb\xbf# a remark\r\n" + b"\r\n".join(PEMS).replace(b"\n", b"\r\n"), Form.PEM, id="Windows PEM"
    ),
    pytest.param(FIRST + SECOND, Form.DER, id="DER, one behind the other"),
    pytest.param(pkcs7([FIRST, SECOND]), Form.PKCS7, id="PKCS #7"),
    pytest.param(zipped({"a/one.crt": FIRST, "two.pem": PEMS[1]}), Form.ZIP, id="ZIP"),
    pytest.param(zipped({"one.p7b": pkcs7([FIRST, SECOND])}, zipfile.ZIP_STORED), Form.ZIP, id="stored ZIP"),
    pytest.param(Cabinet({"a\\one.crt": FIRST, "two.cer": PEMS[1]}).made(), Form.CABINET, id="cabinet"),
    pytest.param(Cabinet({"all": FIRST + SECOND}, NONE).made(), Form.CABINET, id="stored cabinet"),
]


@pytest.mark.parametrize(("data", "form"), FORMS)
def test_every_form_gives_the_same_certificates(data: bytes, form: Form) -> None:
    assert read_bundle(data).form is form
    assert ders(data) == [FIRST, SECOND]


def test_what_openssl_makes_is_read(tmp_path: Path) -> None:
    (tmp_path / "both.pem").write_bytes(b"".join(PEMS))
    for encoding in ("DER", "PEM"):
        command = ["openssl", "crl2pkcs7", "-nocrl", "-certfile", "both.pem", "-outform", encoding, "-out", "made.p7b"]
        subprocess.run(command, cwd=tmp_path, check=True)
        assert sorted(ders((tmp_path / "made.p7b").read_bytes())) == sorted([FIRST, SECOND])


def test_padding_stays_with_the_certificate_that_it_follows() -> None:
    assert ders(FIRST + SECOND + b"\xff" * 40) == [FIRST, SECOND + b"\xff" * 40]


def test_one_bad_certificate_spoils_no_other() -> None:
    wrong = b"-----BEGIN CERTIFICATE-----\nMII!\n-----END CERTIFICATE-----\n"
    found = read_bundle(PEMS[0] + wrong + PEMS[1]).candidates
    assert [bool(candidate.problem) for candidate in found] == [False, True, False]
    assert "no base64" in found[1].problem
    files = {"a.crt": FIRST, "b.crt": b"nothing", "c.pem": PEMS[1][:-30], "d.der": b"\x30\x84", "e.crt": SECOND}
    problems = {candidate.path: candidate.problem for candidate in read_bundle(zipped(files)).candidates}
    assert problems.keys() == files.keys()
    assert [path for path, problem in problems.items() if problem] == ["b.crt", "c.pem", "d.der"]


def test_files_that_are_no_certificates_are_named_and_left_alone() -> None:
    found = read_bundle(
        zipped({"setup.cmd": b"format c:", "RootCA/a.crt": FIRST, "inner.zip": zipped({"b.crt": SECOND})})
    )
    assert found.candidates == (Candidate("RootCA/a.crt", FIRST),)
    assert found.ignored == ("setup.cmd", "inner.zip")  # nothing nests


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"certificates", id="text"),
        pytest.param(b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", id="another PEM"),
        pytest.param(zipped({"readme": b"empty"}), id="a ZIP of nothing"),
        pytest.param(zipped({}), id="an empty ZIP"),
        pytest.param(b"PK\x03\x04" + b"rubbish" * 20, id="a broken ZIP"),
        pytest.param(zipped({"a.crt": FIRST})[:-10], id="a cut ZIP"),
        pytest.param(zipped({"a.crt": FIRST}, zipfile.ZIP_BZIP2), id="an unusual ZIP"),
        pytest.param(Cabinet({"a.crt": FIRST}).made()[:-10], id="a cut cabinet"),
    ],
)
def test_a_file_without_certificates_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError):
        read_bundle(data)


def test_a_file_of_a_zip_that_was_damaged_is_refused() -> None:
    data = zipped({"a.crt": FIRST}, zipfile.ZIP_STORED)
    with pytest.raises(ParseError, match="cannot be read"):
        read_bundle(data.replace(FIRST[-8:], bytes(8)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(bytes(BUNDLE_LIMIT + 1), "larger than 8 MiB", id="a large file"),
        pytest.param(zipped({"a.crt": bytes(1 << 20)}), "more than is unpacked", id="one that packs too well"),
        pytest.param(
            zipped({f"{n}.crt": bytes(200_000) + bytes(range(256)) * 12 for n in range(2)}), "more than", id="two bombs"
        ),
        pytest.param(Cabinet({"a": bytes(33 << 20)}).made(), "more than is unpacked", id="a cabinet that swells"),
        pytest.param(zipped({str(n): b"" for n in range(8193)}), "8192 files", id="a ZIP of many files"),
        pytest.param(b"\x30\x00" * 8193, "8192 certificates", id="many certificates"),
    ],
)
def test_a_bomb_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(TooLarge, match=said):
        read_bundle(data)


def test_a_zip_that_lies_about_its_sizes_gives_no_more_than_it_claims() -> None:
    data = zipped({"a.crt": bytes(90_000)})
    lie = data.replace((90_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    with pytest.raises(ParseError):
        read_bundle(lie)


def test_unclosed_pem_is_read_in_one_pass() -> None:
    """Each beginning that looks for an end to the file's end would make this quadratic: minutes, not milliseconds."""
    found = read_bundle(b"-----BEGIN CERTIFICATE-----\n" * 250_000).candidates
    assert len(found) == 1
    assert "without its end" in found[0].problem


@given(
    st.binary(max_size=300)
    | mutated(FIRST + SECOND)
    | mutated(b"".join(PEMS))
    | mutated(pkcs7([FIRST, SECOND]))
    | mutated(zipped({"a.crt": FIRST, "b.pem": PEMS[1]}))
    | mutated(zipped({"a.crt": FIRST}, zipfile.ZIP_STORED))
    | mutated(Cabinet({"a.crt": FIRST, "b.pem": PEMS[1]}, MSZIP, checksums=False).made())
)
def test_any_bytes_give_candidates_or_a_parse_error(data: bytes) -> None:
    with contextlib.suppress(ParseError):
        found = read_bundle(data)
        assert found.candidates
        assert all(isinstance(candidate.der, bytes) for candidate in found.candidates)


@given(st.binary(max_size=300).map(lambda rest: bundle._BEGIN + rest))
def test_any_bytes_after_a_pem_beginning_give_candidates_or_a_parse_error(data: bytes) -> None:
    with contextlib.suppress(ParseError):
        assert read_bundle(data).candidates


REAL = COLLECTION / "certs"
real = pytest.mark.skipif(not REAL.exists(), reason="the collection of real certificates lies beside the repository")


@real
@pytest.mark.parametrize(
    ("name", "count"), [("MIRROR.tpm-ca-certificates.pem", 26), ("MIRROR.tpm-intermediate-ca-certificates.pem", 143)]
)
def test_a_published_bundle_is_read_whole(name: str, count: int) -> None:
    assert len(ders((REAL / "loicsikidi" / name).read_bytes())) == count


@real
def test_the_same_certificates_come_out_of_every_form(tmp_path: Path) -> None:
    """Fifty-one certificates of nine makers, through each reader and through gcab."""
    paths = sorted((REAL / "keylime_tpm_cert_store").glob("*.pem"))
    pems = [path.read_bytes() for path in paths]
    wanted = ders(b"\n".join(pems))
    assert len(wanted) == len(paths)
    subprocess.run(["gcab", "--create", "--zip", "--nopath", tmp_path / "made.cab", *paths], check=True)
    forms: list[Any] = [
        b"".join(wanted),
        pkcs7(wanted),
        zipped({f"{n}.der": der for n, der in enumerate(wanted)}),
        Cabinet({f"{n}.der": der for n, der in enumerate(wanted)}).made(),
        (tmp_path / "made.cab").read_bytes(),
    ]
    for data in forms:
        assert ders(data) == wanted
    assert all(read_certificate(der) for der in wanted)
