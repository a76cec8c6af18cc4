"""TPM structures written by hand, signed with software keys: what an attacker, or an odd TPM, might send."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import strategies as st

SHA256, SHA384, NULL = 0x000B, 0x000C, 0x0010
RSASSA, RSAPSS, OAEP, ECDSA = 0x0014, 0x0016, 0x0017, 0x0018
AK_ATTRIBUTES = 0x00050072  # fixedTPM fixedParent sensitiveDataOrigin userWithAuth restricted sign
TRANSPORT_ATTRIBUTES = 0x00020032  # fixedTPM fixedParent sensitiveDataOrigin decrypt
_HASHES: dict[int, hashes.HashAlgorithm] = {SHA256: hashes.SHA256(), SHA384: hashes.SHA384()}
_CURVES = {"secp256r1": 0x0003, "secp384r1": 0x0004}


def number(value: int, width: int) -> bytes:
    return value.to_bytes(width, "big")


def sized(data: bytes) -> bytes:
    return number(len(data), 2) + data


@dataclass(frozen=True)
class SoftKey:
    """A key of an operator who has no TPM and writes TPM structures himself."""

    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    scheme: int = ECDSA
    scheme_hash: int = SHA256
    attributes: int = AK_ATTRIBUTES
    policy: bytes = b""
    name_algorithm: int = SHA256

    @property
    def public(self) -> bytes:
        """TPM2B_PUBLIC."""
        public = self.private.public_key()
        kind = 0x0001 if isinstance(public, rsa.RSAPublicKey) else 0x0023
        head = number(kind, 2) + number(self.name_algorithm, 2) + number(self.attributes, 4) + sized(self.policy)
        scheme = number(self.scheme, 2) + (b"" if self.scheme == NULL else number(self.scheme_hash, 2))
        return sized(head + number(NULL, 2) + scheme + self._key())

    def having(self, attributes: int) -> "SoftKey":
        return replace(self, attributes=attributes)

    def sign(self, message: bytes) -> bytes:
        """TPMT_SIGNATURE."""
        algorithm = _HASHES[self.scheme_hash]
        head = number(self.scheme, 2) + number(self.scheme_hash, 2)
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            width = self.private.key_size // 8
            parts = decode_dss_signature(self.private.sign(message, ec.ECDSA(algorithm)))
            return head + b"".join(sized(number(part, width)) for part in parts)
        if self.scheme == RSASSA:
            return head + sized(self.private.sign(message, padding.PKCS1v15(), algorithm))
        pss = padding.PSS(padding.MGF1(algorithm), padding.PSS.MAX_LENGTH)
        return head + sized(self.private.sign(message, pss, algorithm))

    def _key(self) -> bytes:
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            modulus = number(public.public_numbers().n, public.key_size // 8)
            return number(public.key_size, 2) + number(0, 4) + sized(modulus)
        point, width = public.public_numbers(), public.key_size // 8
        curve = number(_CURVES[public.curve.name], 2) + number(NULL, 2)
        return curve + sized(number(point.x, width)) + sized(number(point.y, width))


def attest(kind: int, extra_data: bytes, body: bytes, *, magic: int = 0xFF544347) -> bytes:
    """TPMS_ATTEST."""
    clock = number(1000, 8) + number(3, 4) + number(1, 4) + b"\1"
    return (
        number(magic, 4) + number(kind, 2) + sized(b"\0\x0b" + bytes(32)) + sized(extra_data) + clock + bytes(8) + body
    )


def quote(nonce: bytes, digest: bytes, pcrs: Iterable[int], *, bank: int = SHA256, magic: int = 0xFF544347) -> bytes:
    mask = number(1, 4) + number(bank, 2) + b"\3" + sum(1 << pcr for pcr in pcrs).to_bytes(3, "little")
    return attest(0x8018, nonce, mask + sized(digest), magic=magic)


def certification(nonce: bytes, name: bytes) -> bytes:
    return attest(0x8017, nonce, sized(name) + sized(name))


def flipped(data: bytes, index: int) -> bytes:
    """Change one bit of one byte."""
    return edited(data, [(index, data[index] ^ 1)])


def edited(data: bytes, changes: Iterable[tuple[int, int]]) -> bytes:
    out = bytearray(data)
    for index, value in changes:
        out[index] = value
    return bytes(out)


def mutated(seed: bytes) -> st.SearchStrategy[bytes]:
    """A good structure with a few bytes changed, cut or added: what random bytes never reach."""
    changes = st.lists(st.tuples(st.integers(0, len(seed) - 1), st.integers(0, 255)), max_size=4)
    ends = st.just(len(seed)) | st.integers(0, len(seed))
    return st.builds(lambda edits, end, tail: edited(seed, edits)[:end] + tail, changes, ends, st.binary(max_size=4))
