"""Host-key mode: a host signs with a key that people have registered, and so proves possession of it and nothing else.

What it signs is a compact JWS (RFC 7515) whose payload names the server's nonce and, when it attests, the key that
keys shall be wrapped to. HGS lets a host sign without a nonce ([MS-HGSA] 2.2.4); an old answer would then do for good.
"""

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from attestation.core.base64url import from_b64u, to_b64u
from attestation.errors import BadSignature, ParseError, UnacceptableKey, WrongNonce

PROOF_LIMIT: Final = 8 * 1024  # characters
KEY_LIMIT: Final = 2 * 1024  # bytes of a SubjectPublicKeyInfo
RSA_BITS: Final = range(2048, 8193)
TYPE: Final = "guardhouse-possession+jws"
HostKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Possession:
    """What a proof says; `transport_spki` is the key that it vouches for, None where it vouches for none."""

    transport_spki: bytes | None


def parse_host_key(spki: bytes) -> HostKey:
    """Read a SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) that is RSA of 2048 bits or more, or on P-256.

    Raises `ParseError` for what is no key, and `UnacceptableKey` for one that is too weak or of another kind.
    """
    key = _read_key(spki)
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise UnacceptableKey("A host key is RSA of 2048 to 8192 bits, or on P-256.")


def parse_transport_key(spki: bytes) -> rsa.RSAPublicKey:
    """Read the key that a host without a TPM's word wants keys wrapped to: RSA, as a TPM's transport key is."""
    key = _read_key(spki)
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size not in RSA_BITS:
        raise UnacceptableKey("A transport key is RSA of 2048 to 8192 bits.")
    return key


def fingerprint(spki: bytes) -> str:
    """Return what people compare a host key by: the SHA-256 of its SubjectPublicKeyInfo, in hexadecimal."""
    return hashlib.sha256(spki).hexdigest()


def prove(key: SigningKey, *, nonce: bytes, transport_spki: bytes | None = None) -> str:
    """Sign the server's nonce, as a host does."""
    payload = {"nonce": to_b64u(nonce)}
    if transport_spki is not None:
        payload["transport_key"] = to_b64u(transport_spki)
    algorithm = _algorithm(key.public_key())
    signer = RSAKey.import_key(key) if isinstance(key, rsa.RSAPrivateKey) else ECKey.import_key(key)
    header = {"alg": algorithm, "typ": TYPE}
    return jws.serialize_compact(header, json.dumps(payload).encode(), signer, algorithms=[algorithm])


def verify_possession(proof: str, key: HostKey, *, nonce: bytes) -> Possession:
    """Return what a proof says when `key` signed it over this nonce.

    Raises `ParseError`, `BadSignature`, `WrongNonce`, or `UnacceptableKey` for the transport key that it names.
    """
    if len(proof) > PROOF_LIMIT or not proof.isascii():
        raise ParseError(f"A proof is a compact JWS of at most {PROOF_LIMIT} characters.")
    algorithm = _algorithm(key)
    verifier = RSAKey.import_key(key) if isinstance(key, rsa.RSAPublicKey) else ECKey.import_key(key)
    try:
        signed = jws.deserialize_compact(proof, verifier, algorithms=[algorithm])
    except JoseError as error:
        raise BadSignature("The proof is not signed with this host's key.") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ParseError("A proof is a compact JWS.") from error
    if signed.headers() != {"alg": algorithm, "typ": TYPE}:
        raise BadSignature("What was signed is no proof of possession.")
    said = _payload(signed.payload)
    if not hmac.compare_digest(said.get("nonce", b""), nonce):
        raise WrongNonce("The proof is over another nonce.")
    transport = said.get("transport_key")
    if transport is not None:
        parse_transport_key(transport)
    return Possession(transport)


def _payload(content: bytes) -> dict[str, bytes]:
    try:
        members = json.loads(content, object_pairs_hook=list)
        said = {str(name): from_b64u(value) for name, value in members if isinstance(value, str)}
    except (ValueError, TypeError, RecursionError) as error:
        raise ParseError("A proof holds base64url members only.") from error
    if len(said) != len(members) or not said.keys() <= {"nonce", "transport_key"}:
        raise ParseError("A proof has a nonce, perhaps a transport key, each base64url once, and nothing else.")
    return said


def _algorithm(key: HostKey) -> str:
    return "PS256" if isinstance(key, rsa.RSAPublicKey) else "ES256"


def _read_key(spki: bytes) -> PublicKeyTypes:
    if len(spki) > KEY_LIMIT:
        raise ParseError(f"A public key is larger than {KEY_LIMIT} bytes.")
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ParseError("A public key is not a DER SubjectPublicKeyInfo that is known here.") from error
    # Two encodings of one key would be two identities.
    if key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo) != spki:
        raise ParseError("A public key is not written in the one way that DER allows.")
    return key
