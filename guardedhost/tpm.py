"""The host's TPM, as the agent needs it: who it is, what it measured, and keys that work in one boot state only.

tpm2-pytss is imported when a TPM is opened, so that the rest of the agent installs and runs without libtss2.
Nothing is stored in the TPM: the endorsement key and the AK are primaries, made again from the seed by the same
template; the transport key is kept by the caller as two blobs that only this TPM can load.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

from guardedhost.errors import TpmFailure

# "Try again" in the words of TPM 2.0 Part 2, 6.6.3: TPM_RC_RETRY, TPM_RC_YIELDED, TPM_RC_TESTING.
_AGAIN = frozenset({0x922, 0x908, 0x90A})
_ATTEMPTS = 20
# TPM_RC_VALUE, TPM_RC_PCR_CHANGED and TPM_RC_POLICY_FAIL, without the bits that say which parameter or session.
_POLICY_REFUSALS = frozenset({0x128, 0x09D})
_QUOTE_ATTEMPTS = 8
_HANDLES = 64
# TPM_ST_NO_SESSIONS, size 14, TPM_CC_FlushContext (Part 3, 28.4). ESYS flushes only handles that it made itself.
_FLUSH_CONTEXT = bytes.fromhex("8001 0000000e 00000165")
_PCR_COUNT = 24
# noDA everywhere: these keys have no password to guess, and without it every power cut would count as a wrong guess.
_STORAGE = "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda"
_AK = "restricted|sign|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda"
_TRANSPORT = "decrypt|fixedtpm|fixedparent|sensitivedataorigin|noda"


@dataclass(frozen=True, slots=True)
class Endorsement:
    """The endorsement key and, when its maker left one in NV, the certificate for it."""

    public: bytes  # TPM2B_PUBLIC
    certificate: bytes | None


@dataclass(frozen=True, slots=True)
class SavedKey:
    """A key under the storage root key; `private` is encrypted to this TPM."""

    public: bytes  # TPM2B_PUBLIC
    private: bytes  # TPM2B_PRIVATE


@dataclass(frozen=True, slots=True)
class Signed:
    """TPMS_ATTEST as signed, and its TPMT_SIGNATURE."""

    attest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Quoted:
    signed: Signed
    values: dict[int, bytes]


def _load_pytss() -> Any:
    os.environ.setdefault("TSS2_LOG", "all+none")  # libtss2 writes expected failures to stderr otherwise
    try:
        import tpm2_pytss
        import tpm2_pytss.utils
    except (ImportError, OSError) as error:
        raise TpmFailure(f"The TPM software stack cannot be loaded ({error}); install guardhouse[host].") from error
    return tpm2_pytss


class Tpm(AbstractContextManager["Tpm"]):
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

    # Identity

    def endorsement(self) -> Endorsement:
        """The endorsement key that has a certificate, RSA first (TCG EK Credential Profile 2.5, template L-1)."""
        with self._endorsement_key() as (_, public, certificate):
            return Endorsement(public.marshal(), certificate)

    def ak_public(self) -> bytes:
        """The AK: restricted, ECDSA P-256, a primary of the endorsement hierarchy."""
        with self._ak() as (_, public):
            return bytes(public.marshal())

    def activate(self, credential_blob: bytes, secret: bytes) -> bytes:
        """Prove that AK and EK live in this TPM: TPM2_ActivateCredential (Part 3, 12.5)."""
        blob, _ = self._t.TPM2B_ID_OBJECT.unmarshal(credential_blob)
        seed, _ = self._t.TPM2B_ENCRYPTED_SECRET.unmarshal(secret)
        with self._ak() as (ak, _), self._endorsement_key() as (ek, public, _), self._ek_session(public) as auth:
            tr = self._t.ESYS_TR
            return bytes(
                self._do(
                    "open the portal's credential",
                    self._esys.activate_credential,
                    ak,
                    ek,
                    blob,
                    seed,
                    tr.PASSWORD,
                    auth,
                )
            )

    # Measurements

    def read_pcrs(self, pcrs: Iterable[int]) -> dict[int, bytes]:
        """The sha256 bank's values; the TPM gives at most eight at a time."""
        values: dict[int, bytes] = {}
        left = sorted(set(pcrs))
        while left:
            _, chosen, digests = self._do("read the PCRs", self._esys.pcr_read, _selection(left))
            got = _selected(chosen)
            if not got:
                raise TpmFailure("The TPM has no sha256 bank; switch it on in the firmware's set-up.")
            values.update(zip(got, (bytes(digest) for digest in digests), strict=True))
            left = [pcr for pcr in left if pcr not in values]
        return values

    def quote(self, pcrs: Sequence[int], nonce: bytes) -> Quoted:
        """A quote and the values it is over.

        The kernel extends PCR 10 whenever it likes, so values read before the quote may not be the quoted ones; read
        and quote until they agree.
        """
        with self._ak() as (ak, _):
            for _ in range(_QUOTE_ATTEMPTS):
                values = self.read_pcrs(pcrs)
                attest, signature = self._do("quote", self._esys.quote, ak, _selection(pcrs), nonce)
                body = self._t.TPMS_ATTEST.unmarshal(bytes(attest))[0]
                if bytes(body.attested.quote.pcrDigest) == sha256(b"".join(values[p] for p in sorted(values))).digest():
                    return Quoted(Signed(bytes(attest), signature.marshal()), values)
        raise TpmFailure("The PCRs change faster than they can be quoted.")

    def extend(self, pcr: int, digest: bytes) -> None:
        """TPM2_PCR_Extend of the sha256 bank. For lab hosts: on a real one the firmware and the kernel measure."""
        t = self._t
        value = t.TPMT_HA(hashAlg=t.TPM2_ALG.SHA256, digest=t.TPMU_HA(sha256=digest))
        self._do(f"extend PCR {pcr}", self._esys.pcr_extend, t.ESYS_TR(pcr), t.TPML_DIGEST_VALUES([value]))

    def reset_count(self) -> int:
        """How often this TPM was reset: another number means another boot (Part 1, 36.3)."""
        return int(self._do("read the clock", self._esys.read_clock).clockInfo.resetCount)

    # The transport key

    def create_transport_key(self, boot_pcrs: Sequence[int]) -> SavedKey:
        """An RSA-OAEP key that this TPM uses only while the boot PCRs have the values they have now.

        No userWithAuth: there is no password that could stand in for the policy.
        """
        template = self._t.TPM2B_PUBLIC.parse(
            "rsa2048:oaep-sha256:null",
            objectAttributes=_TRANSPORT,
            nameAlg="sha256",
            authPolicy=self.boot_policy(boot_pcrs),
        )
        with self._srk() as srk:
            empty = self._t.TPM2B_SENSITIVE_CREATE()
            private, public, *_ = self._do("create the transport key", self._esys.create, srk, empty, template)
        return SavedKey(public.marshal(), private.marshal())

    def boot_policy(self, boot_pcrs: Sequence[int]) -> bytes:
        """PolicyPCR over the present values, computed by the TPM itself in a trial session (Part 3, 23.7)."""
        t = self._t
        with self._session(t.TPM2_SE.TRIAL, t.ESYS_TR.NONE) as session:
            self._do("compute the boot policy", self._esys.policy_pcr, session, b"", _selection(boot_pcrs))
            return bytes(self._do("read the boot policy", self._esys.policy_get_digest, session))

    def bound_to_now(self, key: SavedKey, boot_pcrs: Sequence[int]) -> bool:
        """Whether the key would open in the boot state the host is in."""
        public, _ = self._t.TPM2B_PUBLIC.unmarshal(key.public)
        return bytes(public.publicArea.authPolicy) == self.boot_policy(boot_pcrs)

    def certify(self, key: SavedKey, nonce: bytes) -> Signed:
        """The AK's word that the key lives in this TPM (TPM2_Certify, Part 3, 18.2), fresh by the nonce."""
        scheme = self._t.TPMT_SIG_SCHEME(scheme=self._t.TPM2_ALG.NULL)
        with self._loaded(key) as handle, self._ak() as (ak, _):
            attest, signature = self._do("certify the transport key", self._esys.certify, handle, ak, nonce, scheme)
        return Signed(bytes(attest), signature.marshal())

    def decrypt(self, key: SavedKey, boot_pcrs: Sequence[int], ciphertext: bytes) -> bytes:
        """RSA-OAEP by the transport key, if the host is still in the boot state the key is bound to.

        The policy session is salted to the storage root key and encrypts the answer, so that somebody who listens on
        the bus between CPU and TPM does not see the content key.
        """
        t = self._t
        with self._srk() as srk, self._session(t.TPM2_SE.POLICY, srk) as session, self._loaded(key, srk) as handle:
            self._do("satisfy the boot policy", self._esys.policy_pcr, session, b"", _selection(boot_pcrs))
            flags = t.TPMA_SESSION.CONTINUESESSION | t.TPMA_SESSION.ENCRYPT
            self._do("encrypt the answer", self._esys.trsess_set_attributes, session, flags)
            scheme = t.TPMT_RSA_DECRYPT(scheme=t.TPM2_ALG.NULL)
            args = (handle, ciphertext, scheme, b"", session)
            return bytes(self._do("open a key with the transport key", self._esys.rsa_decrypt, *args))

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
    def _loaded(self, key: SavedKey, parent: Any = None) -> Iterator[Any]:
        if parent is None:
            with self._srk() as srk:
                handle = self._load(key, srk)
        else:
            handle = self._load(key, parent)
        with self._flushed(handle):
            yield handle

    def _load(self, key: SavedKey, parent: Any) -> Any:
        private, _ = self._t.TPM2B_PRIVATE.unmarshal(key.private)
        public, _ = self._t.TPM2B_PUBLIC.unmarshal(key.public)
        return self._do("load the transport key", self._esys.load, parent, private, public)

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
    if error.rc & 0xFFF in _POLICY_REFUSALS or error.rc & 0xBF == 0x9D:
        return f"The TPM would not {what}: the host is not in the boot state that the key is bound to."
    return f"The TPM could not {what}: {error} (0x{error.rc:x})."


def _selection(pcrs: Iterable[int]) -> str:
    return "sha256:" + ",".join(str(pcr) for pcr in sorted(set(pcrs)))


def _selected(selection: Any) -> list[int]:
    mask = int.from_bytes(bytes(selection[0].pcrSelect)[: selection[0].sizeofSelect], "little")
    return [pcr for pcr in range(_PCR_COUNT) if mask >> pcr & 1]
