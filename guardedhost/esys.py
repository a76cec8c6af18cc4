"""A conversation with one TPM through ESYS (tpm2-tss): commands that are tried again, handles that are given back.

tpm2-pytss is imported when a TPM is opened, so that the rest of the agent installs and runs without libtss2. It has no
type information, hence `Any` here and in `tpm.py`.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from guardedhost.errors import TpmFailure

# "Try again" in the words of TPM 2.0 Part 2, 6.6.3: TPM_RC_RETRY, TPM_RC_YIELDED, TPM_RC_TESTING.
_AGAIN = frozenset({0x922, 0x908, 0x90A})
_ATTEMPTS = 20
_PCR_CHANGED, _POLICY_FAIL = 0x128, 0x09D
_FORMAT_ONE = 0x0BF  # what is left of a format-one code without the bits that say which parameter or session
_HANDLES = 64
# TPM_ST_NO_SESSIONS, size 14, TPM_CC_FlushContext (Part 3, 28.4). ESYS flushes only handles that it made itself.
_FLUSH_CONTEXT = bytes.fromhex("8001 0000000e 00000165")
# noDA everywhere: these keys have no password to guess, and without it every power cut would count as a wrong guess.
_STORAGE = "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda"
_AK = "restricted|sign|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda"


def _load_pytss() -> Any:
    os.environ.setdefault("TSS2_LOG", "all+none")  # libtss2 writes expected failures to stderr otherwise
    try:
        import tpm2_pytss
        import tpm2_pytss.utils
    except (ImportError, OSError) as error:
        raise TpmFailure(f"The TPM’s library cannot be loaded ({error}); see docs/hosts.md.") from error
    return tpm2_pytss


@dataclass(frozen=True, slots=True)
class SavedKey:
    """A key under the storage root key; `private` is encrypted to this TPM."""

    public: bytes  # TPM2B_PUBLIC
    private: bytes  # TPM2B_PRIVATE


class Esys(AbstractContextManager["Esys"]):
    """One open TPM; use it in a `with` block, because a second user of a software TPM has to wait for the first."""

    def __init__(self, tcti: str) -> None:
        self._t = _load_pytss()
        try:
            self._esys = self._t.ESAPI(tcti)
        except (self._t.TSS2_Exception, ValueError) as error:
            raise TpmFailure(f"There is no TPM at {tcti}, or another process holds it ({error}).") from error
        if tcti.startswith("swtpm:"):
            self._flush_leftovers()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._esys.close()

    # Handles: whatever is loaded is flushed again, also when a command fails

    def _primary(self, template: Any, hierarchy: Any) -> tuple[Any, Any]:
        handle, public, *_ = self._do(
            "create a primary key", self._esys.create_primary, self._t.TPM2B_SENSITIVE_CREATE(), template, hierarchy
        )
        return handle, public

    @contextmanager
    def _ak(self) -> Iterator[tuple[Any, Any]]:
        template = self._t.TPM2B_PUBLIC.parse("ecc256:ecdsa-sha256:null", objectAttributes=_AK, nameAlg="sha256")
        handle, public = self._primary(template, self._t.ESYS_TR.ENDORSEMENT)
        with self._flushed(handle):
            yield handle, public

    @contextmanager
    def _srk(self) -> Iterator[Any]:
        template = self._t.TPM2B_PUBLIC.parse("ecc256:aes128cfb", objectAttributes=_STORAGE, nameAlg="sha256")
        handle, _ = self._primary(template, self._t.ESYS_TR.OWNER)
        with self._flushed(handle):
            yield handle

    @contextmanager
    def _loaded(self, key: SavedKey, parent: Any = None) -> Iterator[Any]:
        if parent is None:
            with self._srk() as srk:
                handle = self._load(key, srk)
        else:
            handle = self._load(key, parent)
        with self._flushed(handle):
            yield handle

    def _load(self, key: SavedKey, parent: Any) -> Any:
        private = self._read(self._t.TPM2B_PRIVATE, key.private)
        public = self._read(self._t.TPM2B_PUBLIC, key.public)
        return self._do("load a key", self._esys.load, parent, private, public)

    @contextmanager
    def _endorsement_key(self) -> Iterator[tuple[Any, Any, bytes | None]]:
        utils = self._t.utils
        nv = self._do("read the TPM's properties", utils.NVReadEK, self._esys)
        found = [
            self._do("read the EK certificate", utils.create_ek_template, kind, nv)
            for kind in ("EK-RSA2048", "EK-ECC256")
        ]
        certificate, template = next((entry for entry in found if entry[0]), found[0])
        handle, public = self._primary(template, self._t.ESYS_TR.ENDORSEMENT)
        with self._flushed(handle):
            yield handle, public, certificate

    @contextmanager
    def _ek_session(self, ek: Any) -> Iterator[Any]:
        """What the EK's template asks for: PolicySecret of the endorsement hierarchy (PolicyA), or the empty auth."""
        t = self._t
        if ek.publicArea.objectAttributes & t.TPMA_OBJECT.USERWITHAUTH:
            yield t.ESYS_TR.PASSWORD
            return
        with self._session(t.TPM2_SE.POLICY, t.ESYS_TR.NONE) as session:
            self._do("satisfy the EK's policy", self._esys.policy_secret, t.ESYS_TR.ENDORSEMENT, session)
            yield session

    @contextmanager
    def _session(self, kind: Any, salt_key: Any) -> Iterator[Any]:
        t = self._t
        cipher = t.TPMT_SYM_DEF(algorithm=t.TPM2_ALG.NULL)
        if salt_key != t.ESYS_TR.NONE:
            cipher = t.TPMT_SYM_DEF.parse("aes128cfb")
        args = (salt_key, t.ESYS_TR.NONE, kind, cipher, t.TPM2_ALG.SHA256)
        session = self._do("start a session", self._esys.start_auth_session, *args)
        with self._flushed(session):
            # Without this the TPM ends the session by itself after one use, and flushing it fails.
            self._do("keep a session", self._esys.trsess_set_attributes, session, t.TPMA_SESSION.CONTINUESESSION)
            yield session

    @contextmanager
    def _flushed(self, handle: Any) -> Iterator[None]:
        try:
            yield
        finally:
            self._do("flush a handle", self._esys.flush_context, handle)

    def _flush_leftovers(self) -> None:
        """Free what a killed agent left in a software TPM; /dev/tpmrm0 does this by itself when its file is closed."""
        t = self._t
        for first in (t.TPM2_HC.TRANSIENT_FIRST, t.TPM2_HC.LOADED_SESSION_FIRST):
            _, found = self._do("list its handles", self._esys.get_capability, t.TPM2_CAP.HANDLES, first, _HANDLES)
            for handle in found.data.handles:
                command = _FLUSH_CONTEXT + int(handle).to_bytes(4, "big")
                self._do("flush a leftover handle", self._esys.tcti.transmit, command)
                self._do("flush a leftover handle", self._esys.tcti.receive)

    def _read(self, kind: Any, data: bytes) -> Any:
        """A TPM structure out of bytes that somebody else has kept or sent."""
        return self._do("read a structure", kind.unmarshal, data)[0]

    def _do(self, what: str, command: Callable[..., Any], *args: Any) -> Any:
        """Run one command, again while the TPM says it is busy; any other error becomes a sentence."""
        for attempt in range(_ATTEMPTS):
            try:
                return command(*args)
            except self._t.TSS2_Exception as error:
                if error.rc & 0xFFF not in _AGAIN or attempt == _ATTEMPTS - 1:
                    raise TpmFailure(_sentence(what, error)) from error
                time.sleep(0.01 * (attempt + 1))
            except ValueError as error:
                raise TpmFailure(f"The TPM could not {what}: {error}.") from error
        raise AssertionError("the last attempt returns or raises")


def _sentence(what: str, error: Any) -> str:
    if error.rc & 0xFFF == _PCR_CHANGED or error.rc & _FORMAT_ONE == _POLICY_FAIL:
        return f"The TPM would not {what}: the host is not in the boot state that the key is bound to."
    return f"The TPM could not {what}: {error} (0x{error.rc:x})."


def selection(pcrs: Iterable[int]) -> str:
    """Return PCRs of the sha256 bank as tpm2-pytss reads them."""
    return "sha256:" + ",".join(str(pcr) for pcr in sorted(set(pcrs)))
