"""What holds this service's own keys, in plain words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class CustodyWords:
    """A custody for people: where keys rest, and who can take them."""

    title: str
    kept_in: str
    rests: str
    taken_by: str
    icon: str


WORDS: Final[Mapping[str, CustodyWords]] = {
    "insecure-file": CustodyWords(
        "A plain file",
        "a plain file, good for a demonstration only",
        "In the database, encrypted under a root key that lies in a plain file on each node.",
        "Whoever reads that file and the database has every key, and with them every shielded VM of this fabric.",
        "alert-triangle",
    ),
    "tpm": CustodyWords(
        "Each node’s TPM",
        "this service’s memory; what opens them is sealed to the TPM of each of its nodes",
        "In the database, encrypted under a root key that each node’s TPM gives out in one boot state only.",
        "Whoever controls a node while it runs can read them from memory. A stolen disk or database opens nothing.",
        "cpu",
    ),
    "pkcs11": CustodyWords(
        "A hardware token",
        "a hardware token, which they never leave",
        "In a PKCS#11 token, where they are used. The database only says which one is which.",
        "Nobody. Whoever controls a node can use them for as long as it reaches the token.",
        "key",
    ),
}
TOKEN: Final = "in the token"  # noqa: S105  # where a key rests
ROOT: Final = "under the root key"
