"""A root that this node's TPM gives out only in the boot state it was sealed to.

The file beside it holds the sealed root, what it is bound to, and the root encrypted to the recovery share. It is
worthless on another machine, on this one after another start, and without the share. Each node has its own file, all
for the same root.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.custody.errors import CustodyMissing, CustodyUnavailable, MalformedCustody, OtherTpm, WrongBootState
from ledger.custody.esys import Esys
from ledger.custody.file import write_over
from ledger.custody.pcrs import BINDABLE
from ledger.custody.root import KEY_SIZE, RootCustody

_LIMIT: Final = 16 * 1024
_VERSION: Final = 1
_MEMBERS: Final = {"version", "pcrs", "parent", "public", "private", "recovery"}
_BLOB: Final = range(2, 1024)
# No userWithAuth: no password stands in for the policy. noDA: wrong boot states must not lock the TPM.
_SEALED: Final = "fixedtpm|fixedparent|noda"


@dataclass(frozen=True, slots=True)
class SealedRoot:
    """A root as it lies on a node. `parent` is the name of the storage key under which the TPM keeps it."""

    pcrs: tuple[int, ...]
    parent: bytes
    public: bytes  # TPM2B_PUBLIC
    private: bytes  # TPM2B_PRIVATE
    recovery: str  # the root encrypted to the share


class TpmCustody(RootCustody):
    """Opens the root once, when the process starts; from then on it is in this process's memory."""

    name = "tpm"
    secure = True

    def __init__(self, path: Path, tcti: str) -> None:
        super().__init__(unseal(read_sealed(path), tcti))


def seal(root: bytes, *, tcti: str, pcrs: Collection[int], recovery: str) -> SealedRoot:
    """Seal a root to this TPM and to what the PCRs (sha256) are now."""
    if not pcrs or not set(pcrs) <= BINDABLE:
        raise ValueError("a root is sealed to some of the PCRs 0 to 9 and 11 to 15")
    with Tpm(tcti) as tpm:
        parent, public, private = tpm.seal(root, sorted(pcrs))
    return SealedRoot(tuple(sorted(pcrs)), parent, public, private, recovery)


def unseal(sealed: SealedRoot, tcti: str) -> bytes:
    """Return the root, if this is the TPM and the boot state. Raises `OtherTpm`, `WrongBootState`, or what is wrong."""
    with Tpm(tcti) as tpm:
        return tpm.unseal(sealed)


def read_sealed(path: Path) -> SealedRoot:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise CustodyMissing(
            f"{path} is not there. `manage.py custody create` makes a first one; a node that joins others restores a"
            " backup, or recovers with the share."
        ) from error
    except OSError as error:
        raise CustodyUnavailable(f"{path} cannot be read: {error.strerror}.") from error
    return parse_sealed(content)


def write_sealed(path: Path, sealed: SealedRoot) -> None:
    fields = {
        "version": _VERSION,
        "pcrs": list(sealed.pcrs),
        "parent": sealed.parent.hex(),
        "public": sealed.public.hex(),
        "private": sealed.private.hex(),
        "recovery": sealed.recovery,
    }
    write_over(path, json.dumps(fields, indent=1).encode() + b"\n")


def parse_sealed(content: bytes) -> SealedRoot:
    """Read what `write_sealed` wrote. Raises `MalformedCustody` and nothing else."""
    if len(content) > _LIMIT:
        raise MalformedCustody(f"The file of the sealed root is larger than {_LIMIT} bytes.")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MalformedCustody("The file of the sealed root is not JSON; it may have been cut short.") from error
    if not isinstance(fields, dict) or fields.keys() != _MEMBERS or fields["version"] != _VERSION:
        raise MalformedCustody("The file of the sealed root does not have the members of a version known here.")
    pcrs, recovery = fields["pcrs"], fields["recovery"]
    if not isinstance(recovery, str) or not isinstance(pcrs, list) or not all(type(pcr) is int for pcr in pcrs):
        raise MalformedCustody("The file of the sealed root does not say what it is bound to.")
    if not pcrs or not set(pcrs) <= BINDABLE or pcrs != sorted(set(pcrs)):
        raise MalformedCustody("The file of the sealed root names PCRs that none can be bound to.")
    parent, public, private = (_blob(fields[name]) for name in ("parent", "public", "private"))
    return SealedRoot(tuple(pcrs), parent, public, private, recovery)


def _blob(value: object) -> bytes:
    try:
        blob = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        blob = b""
    if len(blob) not in _BLOB:
        raise MalformedCustody("The file of the sealed root is damaged.")
    return blob


class Tpm(Esys):
    """What custody asks of a TPM."""

    def seal(self, secret: bytes, pcrs: Sequence[int]) -> tuple[bytes, bytes, bytes]:
        """Return the parent's name and the two halves of an object that gives the secret out in this boot state.

        The secret goes to the TPM through a session whose key nobody on the bus between CPU and TPM has.
        """
        t = self.t
        template = t.TPM2B_PUBLIC.parse(
            "keyedhash", objectAttributes=_SEALED, nameAlg="sha256", authPolicy=self._policy(pcrs)
        )
        sensitive = t.TPM2B_SENSITIVE_CREATE(t.TPMS_SENSITIVE_CREATE(data=secret))
        with self._storage_key() as (parent, name), self.session(t.TPM2_SE.HMAC, parent) as session:
            self._encrypt(session, t.TPMA_SESSION.DECRYPT)
            args = (parent, sensitive, template, b"", "", session)
            private, public, *_ = self.do("seal the root key", self.esys.create, *args)
        return name, public.marshal(), private.marshal()

    def unseal(self, sealed: SealedRoot) -> bytes:
        """Return the secret.

        The storage key has to be the one of then: it is also what keeps the answer from whoever sits on the bus, and a
        stranger there could offer a key of his own.
        """
        t = self.t
        with self._storage_key() as (parent, name):
            if name != sealed.parent:
                raise OtherTpm(
                    "The root key was sealed to another TPM, or this one has been cleared since. With the recovery"
                    " share, `manage.py custody recover` seals it to this one."
                )
            with self.session(t.TPM2_SE.POLICY, parent) as session, self._loaded(sealed, parent) as handle:
                self.do("look at the PCRs", self.esys.policy_pcr, session, b"", _selection(sealed.pcrs))
                self._encrypt(session, t.TPMA_SESSION.ENCRYPT)
                secret = bytes(self.do("open the root key", self.esys.unseal, handle, session))
        if len(secret) != KEY_SIZE:
            raise MalformedCustody("What the TPM has opened is no root key.")
        return secret

    def extend(self, pcr: int, digest: bytes) -> None:
        """TPM2_PCR_Extend of the sha256 bank, as firmware does it."""
        t = self.t
        value = t.TPML_DIGEST_VALUES([t.TPMT_HA(hashAlg=t.TPM2_ALG.SHA256, digest=t.TPMU_HA(sha256=digest))])
        self.do("extend a PCR", self.esys.pcr_extend, t.ESYS_TR(pcr), value)

    def _policy(self, pcrs: Sequence[int]) -> bytes:
        """PolicyPCR over the present values, computed by the TPM itself in a trial session (Part 3, 23.7)."""
        t = self.t
        with self.session(t.TPM2_SE.TRIAL, t.ESYS_TR.NONE) as session:
            self.do("look at the PCRs", self.esys.policy_pcr, session, b"", _selection(pcrs))
            return bytes(self.do("compute the policy", self.esys.policy_get_digest, session))

    def _encrypt(self, session: Any, direction: int) -> None:
        flags = self.t.TPMA_SESSION.CONTINUESESSION | direction
        self.do("encrypt a session", self.esys.trsess_set_attributes, session, flags)

    @contextmanager
    def _storage_key(self) -> Iterator[tuple[Any, bytes]]:
        with self.storage_key() as (handle, public):
            yield handle, bytes(public.get_name())

    @contextmanager
    def _loaded(self, sealed: SealedRoot, parent: Any) -> Iterator[Any]:
        private = self.read(self.t.TPM2B_PRIVATE, sealed.private)
        public = self.read(self.t.TPM2B_PUBLIC, sealed.public)
        handle = self.do("load the root key", self.esys.load, parent, private, public)
        with self.flushed(handle):
            yield handle

    def refused(self, what: str, error: Any) -> CustodyUnavailable:
        if self.is_boot_state(error):
            return WrongBootState(
                "The TPM does not open the root key: firmware or boot settings of this node have changed since it was"
                " sealed. If that was you, `manage.py custody recover` seals it anew with the recovery share."
            )
        return CustodyUnavailable(f"The TPM could not {what}: {error} (0x{error.rc:x}).")


def _selection(pcrs: Collection[int]) -> str:
    return "sha256:" + ",".join(str(pcr) for pcr in sorted(pcrs))
