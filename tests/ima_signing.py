"""Signs files as evmctl does: security.ima in its version 2 form, and the certificate that goes with it."""

from datetime import UTC, datetime, timedelta
from struct import pack

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

SigningKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
ALGORITHMS: dict[int, hashes.HashAlgorithm] = {
    2: hashes.SHA1(),  # noqa: S303  # to see it refused
    4: hashes.SHA256(),
    5: hashes.SHA384(),
    6: hashes.SHA512(),
    7: hashes.SHA224(),
}


def certificate(key: SigningKey, *, identifier: bytes | None = None) -> bytes:
    """A self-signed certificate in DER, long expired: the kernel's keyring asks for no date."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "IMA signer")])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=1))
    )
    if identifier is not None:
        builder = builder.add_extension(x509.SubjectKeyIdentifier(identifier), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def ima_signature(key: SigningKey, digest: bytes, *, algorithm: int = 4, key_id: bytes | None = None) -> bytes:
    hashed = Prehashed(ALGORITHMS[algorithm])
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(digest, padding.PKCS1v15(), hashed)
    else:
        signature = key.sign(digest, ec.ECDSA(hashed))
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest[-4:]
    return pack(">BBB", 3, 2, algorithm) + (key_id or own) + pack(">H", len(signature)) + signature
