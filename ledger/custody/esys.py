"""A conversation with this node's TPM through ESYS (tpm2-tss): tried again while it is busy, every handle given back.

The agent has one of its own (`guardedhost/esys.py`): server and agent share no code but the cores. tpm2-pytss is
imported when a TPM is opened, so that a node without one needs no libtss2. It has no type information, hence `Any`.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Final, Self

from ledger.custody.errors import CustodyUnavailable, MalformedCustody

# "Try again" in the words of TPM 2.0 Part 2, 6.6.3: TPM_RC_RETRY, TPM_RC_YIELDED, TPM_RC_TESTING.
_AGAIN: Final = frozenset({0x922, 0x908, 0x90A})
_ATTEMPTS: Final = 20
_PATIENCE: Final = 5.0  # seconds; another process of this node may be opening its root at the same moment
_PCR_CHANGED, _POLICY_FAIL = 0x128, 0x09D
_FORMAT_ONE: Final = 0x0BF  # what is left of a format-one code without the bits that say which parameter or session
_STORAGE: Final = "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda"


def _load_pytss() -> Any:
    os.environ.setdefault("TSS2_LOG", "all+none")  # libtss2 writes expected failures to stderr otherwise
    try:
        import tpm2_pytss
    except (ImportError, OSError) as error:
        raise CustodyUnavailable(
            f"The TPM software stack cannot be loaded ({error}); install guardhouse[host] on this node."
        ) from error
    return tpm2_pytss


class Esys(AbstractContextManager["Esys"]):
    """One open TPM; use it in a `with` block, because a second user of a software TPM has to wait for the first."""

    def __init__(self, tcti: str) -> None:
        self.t = _load_pytss()
        self.esys = self._connected(tcti)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.esys.close()

    def _connected(self, tcti: str) -> Any:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return self.t.ESAPI(tcti)
            except (self.t.TSS2_Exception, ValueError) as error:
                if time.monotonic() > deadline or not isinstance(error, self.t.TSS2_Exception):
                    raise CustodyUnavailable(
                        f"There is no TPM at {tcti}, or another process holds it ({error})."
                    ) from error
            time.sleep(0.05)

    # Handles: whatever is loaded is flushed again, also when a command fails

    @contextmanager
    def storage_key(self) -> Iterator[tuple[Any, Any]]:
        """The storage root key: made from the TPM's own seed each time, so the same one as long as nobody clears it."""
        t = self.t
        template = t.TPM2B_PUBLIC.parse("ecc256:aes128cfb", objectAttributes=_STORAGE, nameAlg="sha256")
        args = (t.TPM2B_SENSITIVE_CREATE(), template, t.ESYS_TR.OWNER)
        handle, public, *_ = self.do("make its storage key", self.esys.create_primary, *args)
        with self.flushed(handle):
            yield handle, public

    @contextmanager
    def session(self, kind: Any, salt_key: Any) -> Iterator[Any]:
        t = self.t
        cipher = t.TPMT_SYM_DEF(algorithm=t.TPM2_ALG.NULL)
        if salt_key != t.ESYS_TR.NONE:
            cipher = t.TPMT_SYM_DEF.parse("aes128cfb")
        args = (salt_key, t.ESYS_TR.NONE, kind, cipher, t.TPM2_ALG.SHA256)
        session = self.do("start a session", self.esys.start_auth_session, *args)
        with self.flushed(session):
            # Without this the TPM ends the session by itself after one use, and flushing it fails.
            self.do("keep a session", self.esys.trsess_set_attributes, session, t.TPMA_SESSION.CONTINUESESSION)
            yield session

    @contextmanager
    def flushed(self, handle: Any) -> Iterator[None]:
        try:
            yield
        finally:
            self.do("flush a handle", self.esys.flush_context, handle)

    def read(self, kind: Any, data: bytes) -> Any:
        """A TPM structure out of bytes that lay in a file."""
        try:
            return self.do("read a structure", kind.unmarshal, data)[0]
        except CustodyUnavailable as error:
            raise MalformedCustody("The file of the sealed root is damaged.") from error

    def do(self, what: str, command: Callable[..., Any], *args: Any) -> Any:
        """Run one command, again while the TPM says it is busy; any other error becomes a sentence."""
        for attempt in range(_ATTEMPTS):
            try:
                return command(*args)
            except self.t.TSS2_Exception as error:
                if error.rc & 0xFFF not in _AGAIN or attempt == _ATTEMPTS - 1:
                    raise self.refused(what, error) from error
                time.sleep(0.01 * (attempt + 1))
            except ValueError as error:
                raise CustodyUnavailable(f"The TPM could not {what}: {error}.") from error
        raise AssertionError("the last attempt returns or raises")

    def refused(self, what: str, error: Any) -> CustodyUnavailable:
        return CustodyUnavailable(f"The TPM could not {what}: {error} (0x{error.rc:x}).")

    def is_boot_state(self, error: Any) -> bool:
        return bool(error.rc & 0xFFF == _PCR_CHANGED or error.rc & _FORMAT_ONE == _POLICY_FAIL)
