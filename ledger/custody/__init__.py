"""Custody of this service's own private keys, behind one small interface.

A key is kept as a *sealed* byte string in its database row, so that creating a key and recording it share a
transaction; what opens it is custody's business. `insecure-file` (the embedded default) opens it with a key in a file
that root on this node can read, `tpm` with one that this node's TPM gives out in the boot state it was sealed to;
with `pkcs11` the key never leaves its token, and what is sealed only says which one it is.
"""

from ledger.custody.choice import custody, is_secure
from ledger.custody.file import InsecureFileCustody
from ledger.custody.held import HeldKey, in_token
from ledger.custody.hsm import TokenCustody
from ledger.custody.interface import Custody
from ledger.custody.root import KEY_SIZE, NONCE_SIZE, opened_by
from ledger.custody.tpm import TpmCustody

__all__ = [
    "KEY_SIZE",
    "NONCE_SIZE",
    "Custody",
    "HeldKey",
    "InsecureFileCustody",
    "TokenCustody",
    "TpmCustody",
    "custody",
    "in_token",
    "is_secure",
    "opened_by",
]
