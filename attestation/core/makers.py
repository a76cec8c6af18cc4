"""Makers of TPMs by the names they go by: in their certificates, and in the folders of Microsoft's TrustedTpm.cab.

A name groups authorities for people, and its exceptions are where real certificates of that maker have been seen to
need them. It proves nothing: trust comes from the person who imports an authority.
"""

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from attestation.core.certificate_reader import Tolerance, plain, quiet

NAME_LIMIT: Final = 60
UNNAMED: Final = "Unnamed maker"
_ROOTS: Final = "rootca"
_INTERMEDIATES: Final = "intermediateca"


@dataclass(frozen=True, slots=True)
class Maker:
    """`words` begin an organisation's or authority's name, `folder` is its folder's name; both in lower case."""

    name: str
    words: tuple[str, ...]
    folder: str = ""
    tolerances: frozenset[Tolerance] = frozenset()


MAKERS: Final = (
    Maker("AMD", ("advanced micro devices", "amd"), "amd"),
    Maker("Alibaba Cloud", ("aliyun", "alibaba"), "alibaba"),
    Maker("Atmel", ("atmel", "microchip"), "atmel"),
    Maker("Google", ("google",), "google"),
    Maker("Infineon", ("infineon", "ifx", "optiga"), "infineon"),
    Maker("Intel", ("intel", "www.intel.com"), "intel", frozenset({Tolerance.NULL_PARAMETERS})),
    Maker("Microsoft", ("microsoft",), "microsoft"),
    Maker("NationZ", ("nationz", "nations technologies", "nsing"), "nationz"),
    Maker("Nuvoton", ("nuvoton", "ntc "), "nuvoton", frozenset({Tolerance.SET_ORDER, Tolerance.PADDING})),
    Maker("Qualcomm", ("qualcomm",), "qc"),
    Maker(
        "STMicroelectronics",
        ("stmicro", "stm ", "stsafe"),
        "stmicro",
        frozenset({Tolerance.OAEP_KEY, Tolerance.PADDING}),
    ),
    Maker("swtpm", ("swtpm",)),
)
_BY_FOLDER: Final = {maker.folder: maker.name for maker in MAKERS if maker.folder}
_TOLERANCES: Final = {maker.name: maker.tolerances for maker in MAKERS}


def usual_tolerances(name: str) -> frozenset[Tolerance]:
    """Return the exceptions that a maker starts with; one that is not in the table starts with none."""
    return _TOLERANCES.get(name, frozenset())


def maker_of(certificate: x509.Certificate, path: str = "") -> str:
    """Name the maker: by the folder a bundle has the certificate in, or else by what it says of itself."""
    return _from_path(path) or _from_names(certificate) or UNNAMED


def called_root(path: str) -> bool | None:
    """Say what a bundle's folder calls this certificate, None when the bundle has no such folders."""
    folder = next(reversed(_folders(path)), "").lower()
    return {_ROOTS: True, _INTERMEDIATES: False}.get(folder)


def _folders(path: str) -> list[str]:
    return path.replace("\\", "/").split("/")[:-1]


def _from_path(path: str) -> str:
    """Read `…/VENDOR/RootCA/file`, as TrustedTpm.cab and those who unpacked it have it."""
    folders = _folders(path)
    if len(folders) < 2 or called_root(path) is None:
        return ""
    return _BY_FOLDER.get(folders[-2].lower()) or plain(folders[-2], limit=NAME_LIMIT)


def _from_names(certificate: x509.Certificate) -> str:
    """Look through organisation, common name and unit of the subject, then of the issuer."""
    with quiet():
        said = [text for name in (certificate.subject, certificate.issuer) for text in _texts(name)]
    known = (maker.name for text in said for maker in MAKERS if text.lower().startswith(maker.words))
    return next(known, "") or next((clean for text in said if (clean := plain(text, limit=NAME_LIMIT))), "")


def _texts(name: x509.Name) -> list[str]:
    kinds = (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME)
    values = [each.value for kind in kinds for each in name.get_attributes_for_oid(kind)]
    return [value for value in values if isinstance(value, str)]
