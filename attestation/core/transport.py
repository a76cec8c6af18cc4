"""Transport keys: RSA keys that exist in one TPM and open only in the boot state that was quoted.

A released key is encrypted to such a key. The verifier computes the key's policy itself from the quoted values, so
what the host says about the policy is never believed.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from attestation.core.quote import BOOT_PCRS, Selection
from attestation.core.signature import verify_signature
from attestation.core.tpm import (
    ALG_OAEP,
    ALG_SHA256,
    BANKS,
    RESIDENT,
    Attribute,
    CertifyAttest,
    KeyKind,
    TpmPublic,
    parse_attest,
    parse_public,
    require_ak,
)
from attestation.errors import (
    BadSignature,
    NotFromTpm,
    TransportKeyNotBound,
    TransportKeyNotCertified,
    UnacceptableKey,
    WrongNonce,
)

_POLICY_PCR: Final = (0x0000017F).to_bytes(4, "big")  # TPM_CC_PolicyPCR
_SELECT_BYTES: Final = 3


@dataclass(frozen=True, slots=True)
class TransportKey:
    """A key that the host's TPM holds and that it can use in the quoted boot state only."""

    public: TpmPublic
    spki: bytes


def policy_pcr(selection: Selection, values: Mapping[int, bytes]) -> bytes:
    """Return the SHA-256 authPolicy of one PolicyPCR over `values` (TPM 2.0 Library, part 3, 23.7.1)."""
    bank, pcrs = selection
    mask = sum(1 << pcr for pcr in pcrs).to_bytes(_SELECT_BYTES, "little")
    wire = (1).to_bytes(4, "big") + BANKS[bank].to_bytes(2, "big") + bytes((_SELECT_BYTES,)) + mask
    digest = hashlib.sha256(b"".join(values[pcr] for pcr in sorted(pcrs))).digest()
    return hashlib.sha256(bytes(32) + _POLICY_PCR + wire + digest).digest()


def verify_transport_key(
    public: bytes, certify: bytes, signature: bytes, *, ak: TpmPublic, nonce: bytes, pcrs: Mapping[int, bytes]
) -> TransportKey:
    """Return the transport key when `ak` certified it for this challenge and it is bound to the quoted boot PCRs.

    `pcrs` are the values of the SHA-256 bank out of a verified quote. A key that is certified but usable with a
    password, or in another boot state, would carry secrets out of the state that was appraised.
    """
    key = parse_public(public)
    _require_certified(key, certify, signature, ak, nonce)
    _require_form(key)
    if not hmac.compare_digest(key.auth_policy, policy_pcr(("sha256", BOOT_PCRS), pcrs)):
        raise TransportKeyNotBound("The transport key is not bound to the boot PCRs that were quoted.")
    return TransportKey(key, key.spki)


def _require_certified(key: TpmPublic, certify: bytes, signature: bytes, ak: TpmPublic, nonce: bytes) -> None:
    require_ak(ak)
    try:
        verify_signature(ak, certify, signature)
    except BadSignature as error:
        raise TransportKeyNotCertified("The transport key is not certified by this host's attestation key.") from error
    attest = parse_attest(certify)
    if not isinstance(attest, CertifyAttest):
        raise NotFromTpm("The signed structure is not a certification of a key.")
    if not hmac.compare_digest(attest.extra_data, nonce):
        raise WrongNonce("The transport key was certified for another challenge.")
    if not hmac.compare_digest(attest.name, key.name):
        raise TransportKeyNotCertified("The certification is of another key than the one that was sent.")


def _require_form(key: TpmPublic) -> None:
    if not key.has(RESIDENT) or key.attributes & Attribute.ENCRYPTED_DUPLICATION:
        raise UnacceptableKey("The transport key is not fixed to the TPM that made it.")
    if not key.has(Attribute.DECRYPT) or key.attributes & (Attribute.SIGN | Attribute.RESTRICTED):
        raise UnacceptableKey("The transport key is not a key that decrypts and does nothing else.")
    if key.attributes & Attribute.USER_WITH_AUTH:
        raise UnacceptableKey("The transport key can be used with a password instead of its policy.")
    if key.kind is not KeyKind.RSA or (key.scheme, key.scheme_hash) != (ALG_OAEP, ALG_SHA256):
        raise UnacceptableKey("The transport key is not an RSA key for OAEP with SHA-256.")
    if key.name_algorithm != ALG_SHA256 or key.symmetric is not None:
        raise UnacceptableKey("The transport key is not a plain decryption key with a SHA-256 name.")
