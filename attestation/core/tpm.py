"""TPM 2.0 structures as an untrusted host sends them.

Clauses are of the TCG "Trusted Platform Module Library", part 2 (structures) and part 1 (names, attributes).
"""

import hashlib
from dataclasses import dataclass
from enum import Enum, IntFlag
from functools import lru_cache
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from attestation.core.reader import Reader
from attestation.errors import AkNotRestricted, NotFromTpm, UnacceptableKey

ALG_RSA: Final = 0x0001
ALG_AES: Final = 0x0006
ALG_SHA256: Final = 0x000B
ALG_SHA384: Final = 0x000C
ALG_SHA512: Final = 0x000D
ALG_NULL: Final = 0x0010
ALG_RSASSA: Final = 0x0014
ALG_RSAES: Final = 0x0015
ALG_RSAPSS: Final = 0x0016
ALG_OAEP: Final = 0x0017
ALG_ECDSA: Final = 0x0018
ALG_ECDAA: Final = 0x001A
ALG_ECC: Final = 0x0023
ALG_CFB: Final = 0x0043

MOST_KEYS: Final = 4096  # that are remembered as they were parsed

TPM_GENERATED: Final = 0xFF544347
ST_ATTEST_CERTIFY: Final = 0x8017
ST_ATTEST_QUOTE: Final = 0x8018

HASHES: Final[dict[int, hashes.HashAlgorithm]] = {
    ALG_SHA256: hashes.SHA256(),
    ALG_SHA384: hashes.SHA384(),
    ALG_SHA512: hashes.SHA512(),
}
BANKS: Final[dict[str, int]] = {"sha256": ALG_SHA256, "sha384": ALG_SHA384, "sha512": ALG_SHA512}
_CURVES: Final[dict[int, ec.EllipticCurve]] = {0x0003: ec.SECP256R1(), 0x0004: ec.SECP384R1()}
_RSA_BITS: Final = (2048, 3072, 4096)
SIGNING_SCHEMES: Final = (ALG_RSASSA, ALG_RSAPSS, ALG_ECDSA)
_LARGEST_DIGEST: Final = 64
_LARGEST_NAME: Final = 2 + _LARGEST_DIGEST
LARGEST_RSA: Final = 512
_LARGEST_BANKS: Final = 16


class Attribute(IntFlag):
    """TPMA_OBJECT (part 2, 8.3): what the TPM promises never to do with a key."""

    FIXED_TPM = 1 << 1
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    USER_WITH_AUTH = 1 << 6
    ENCRYPTED_DUPLICATION = 1 << 11
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


RESIDENT: Final = Attribute.FIXED_TPM | Attribute.FIXED_PARENT | Attribute.SENSITIVE_DATA_ORIGIN
"""A key with all three was made inside this TPM and can never leave it."""


class KeyKind(Enum):
    RSA = "rsa"
    ECC = "ecc"


@dataclass(frozen=True, slots=True)
class Symmetric:
    """TPMT_SYM_DEF_OBJECT of a storage key: how it wraps what it protects."""

    algorithm: int
    bits: int
    mode: int


@dataclass(frozen=True, slots=True)
class TpmPublic:
    """A TPM2B_PUBLIC of a form we understand. Its attributes are claims until a TPM vouches for its `name`."""

    raw: bytes
    name: bytes
    name_algorithm: int
    attributes: int
    auth_policy: bytes
    symmetric: Symmetric | None
    scheme: int
    scheme_hash: int
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey

    @property
    def kind(self) -> KeyKind:
        return KeyKind.RSA if isinstance(self.key, rsa.RSAPublicKey) else KeyKind.ECC

    @property
    def spki(self) -> bytes:
        return self.key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    def has(self, wanted: int) -> bool:
        return self.attributes & wanted == wanted


@dataclass(frozen=True, slots=True)
class Clock:
    """TPMS_CLOCK_INFO: the resets and restarts tell one boot from another."""

    clock: int
    reset_count: int
    restart_count: int
    safe: bool


@dataclass(frozen=True, slots=True)
class QuoteAttest:
    qualified_signer: bytes
    extra_data: bytes
    clock: Clock
    firmware_version: int
    selection: tuple[tuple[int, frozenset[int]], ...]
    pcr_digest: bytes


@dataclass(frozen=True, slots=True)
class CertifyAttest:
    qualified_signer: bytes
    extra_data: bytes
    clock: Clock
    firmware_version: int
    name: bytes
    qualified_name: bytes


def digest(algorithm: int, data: bytes) -> bytes:
    """Hash with a TPM_ALG_ID that is one of `HASHES`."""
    return hashlib.new(HASHES[algorithm].name, data).digest()


@lru_cache(maxsize=MOST_KEYS)
def parse_public(data: bytes) -> TpmPublic:
    """Parse a TPM2B_PUBLIC (part 2, 12.2.5) that holds an RSA key of at least 2048 bits or a P-256 or P-384 key.

    A host's keys are the same at each attestation of a boot, and to see that a point lies on its curve takes a while.
    """
    outer = Reader(data, what="TPM2B_PUBLIC")
    area = outer.take(outer.u16())
    outer.finish()
    reader = Reader(area, what="TPMT_PUBLIC")
    kind, name_algorithm = reader.u16(), reader.u16()
    if kind not in (ALG_RSA, ALG_ECC):
        raise reader.error(f"key type {kind:#06x} is neither RSA nor ECC")
    if name_algorithm not in HASHES:
        raise reader.error(f"name algorithm {name_algorithm:#06x} is not SHA-256, SHA-384 or SHA-512")
    attributes, auth_policy = reader.u32(), reader.sized(_LARGEST_DIGEST)
    symmetric = _read_symmetric(reader)
    scheme, scheme_hash = _read_scheme(reader)
    key = _read_rsa(reader) if kind == ALG_RSA else _read_ecc(reader)
    reader.finish()
    return TpmPublic(
        raw=data,
        name=name_algorithm.to_bytes(2, "big") + digest(name_algorithm, area),
        name_algorithm=name_algorithm,
        attributes=attributes,
        auth_policy=auth_policy,
        symmetric=symmetric,
        scheme=scheme,
        scheme_hash=scheme_hash,
        key=key,
    )


def parse_attest(data: bytes) -> QuoteAttest | CertifyAttest:
    """Parse a TPMS_ATTEST (part 2, 10.12.12) of type quote or certify.

    The magic is what tells a TPM's own statement from bytes that somebody had it sign: a restricted key signs
    nothing else that begins with it.
    """
    reader = Reader(data, what="TPMS_ATTEST")
    if reader.u32() != TPM_GENERATED:
        raise NotFromTpm("The signed structure does not begin with TPM_GENERATED, so no TPM made it.")
    kind = reader.u16()
    if kind not in (ST_ATTEST_QUOTE, ST_ATTEST_CERTIFY):
        raise NotFromTpm(f"The signed structure has type {kind:#06x}, which is neither a quote nor a certification.")
    signer, extra_data = reader.sized(_LARGEST_NAME), reader.sized(_LARGEST_NAME)
    clock = _read_clock(reader)
    firmware_version = reader.u64()
    attest: QuoteAttest | CertifyAttest
    if kind == ST_ATTEST_QUOTE:
        selection = _read_selection(reader)
        attest = QuoteAttest(signer, extra_data, clock, firmware_version, selection, reader.sized(_LARGEST_DIGEST))
    else:
        name, qualified_name = reader.sized(_LARGEST_NAME), reader.sized(_LARGEST_NAME)
        attest = CertifyAttest(signer, extra_data, clock, firmware_version, name, qualified_name)
    reader.finish()
    return attest


def require_ak(public: TpmPublic) -> None:
    """Refuse a key that is not a TPM-resident restricted signing key with a scheme of its own.

    Only a restricted key refuses to sign a forged TPMS_ATTEST (part 1, 27.2.2 "restricted").
    """
    if not public.has(Attribute.RESTRICTED):
        raise AkNotRestricted("The attestation key is not restricted: it would sign a forged quote as well.")
    if not public.has(Attribute.SIGN) or public.attributes & Attribute.DECRYPT:
        raise UnacceptableKey("The attestation key is not a key that signs and does nothing else.")
    if not public.has(RESIDENT):
        raise UnacceptableKey("The attestation key is not fixed to the TPM that made it.")
    if public.scheme not in SIGNING_SCHEMES or public.scheme_hash not in HASHES:
        raise UnacceptableKey("The attestation key has no signing scheme with SHA-256 or better of its own.")
    if public.name_algorithm != ALG_SHA256:
        raise UnacceptableKey("The attestation key's name is not a SHA-256 name.")


def _read_symmetric(reader: Reader) -> Symmetric | None:
    algorithm = reader.u16()
    return None if algorithm == ALG_NULL else Symmetric(algorithm, bits=reader.u16(), mode=reader.u16())


def _read_scheme(reader: Reader) -> tuple[int, int]:
    scheme = reader.u16()
    if scheme in (ALG_NULL, ALG_RSAES):
        return scheme, ALG_NULL
    scheme_hash = reader.u16()
    if scheme == ALG_ECDAA:
        reader.u16()
    return scheme, scheme_hash


def _read_rsa(reader: Reader) -> rsa.RSAPublicKey:
    bits, exponent = reader.u16(), reader.u32()
    if bits not in _RSA_BITS:
        raise reader.error(f"an RSA key of {bits} bits is not accepted")
    if exponent not in (0, 65537):  # 0 stands for 65537 (part 2, 12.2.3.5)
        raise reader.error(f"RSA exponent {exponent} is not 65537")
    modulus = int.from_bytes(reader.sized(LARGEST_RSA), "big")
    if modulus.bit_length() != bits:
        raise reader.error(f"RSA modulus has {modulus.bit_length()} bits, not {bits}")
    if modulus % 2 == 0:  # OpenSSL takes it as a key and then cannot encrypt to it
        raise reader.error("the RSA modulus is even")
    try:
        return rsa.RSAPublicNumbers(65537, modulus).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise reader.error("this is no RSA key") from error


def _read_ecc(reader: Reader) -> ec.EllipticCurvePublicKey:
    curve_id = reader.u16()
    curve = _CURVES.get(curve_id)
    if curve is None:
        raise reader.error(f"curve {curve_id:#06x} is neither P-256 nor P-384")
    if reader.u16() != ALG_NULL:  # TPMT_KDF_SCHEME
        reader.u16()
    width = (curve.key_size + 7) // 8
    x, y = (int.from_bytes(reader.sized(width), "big") for _ in range(2))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise reader.error("the point is not on the curve") from error


def _read_clock(reader: Reader) -> Clock:
    clock, reset_count, restart_count, safe = reader.u64(), reader.u32(), reader.u32(), reader.u8()
    if safe not in (0, 1):
        raise reader.error(f"{safe} is neither yes nor no")
    return Clock(clock, reset_count, restart_count, safe == 1)


def _read_selection(reader: Reader) -> tuple[tuple[int, frozenset[int]], ...]:
    """Read a TPML_PCR_SELECTION (part 2, 10.9.7)."""
    count = reader.u32()
    if count > _LARGEST_BANKS:
        raise reader.error(f"a selection of {count} banks")
    return tuple((reader.u16(), _read_pcrs(reader)) for _ in range(count))


def _read_pcrs(reader: Reader) -> frozenset[int]:
    width = reader.u8()
    if width > 4:
        raise reader.error(f"a PCR bitmap of {width} bytes")
    mask = int.from_bytes(reader.take(width), "little")
    return frozenset(pcr for pcr in range(8 * width) if mask >> pcr & 1)
