"""Credential activation: a secret that only the TPM holding both the EK and the named AK can read.

This is TPM2_MakeCredential in software (TCG TPM 2.0 Library, part 1, clause 24 and annexes B.10.4 and C.6.4), so the
server needs no TPM. A host that opens it has proved that its AK lives beside its EK.
"""

import hashlib
import hmac
from typing import Final

from cryptography.hazmat.decrepit.ciphers.modes import CFB  # the mode the TPM specification fixes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from attestation.core.endorsement import require_ek
from attestation.core.tpm import HASHES, TpmPublic

_LABEL: Final = b"IDENTITY\0"


def make_credential(
    ek: TpmPublic, ak_name: bytes, secret: bytes, *, seed: bytes, ephemeral: ec.EllipticCurvePrivateKey | None
) -> tuple[bytes, bytes]:
    """Return TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, both marshalled with their sizes.

    Fresh randomness comes from the caller: an RSA EK uses `seed` (the front of it, as many bytes as the EK's name hash
    has), an ECC EK uses `ephemeral`, a key on the EK's curve.
    """
    algorithm = HASHES[ek.name_algorithm]
    if len(secret) > algorithm.digest_size:
        raise ValueError("A credential may not be longer than the EK's name hash.")
    if isinstance(ek.key, rsa.RSAPublicKey):
        shared, sealed = _seal_seed(ek.key, ek.name_algorithm, seed)
    else:
        shared, sealed = _agree_seed(ek.key, ek.name_algorithm, ephemeral)
    return _sized(_protect(ek, ak_name, secret, shared)), _sized(sealed)


def _protect(ek: TpmPublic, ak_name: bytes, secret: bytes, seed: bytes) -> bytes:
    """Encrypt then authenticate, bound to the AK's name (part 1, 24.4 and 24.5)."""
    algorithm = HASHES[ek.name_algorithm]
    key = _kdfa(algorithm.name, seed, b"STORAGE\0" + ak_name, require_ek(ek).bits)
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).encryptor()
    identity = encryptor.update(_sized(secret)) + encryptor.finalize()
    mac_key = _kdfa(algorithm.name, seed, b"INTEGRITY\0", 8 * algorithm.digest_size)
    return _sized(hmac.digest(mac_key, identity + ak_name, algorithm.name)) + identity


def _seal_seed(key: rsa.RSAPublicKey, name_algorithm: int, seed: bytes) -> tuple[bytes, bytes]:
    algorithm = HASHES[name_algorithm]
    if len(seed) < algorithm.digest_size:
        raise ValueError("The seed is shorter than the EK's name hash.")
    seed = seed[: algorithm.digest_size]
    return seed, key.encrypt(seed, padding.OAEP(padding.MGF1(algorithm), algorithm, _LABEL))


def _agree_seed(
    key: ec.EllipticCurvePublicKey, name_algorithm: int, ephemeral: ec.EllipticCurvePrivateKey | None
) -> tuple[bytes, bytes]:
    if ephemeral is None or ephemeral.curve.name != key.curve.name:
        raise ValueError("An ECC endorsement key needs an ephemeral key on its own curve.")
    width = (key.curve.key_size + 7) // 8
    ours, theirs = ephemeral.public_key().public_numbers(), key.public_numbers()
    x, y, their_x = (number.to_bytes(width, "big") for number in (ours.x, ours.y, theirs.x))
    agreed = ephemeral.exchange(ec.ECDH(), key)
    return _kdfe(name_algorithm, agreed, _LABEL + x + their_x), _sized(x) + _sized(y)


def _kdfa(hash_name: str, key: bytes, fixed: bytes, bits: int) -> bytes:
    """KDFa (part 1, 11.4.10.2): SP800-108 in counter mode; `fixed` is label, zero byte and contexts."""
    length = bits // 8
    tail = fixed + bits.to_bytes(4, "big")
    out = b""
    while len(out) < length:
        block = len(out) // hashlib.new(hash_name).digest_size + 1
        out += hmac.digest(key, block.to_bytes(4, "big") + tail, hash_name)
    return out[:length]


def _kdfe(name_algorithm: int, agreed: bytes, fixed: bytes) -> bytes:
    """KDFe (part 1, 11.4.10.3) for one block: the seed is as long as the hash, so the counter stays at 1."""
    return hashlib.new(HASHES[name_algorithm].name, (1).to_bytes(4, "big") + agreed + fixed).digest()


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data
