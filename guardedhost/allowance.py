"""A secret that this TPM gives out so many times, for so long, and in this boot state only.

Sealed under the storage root key with a policy of three parts, each of which the TPM itself checks: the boot PCRs
(TPM2_PolicyPCR), a counter in NV that has not passed a value (TPM2_PolicyNV), and the TPM's clock
(TPM2_PolicyCounterTimer); TPM 2.0 Part 3, 23.7, 23.9 and 23.10. Counting up before each use is this host's software's
part; the counter never goes back, whatever becomes of files. The clock stands while the host is off, so the calendar
is for the caller to look at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from guardedhost.errors import TpmFailure
from guardedhost.esys import Esys, SavedKey, selection

INDICES: Final = range(0x01834700, 0x01834740)  # of the owner's range (Registry of Reserved TPM Handles, 2.3.2)
_COUNTER: Final = "nt=1|authread|authwrite|noda"  # TPM_NT_COUNTER (Part 2, 13.4)
_SEALED: Final = "fixedtpm|fixedparent|noda"  # no userWithAuth: no password could stand in for the policy
_CLOCK: Final = 8  # where TPMS_TIME_INFO has its clock, in bytes (Part 2, 10.11.1)
_SIZE: Final = 8


@dataclass(frozen=True, slots=True)
class Allowance:
    """A sealed secret and when it ends: past `last` on the counter at `index`, or at `deadline` on the TPM's clock."""

    key: SavedKey
    boot_pcrs: tuple[int, ...]
    index: int
    first: int
    last: int
    deadline: int  # in milliseconds


class Allowances(Esys):
    """What the agent asks of a TPM for starts without the portal."""

    def new_counter(self) -> int:
        """Define a counter that nobody uses, and return its index. A new one begins above all that ever were."""
        t = self._t
        args = (t.TPM2_CAP.HANDLES, INDICES[0], len(INDICES))
        _, found = self._do("list its counters", self._esys.get_capability, *args)
        taken = {int(handle) for handle in found.data.handles}
        index = next((each for each in INDICES if each not in taken), None)
        if index is None:
            raise TpmFailure(f"All {len(INDICES)} counters for starts without the portal are in use.")
        public = t.TPM2B_NV_PUBLIC(
            nvPublic=t.TPMS_NV_PUBLIC(
                nvIndex=index,
                nameAlg=t.TPM2_ALG.SHA256,
                attributes=t.TPMA_NV.parse(_COUNTER),
                authPolicy=b"",
                dataSize=_SIZE,
            )
        )
        handle = self._do("define a counter", self._esys.nv_define_space, t.TPM2B_AUTH(), public)
        self._do("count", self._esys.nv_increment, handle)  # it cannot be read before
        self._close(handle)
        return index

    def remove_counter(self, index: int) -> None:
        handle = self._counter(index)
        self._do("remove a counter", self._esys.nv_undefine_space, handle)

    def counted(self, index: int) -> int:
        """Return what a counter stands at."""
        handle = self._counter(index)
        try:
            return int.from_bytes(bytes(self._do("read a counter", self._esys.nv_read, handle, _SIZE)), "big")
        finally:
            self._close(handle)

    def count(self, index: int) -> int:
        """Count up once, for good, and return what the counter stands at."""
        handle = self._counter(index)
        try:
            self._do("count", self._esys.nv_increment, handle)
        finally:
            self._close(handle)
        return self.counted(index)

    def allow(self, secret: bytes, boot_pcrs: Sequence[int], *, index: int, times: int, milliseconds: int) -> Allowance:
        """Seal a secret for this boot state, for so many counts from here and so long on the TPM's clock."""
        t = self._t
        first, clock = self.counted(index), int(self._do("read the clock", self._esys.read_clock).clockInfo.clock)
        bounds = (tuple(boot_pcrs), index, first + times, clock + milliseconds)
        with self._session(t.TPM2_SE.TRIAL, t.ESYS_TR.NONE) as session:
            self._satisfy(session, *bounds)
            policy = bytes(self._do("read the policy", self._esys.policy_get_digest, session))
        template = t.TPM2B_PUBLIC.parse("keyedhash", objectAttributes=_SEALED, nameAlg="sha256", authPolicy=policy)
        sensitive = t.TPM2B_SENSITIVE_CREATE(t.TPMS_SENSITIVE_CREATE(data=secret))
        with self._srk() as srk, self._session(t.TPM2_SE.HMAC, srk) as session:
            # The secret goes to the TPM encrypted: somebody may listen on the bus between it and the CPU.
            flags = t.TPMA_SESSION.CONTINUESESSION | t.TPMA_SESSION.DECRYPT
            self._do("encrypt the secret", self._esys.trsess_set_attributes, session, flags)
            args = (srk, sensitive, template, b"", "")
            private, public, *_ = self._do("seal a secret", lambda: self._esys.create(*args, session1=session))
        return Allowance(SavedKey(public.marshal(), private.marshal()), *(bounds[0], index, first, *bounds[2:]))

    def opened(self, allowance: Allowance) -> bytes:
        """Return the secret, if boot state, counter and clock still allow it; the caller has counted before."""
        t = self._t
        with (
            self._srk() as srk,
            self._session(t.TPM2_SE.POLICY, srk) as session,
            self._loaded(allowance.key, srk) as handle,
        ):
            self._satisfy(session, allowance.boot_pcrs, allowance.index, allowance.last, allowance.deadline)
            flags = t.TPMA_SESSION.CONTINUESESSION | t.TPMA_SESSION.ENCRYPT
            self._do("encrypt the answer", self._esys.trsess_set_attributes, session, flags)
            return bytes(self._do("open what is sealed", self._esys.unseal, handle, session))

    def _satisfy(self, session: Any, boot_pcrs: Sequence[int], index: int, last: int, deadline: int) -> None:
        t = self._t
        self._do("satisfy the boot policy", self._esys.policy_pcr, session, b"", selection(boot_pcrs))
        counter = self._counter(index)
        try:
            bound = last.to_bytes(_SIZE, "big")
            until = (counter, counter, session, bound, t.TPM2_EO.UNSIGNED_LE)
            self._do("satisfy the bound of the counter", self._esys.policy_nv, *until)
        finally:
            self._close(counter)
        before = (session, deadline.to_bytes(_SIZE, "big"), t.TPM2_EO.UNSIGNED_LT, _CLOCK)
        self._do("satisfy the bound of the clock", self._esys.policy_counter_timer, *before)

    def _counter(self, index: int) -> Any:
        return self._do("find a counter", self._esys.tr_from_tpmpublic, index)

    def _close(self, handle: Any) -> None:
        """Forget an NV index in the library; it stays in the TPM."""
        self._do("close a counter", self._esys.tr_close, handle)
