"""Good input for every parser: out of real captures where there are any, else made by our own builders or a forge.

The captures in this repository give some of each kind; the larger collection, where it lies beside it, gives more.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from io import BytesIO
from itertools import islice
from struct import pack
from uuid import UUID
from zipfile import ZIP_DEFLATED, ZipFile

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from attestation.core.base64url import from_b64u
from attestation.core.certificate import HealthClaims, Signer, build_health_certificate, build_signer
from attestation.core.eventlog import UnverifiedEvent, parse_event_log
from attestation.core.ima import ima_records
from attestation.core.ima_templates import binary_from_text, decode_line, is_text
from attestation.core.platform_identifier import NAMESPACE
from attestation.core.possession import prove
from attestation.core.quote import BOOT_PCRS, QUOTED_PCRS
from attestation.core.sipa import BOOT_REVOCATION_LIST, OS_REVOCATION_LIST, SECURE_BOOT_POLICY, SI_POLICY, parse_sipa
from attestation.core.transport import policy_pcr
from attestation.core.uefi import parse_authority, parse_variable
from attestation.errors import ParseError
from tests.boot_logs import CAPTURES, COLLECTION, locality, record, spec_id
from tests.cabinets import NONE, Cabinet, pkcs7
from tests.certificate_forge import CHAIN, MIDDLE, ROOT, Form, intel, nuvoton
from tests.ci_policies import ALLOW_ALL, STRICT, Policy
from tests.disks import ESP, gpt
from tests.disks import ROOT as ROOT_PARTITION
from tests.ima_lists import legacy, ng, sig, violated
from tests.ima_signing import certificate, ima_signature
from tests.kps.parties import NOW
from tests.tpm_forge import OAEP, TRANSPORT_ATTRIBUTES, SoftKey, certification, quote

LARGEST = 64 * 1024
NONCE = bytes(range(32))
EC_KEY, AK_KEY, HEALTH_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
RSA_KEY = rsa.generate_private_key(65537, 2048)
HOST_KEY = ec.generate_private_key(ec.SECP256R1())
AK = SoftKey(AK_KEY)
BLANK = dict.fromkeys(QUOTED_PCRS, bytes(32))
TRANSPORT = SoftKey(
    RSA_KEY, scheme=OAEP, attributes=TRANSPORT_ATTRIBUTES, policy=policy_pcr(("sha256", BOOT_PCRS), BLANK)
)
_LATER = NOW.replace(hour=NOW.hour + 1)
HEALTH_SIGNER = build_signer(HEALTH_KEY, number=3, fabric="Lab", not_before=NOW, not_after=_LATER)
_DER = serialization.Encoding.DER


def _collected(*patterns: str) -> Iterator[bytes]:
    for pattern in patterns:
        for path in sorted(COLLECTION.glob(pattern)):
            if path.is_file() and path.stat().st_size <= LARGEST:
                yield path.read_bytes()


def _captured(name: str) -> Iterator[bytes]:
    for path in sorted(CAPTURES.glob(f"*/{name}")):
        yield path.read_bytes()


def _distinct(found: Iterable[bytes]) -> list[bytes]:
    return list(dict.fromkeys(found))


def readable(read: Callable[[bytes], object], found: Iterable[bytes]) -> Iterator[bytes]:
    """Collections hold broken things on purpose, and things of another kind."""
    for data in found:
        try:
            read(data)
        except ParseError:
            continue
        yield data


@cache
def logs() -> list[bytes]:
    forged = spec_id() + locality(3) + record(0, 8, b"1\0.\0") + record(7, 4, bytes(4))
    index = json.loads((COLLECTION / "index.json").read_text()) if COLLECTION.exists() else []
    names = [each["file"] for each in index if each["kind"] == "eventlog" and each["n_events"]]
    return _distinct([*_captured("eventlog.bin"), forged, *_collected(*names)])


@cache
def small_logs() -> list[bytes]:
    return [log for log in logs() if len(log) <= LARGEST // 4]


def _events() -> Iterator[UnverifiedEvent]:
    for log in readable(parse_event_log, logs()):
        yield from parse_event_log(log).events


@cache
def _data_of(*types: int) -> list[bytes]:
    return _distinct(each.untrusted_data for each in _events() if each.untrusted_type in types)


@cache
def events() -> list[bytes]:
    """The data of one event of each type and PCR, which is every kind of data that a log can have."""
    kinds = {(each.pcr, each.untrusted_type): each.untrusted_data for each in _events()}
    return _distinct(pack("<II", *kind) + data for kind, data in sorted(kinds.items()))


def variables() -> list[bytes]:
    return _data_of(0x80000001, 0x80000002, 0x8000000C, 0x800000E0)


def _values(*names: str) -> Iterator[bytes]:
    for data in readable(parse_variable, variables()):
        variable = parse_variable(data)
        if variable.name in names:
            yield variable.value


@cache
def signature_lists() -> list[bytes]:
    return _distinct(value for value in _values("PK", "KEK", "db", "dbx") if value)


@cache
def authorities() -> list[bytes]:
    return _distinct(readable(parse_authority, _values("db", "Shim", "MokListTrusted")))


def partition_tables() -> list[bytes]:
    forged = b"EFI PART".ljust(56, b"\0") + bytes(36) + pack("<Q", 1) + bytes(56) + "root".encode("utf-16-le").ljust(72)
    return [*_data_of(0x80000006), forged]


def image_loads() -> list[bytes]:
    return _data_of(0x80000003, 0x80000004, 0x80000005)


@cache
def device_paths() -> list[bytes]:
    return _distinct(data[32 : 32 + int.from_bytes(data[24:32], "little")] for data in image_loads())


@cache
def sipa() -> list[bytes]:
    number, nested = pack("<IIB", 0x00050001, 1, 0), pack("<III", 0x00020003, 4, 1)
    forged = pack("<II", 0x40010001, len(number) + len(nested)) + number + nested
    return [forged, *readable(parse_sipa, _data_of(0x6))]


@cache
def sipa_values() -> list[bytes]:
    records = (each for data in sipa() for outer in parse_sipa(data) for each in outer.walk())
    return _distinct(pack("<I", each.kind) + each.value for each in records)


@cache
def si_policies() -> list[bytes]:
    made = pack("<QHHI", 1, 4, 0x800C, 32) + "p\0".encode("utf-16-le") + bytes(32)
    return [made, *_values_of(SI_POLICY)]


@cache
def code_policies() -> list[bytes]:
    return [each.binary for each in (Policy(), Policy(format=3), ALLOW_ALL, STRICT)]


@cache
def platform_identifiers() -> list[bytes]:
    key = rsa.RSAPublicNumbers(65537, (1 << 2047) + 1).public_key()
    spki = key.public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    namespace = NAMESPACE + "2016/04"
    text = f'<PlatformIdentifiers xmlns="{namespace}"><EKPub>{b64encode(spki).decode()}</EKPub></PlatformIdentifiers>'
    return [text.encode(), text.encode("utf-16")]


@cache
def revocation_lists() -> list[bytes]:
    made = pack("<QIH", 132_000_000_000_000_000, 32, 0xB) + bytes(32)
    return [made, *_values_of(BOOT_REVOCATION_LIST), *_values_of(OS_REVOCATION_LIST)]


@cache
def secure_boot_policies() -> list[bytes]:
    made = pack("<IIHHII", 1, 20, 0xB, 32, 0, 0) + bytes(32)
    return [made, *_values_of(SECURE_BOOT_POLICY)]


def _values_of(kind: int) -> Iterator[bytes]:
    head = pack("<I", kind)
    return (value[4:] for value in sipa_values() if value.startswith(head))


@cache
def ima_lists() -> list[bytes]:
    forged = ng(b"/bin/sh") + sig(b"/bin/ls", signature=ima_signatures()[0]) + legacy(b"/init", bytes(20))
    others = (data for data in _collected("*/sml-ima*.bin", "*/ima*.log") if data and not is_text(data))
    return _distinct([*_captured("ima.bin"), forged, violated(ng(b"/var/log")) + ng(b"/x"), *others])


@cache
def ima_texts() -> list[bytes]:
    others = _collected("*/ima-log-sha*", "*/hist_ascii*", "*/ima_log.txt")
    return _distinct([*_captured("ima.txt"), *(b"".join(text.splitlines(True)[:20]) for text in others)])


@cache
def ima_lines() -> list[bytes]:
    lists = [*ima_lists(), *map(binary_from_text, readable(binary_from_text, ima_texts()))]
    return _distinct(line for data in lists for line in islice(_lines(data), 50))


def _lines(data: bytes) -> Iterator[bytes]:
    with suppress(ParseError):
        for _, _, line, _, _ in ima_records(data):
            yield line


@cache
def ima_signatures() -> list[bytes]:
    digest = hashlib.sha256(b"content").digest()
    real = (decode_line(line).signature for data in _collected("*/ima_sha1.log") for line in _lines(data))
    return _distinct([ima_signature(EC_KEY, digest), ima_signature(RSA_KEY, digest), *filter(None, real)])


@cache
def certificates() -> list[bytes]:
    """Certificates of every maker that somebody collected, the malformed ones among them, and our own."""
    real = (data for data in _collected("certs/*/*.der") if data[:1] == b"\x30")
    health = health_certificates()[0]
    made = [health, certificate(EC_KEY), Form().der(), *(each.read.der for each in CHAIN)]
    return _distinct([*made, nuvoton(), intel(Form()), *real])


@cache
def cabinets() -> list[bytes]:
    files = {"Acme\\RootCA\\root.crt": ROOT.read.der, "setup.cmd": b"echo", "middle.cer": MIDDLE.read.der}
    return [Cabinet(files, checksums=False).made(), Cabinet(files, NONE).made(), Cabinet(files, flags=4).made()]


@cache
def bundles() -> list[bytes]:
    """CA certificates in every form that they are handed out in."""
    ders = [each.read.der for each in CHAIN]
    pem = b"".join(each.certificate.public_bytes(serialization.Encoding.PEM) for each in CHAIN)
    archive = BytesIO()
    with ZipFile(archive, "w", ZIP_DEFLATED) as file:
        file.writestr("Acme/RootCA/root.crt", ders[0])
        file.writestr("middle.pem", pem)
    return [pem, b"".join(ders), pkcs7(ders), archive.getvalue(), *cabinets()]


@cache
def health_certificates() -> list[bytes]:
    spki = RSA_KEY.public_key().public_bytes(_DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    issued = build_health_certificate(
        claims=HealthClaims(str(UUID(int=7)), "kvm-07.example", "tpm"),
        transport_spki=spki,
        serial=0xABC,
        not_before=NOW,
        not_after=_LATER,
        signer=Signer(HEALTH_KEY, x509.load_der_x509_certificate(HEALTH_SIGNER)),
    )
    return [issued]


@cache
def tpm_publics() -> list[bytes]:
    real = (data for data in _collected("keylime_keylime/*.pub"))
    return _distinct([AK.public, TRANSPORT.public, SoftKey(RSA_KEY).public, *real])


@cache
def public_keys() -> list[bytes]:
    """SubjectPublicKeyInfo of host keys and transport keys."""
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return [key.public_key().public_bytes(*form) for key in (RSA_KEY, HOST_KEY)]


@cache
def private_keys() -> list[bytes]:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return [key.private_bytes(*form) for key in (RSA_KEY, HOST_KEY)]


@cache
def possessions() -> list[bytes]:
    shown = (None, public_keys()[0])
    return [prove(HOST_KEY, nonce=NONCE, transport_spki=each).encode() for each in shown]


@cache
def possession_payloads() -> list[bytes]:
    return [from_b64u(each.decode().split(".")[1]) for each in possessions()]


@cache
def attestations() -> list[bytes]:
    real = (data for data in _collected("*/*quote*.bin", "keylime_keylime/quote.out", "*/*quote.msg"))
    digest = hashlib.sha256(b"".join(BLANK.values())).digest()
    return _distinct([quote(NONCE, digest, QUOTED_PCRS), certification(NONCE, b"\0\x0b" + bytes(32)), *real])


@cache
def tpm_signatures() -> list[bytes]:
    real = (data for data in _collected("keylime_keylime/quotesig.out"))
    return _distinct([AK.sign(NONCE), SoftKey(RSA_KEY, scheme=0x14).sign(NONCE), *real])


@cache
def logon_infos() -> list[bytes]:
    return [path.read_bytes() for path in sorted((CAPTURES.parent / "pac").glob("*.bin"))]


def sids() -> list[bytes]:
    heads = (b"\1\5\0\0\0\0\0\5\x15\0\0\0", b"\1\1\0\1\0\0\0\0")
    return [heads[0] + pack("<4I", 7, 8, 9, 1103), heads[1] + pack("<I", 0xFFFFFFFF)]


def pcr_values() -> list[bytes]:
    return [*_captured("pcrs.txt"), b"sha1:\n  0 : 0x" + b"AB" * 20 + b"\n  sha256:\n  10: 0x" + b"00" * 32 + b"\n"]


def disks() -> list[bytes]:
    """The first bytes of disk images: of a raw one with a partition table, and of qcow2."""
    return [
        gpt(("boot", ESP, 2048, 4095), ("root", ROOT_PARTITION, 4096, 8191)),
        pack(">4sIQ56xQ", b"QFI\xfb", 3, 0, 0),
    ]


def command_lines() -> list[bytes]:
    return [*_captured("cmdline.txt"), b'ro "a b" root=UUID=1 -- init']


def file_digests() -> list[bytes]:
    return [b"sha256:" + b"ab" * 32, b"verity:sha512:" + b"0" * 128, b"sha1:" + b"f" * 40]


def runtime_texts() -> list[bytes]:
    return [b"# files\nsha256:" + b"ab" * 32 + b"  /bin/sh\nverity:sha256:" + b"0" * 64 + b"  /a\\x0ab\n"]
