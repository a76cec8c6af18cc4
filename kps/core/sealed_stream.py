"""A stream of bytes sealed in pieces, each a line of its own: neither its maker nor its reader has to hold all of it.

A piece is a compact JWE (RFC 7516) with a direct key, A256GCM. The owner signs the list of the pieces' digests, so
that each is compared with it before it is opened or handed on: nothing that is altered, exchanged, in another order,
left out or added gets further than the line that it is in.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from attestation.core.base64url import to_b64u
from kps.core import jose
from kps.errors import MalformedDocument, SecretsRefused, ShieldingDataRefused

PIECE: Final = 64 * 1024  # bytes of the stream
MOST_PIECES: Final = 48
PIECE_LIMIT: Final = PIECE * 4 // 3 + 1024  # characters of its JWE
_DIGEST: Final = range(32, 33)
_REGISTRY: Final = jwe.JWERegistry(algorithms=["dir", "A256GCM"])
_REGISTRY.max_ciphertext_length = PIECE_LIMIT


def sealed(stream: Iterable[bytes], key: bytes, *, of: UUID) -> Iterator[str]:
    """Yield the pieces of a stream in order. Raises `MalformedDocument` when it needs more than there may be."""
    header = {"alg": "dir", "enc": "A256GCM", "kid": str(of)}
    for number, piece in enumerate(_cut(stream)):
        if number == MOST_PIECES:
            raise MalformedDocument(f"This is more than {MOST_PIECES * PIECE // 1024} KiB together.")
        yield jwe.encrypt_compact(header, piece, OctKey.import_key(key), registry=_REGISTRY)


def _cut(stream: Iterable[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for part in stream:
        held += part
        while len(held) >= PIECE:
            yield bytes(held[:PIECE])
            del held[:PIECE]
    if held:
        yield bytes(held)


def digest(piece: str) -> str:
    """Return what stands for a piece in what its owner signs: SHA-256, base64url."""
    return to_b64u(hashlib.sha256(piece.encode()).digest())


def parse_digests(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MOST_PIECES:
        raise MalformedDocument(f"What is sealed has 1 to {MOST_PIECES} pieces.")
    for each in value:
        jose.from_b64u(each, size=_DIGEST)
    return tuple(value)


def verified(file: BinaryIO, digests: Sequence[str]) -> Iterator[str]:
    """Yield the pieces that follow in a file, each when it is the one that was signed; raise at the first that is not.

    Raises `ShieldingDataRefused`, also when one is missing, or when more follows than was signed.
    """
    for number, wanted in enumerate(digests, start=1):
        line = file.readline(PIECE_LIMIT + 1)
        piece = line.removesuffix(b"\n").decode("ascii", "replace")
        if not line.endswith(b"\n") or digest(piece) != wanted:
            raise ShieldingDataRefused(
                f"Piece {number} of the {len(digests)} that are sealed here is not as the owner has signed it."
            )
        yield piece
    if file.read(1):
        raise ShieldingDataRefused(f"More follows the {len(digests)} pieces that the owner has signed.")


def opened(pieces: Iterable[str], key: bytes, *, of: UUID) -> Iterator[bytes]:
    """Yield what is in the pieces. Raises `SecretsRefused` for one that this key does not open, or of another file."""
    for piece in pieces:
        first = piece.split(".", 1)[0]
        header = jose.members(
            jose.read_json(jose.from_b64u(first), limit=512), {"alg", "enc", "kid"}, what="Its header"
        )
        if header["kid"] != str(of):
            raise SecretsRefused("The content was sealed for another shielding data file.")
        try:
            plain = jwe.decrypt_compact(piece, OctKey.import_key(key), registry=_REGISTRY).plaintext
        except (JoseError, InvalidTag, ValueError) as error:
            raise SecretsRefused("The content of the shielding data does not open under this key.") from error
        yield plain or b""
