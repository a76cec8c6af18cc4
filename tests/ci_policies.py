"""Writes Windows code integrity policies, signed or not, from what they shall say; does not know how they are read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from struct import pack
from uuid import UUID

SI_POLICY = UUID("a244370e-44c9-4c06-b551-f6016e563076")
WINDOWS = UUID("2e07f7e4-194c-4d20-b7c9-6f44a6c5a234")
UMCI, AUDIT, UNSIGNED, SUPPLEMENTS, SUPPLEMENTAL = 1 << 2, 1 << 16, 1 << 19, 1 << 10, 1 << 30
ALWAYS = 1 << 31
DENY, ALLOW, ATTRIBUTE = 0, 1, 2
KERNEL, USER = 131, 12
WHQL = bytes.fromhex("010a2b0601040182370a0305")
ANY_VERSION = (65535, 65535, 65535, 65535)

Used = tuple[int, tuple[int, ...]]
"""A signer by its place, and the file rules that are excepted."""


def u32(*numbers: int) -> bytes:
    return pack(f"<{len(numbers)}I", *numbers)


def run(data: bytes) -> bytes:
    return u32(len(data)) + data + bytes(-len(data) % 4)


def text(words: str) -> bytes:
    return run(words.encode("utf-16-le")) + bytes(4)


def texts(words: Sequence[str]) -> bytes:
    return u32(len(words)) + b"".join(map(text, words))


def version(numbers: Sequence[int]) -> bytes:
    major, minor, build, revision = numbers
    return pack("<4H", revision, build, minor, major)


def places(numbers: Iterable[int]) -> bytes:
    listed = tuple(numbers)
    return u32(len(listed), *listed)


@dataclass(frozen=True)
class File:
    kind: int = ALLOW
    name: str = ""
    minimum: Sequence[int] = (0, 0, 0, 0)
    maximum: Sequence[int] = (0, 0, 0, 0)
    hash: bytes = b""
    app_ids: tuple[str, ...] = ()
    internal: str = ""
    description: str = ""
    product: str = ""
    package: str = ""
    package_version: Sequence[int] = (0, 0, 0, 0)
    path: str = ""


@dataclass(frozen=True)
class Signed:
    """A signer; `root` is the hash of a certificate or the number of a root."""

    root: bytes | int = bytes(range(32))
    ekus: tuple[int, ...] = ()
    issuer: str = ""
    publisher: str = ""
    oem: str = ""
    files: tuple[int, ...] = ()
    after: int = 0


@dataclass(frozen=True)
class Rules:
    allowed: tuple[Used, ...] = ()
    denied: tuple[Used, ...] = ()
    files: tuple[int, ...] = ()


@dataclass(frozen=True)
class Code:
    value: int = KERNEL
    product: Rules = field(default_factory=Rules)
    test: Rules = field(default_factory=Rules)
    test_signing: Rules = field(default_factory=Rules)
    inherits: tuple[int, ...] = ()
    minimum_hash: int = 0x800C


@dataclass(frozen=True)
class Policy:
    format: int = 7
    type: UUID = SI_POLICY
    id: UUID = SI_POLICY
    base: UUID = SI_POLICY
    flags: int = ALWAYS | UNSIGNED
    version: Sequence[int] = (10, 0, 0, 0)
    ekus: tuple[bytes, ...] = ()
    files: tuple[File, ...] = ()
    signers: tuple[Signed, ...] = ()
    update: tuple[int, ...] = ()
    ci: tuple[int, ...] = ()
    supplemental: tuple[int, ...] = ()
    codes: tuple[Code, ...] = ()
    hvci: int = 0
    settings: tuple[tuple[str, str, str, bool | int | bytes | str], ...] = ()
    newest: tuple[bytes, ...] = (u32(0), u32(0), u32(0, 0), u32(0))
    """The bodies of blocks 8 to 11, as they are."""

    @property
    def binary(self) -> bytes:
        counts = (len(self.ekus), len(self.files), len(self.signers), len(self.codes))
        head = u32(self.format) + self.type.bytes_le + WINDOWS.bytes_le + u32(self.flags, *counts)
        blocks = (*self._blocks(), *self._newest())
        numbered = b"".join(u32(number) + body for number, body in enumerate(blocks, 3) if number <= self.format)
        return head + version(self.version) + u32(0x40) + self._body() + numbered + u32(self.format + 1)

    def _body(self) -> bytes:
        return b"".join(
            (
                *map(run, self.ekus),
                *map(_file, self.files),
                *map(_signer, self.signers),
                places(self.update),
                places(self.ci),
                *map(_code, self.codes),
                u32(self.hvci, len(self.settings)),
                *(_setting(*each) for each in self.settings),
            )
        )

    def _blocks(self) -> tuple[bytes, ...]:
        limits = (
            version(each.maximum) + u32(len(each.app_ids)) + b"".join(map(text, each.app_ids)) for each in self.files
        )
        return (
            b"".join((*limits, *(pack("<Q", each.after) for each in self.signers))),
            b"".join(text(each.internal) + text(each.description) + text(each.product) for each in self.files),
            b"".join(text(each.package) + version(each.package_version) for each in self.files),
            self.id.bytes_le + self.base.bytes_le + places(self.supplemental),
            b"".join(text(each.path) for each in self.files),
        )

    def _newest(self) -> tuple[bytes, ...]:
        applications, patches, artifacts, ekus = self.newest
        return applications, patches, artifacts + u32(0, 0, 0) * len(self.codes), ekus


def _file(rule: File) -> bytes:
    return u32(rule.kind) + text(rule.name) + version(rule.minimum) + run(rule.hash)


def _signer(signer: Signed) -> bytes:
    root = u32(1, signer.root) if isinstance(signer.root, int) else u32(0) + run(signer.root)
    names = text(signer.issuer) + text(signer.publisher) + text(signer.oem)
    return root + places(signer.ekus) + names + places(signer.files)


def _code(code: Code) -> bytes:
    head = u32(code.value) + places(code.inherits) + u32(code.minimum_hash)
    return head + b"".join(map(_rules, (code.product, code.test, code.test_signing)))


def _rules(rules: Rules) -> bytes:
    return used(rules.allowed) + used(rules.denied) + places(rules.files)


def used(signers: Sequence[Used]) -> bytes:
    return u32(len(signers)) + b"".join(u32(at) + places(but) for at, but in signers)


def _setting(provider: str, key: str, name: str, value: bool | int | bytes | str) -> bytes:
    head = text(provider) + text(key) + text(name)
    if isinstance(value, bool):
        return head + u32(0, value)
    if isinstance(value, int):
        return head + u32(1, value)
    return head + (u32(2) + run(value) if isinstance(value, bytes) else u32(3) + text(value))


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + body


SIGNED_DATA = bytes.fromhex("06092a864886f70d010702")
PLAIN_DATA = bytes.fromhex("06092a864886f70d010701")
POLICY = bytes.fromhex("06092b0601040182374f01")


def sign(binary: bytes, *, content: bytes = POLICY) -> bytes:
    """PKCS#7 SignedData around a policy, with a made-up certificate and signer: nobody here checks signatures."""
    sha256 = der(0x30, bytes.fromhex("0609608648016503040201"), b"\5\0")
    inside = der(0x30, content, der(0xA0, der(0x04, binary)))
    signer = der(0x31, der(0x30, der(0x02, b"\1"), der(0x04, bytes(256))))
    certificates = der(0xA0, der(0x30, bytes(700)))
    signed = der(0x30, der(0x02, b"\1"), der(0x31, sha256), inside, certificates, signer)
    return der(0x30, SIGNED_DATA, der(0xA0, signed))


EVERYTHING = File(name="*")
ALLOW_ALL = Policy(
    flags=ALWAYS | UNSIGNED | UMCI,
    files=(EVERYTHING, EVERYTHING),
    codes=(Code(KERNEL, Rules(files=(0,))), Code(USER, Rules(files=(1,)))),
    settings=(("PolicyInfo", "Information", "Name", "AllowAll"),),
)
"""Like Microsoft's template of that name."""

STRICT = Policy(
    flags=ALWAYS | UMCI,
    ekus=(WHQL,),
    files=(
        File(DENY, name="evil.sys", minimum=ANY_VERSION),
        File(ALLOW, hash=bytes(range(32))),
        File(ATTRIBUTE, name="good.exe", minimum=(2, 1, 0, 0)),
        File(ALLOW, path="C:\\Tools\\*"),
    ),
    signers=(Signed(6, ekus=(0,)), Signed(publisher="Contoso", files=(2,)), Signed(bytes(20), oem="Fabrikam")),
    update=(1,),
    codes=(
        Code(KERNEL, Rules(allowed=((0, (0,)),), denied=((2, ()),), files=(0, 1))),
        Code(USER, Rules(allowed=((1, ()),), files=(1, 3))),
    ),
)
"""One with a bit of everything, which lets nobody else in."""
