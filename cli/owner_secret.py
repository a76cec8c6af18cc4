"""An owner's secret: 32 bytes, few enough for a sheet of paper, that both private keys are derived from."""

import secrets
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from kps.core.guardian import GuardianKeys

SECRET_SIZE: Final = 32
_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256 (SP 800-186, 3.2.1.3)
_WIDE: Final = 40  # 64 bits more than the order has, as FIPS 186-5, A.2.1 asks for


@dataclass(frozen=True, slots=True)
class OwnerSecret:
    """Whoever has the secret is the owner. The name is in no key and no fingerprint."""

    name: str
    secret: bytes = field(repr=False)

    @property
    def keys(self) -> GuardianKeys:
        return GuardianKeys(self.name, _derived(self.secret, "signing"), _derived(self.secret, "encryption"))


def new_secret(name: str) -> OwnerSecret:
    return OwnerSecret(name, secrets.token_bytes(SECRET_SIZE))


def _derived(secret: bytes, use: str) -> ec.EllipticCurvePrivateKey:
    """Return the key of one use: HKDF-Expand (RFC 5869, 2.3), then the reduction of FIPS 186-5, A.2.1."""
    wide = HKDFExpand(hashes.SHA256(), length=_WIDE, info=f"guardhouse-owner/v1 {use}".encode()).derive(secret)
    return ec.derive_private_key(int.from_bytes(wide, "big") % (_ORDER - 1) + 1, ec.SECP256R1())
