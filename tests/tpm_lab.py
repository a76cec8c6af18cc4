"""A software TPM with an endorsement key certificate, and everything a host does with its TPM, well or badly.

tpm2-pytss is the oracle here: our own parsers and verifiers are tested against what a real TPM stack makes.
"""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TSS2_LOG", "all+none")  # read by libtss2 when it is loaded
from cryptography import x509
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_SE,
    TPM2B_DATA,
    TPM2B_DIGEST,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PUBLIC,
    TPM2B_PUBLIC_KEY_RSA,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPMA_SESSION,
    TPML_DIGEST_VALUES,
    TPML_PCR_SELECTION,
    TPMT_HA,
    TPMT_PUBLIC,
    TPMT_RSA_DECRYPT,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF,
    TPMU_HA,
    TSS2_Exception,
)
from tpm2_pytss.utils import NVReadEK, create_ek_template

RESIDENT = "fixedtpm|fixedparent|sensitivedataorigin"
AK = f"{RESIDENT}|userwithauth|restricted|sign"
STORAGE = f"{RESIDENT}|userwithauth|restricted|decrypt|noda"
TRANSPORT = f"{RESIDENT}|decrypt"
RSA_EK, ECC_EK = "EK-RSA2048", "EK-HIGH-ECC384"  # those that swtpm_setup writes certificates for
EK_HANDLES = {RSA_EK: 0x81010001, ECC_EK: 0x81010016}


@dataclass(frozen=True)
class Maker:
    """A TPM maker: the private CA that swtpm_localca keeps in one folder."""

    folder: Path

    def configure(self) -> Path:
        """Write the configuration of swtpm_setup and return its path."""
        self.folder.mkdir(exist_ok=True)
        authority, options, setup = (self.folder / name for name in ("localca.conf", "localca.options", "setup.conf"))
        names = {"signingkey": "signkey.pem", "issuercert": "issuercert.pem", "certserial": "certserial"}
        lines = [f"statedir = {self.folder}", *(f"{key} = {self.folder / file}" for key, file in names.items())]
        authority.write_text("\n".join(lines) + "\n")
        options.touch()  # swtpm_setup asks for the file
        setup.write_text(
            f"create_certs_tool={shutil.which('swtpm_localca')}\ncreate_certs_tool_config={authority}\n"
            f"create_certs_tool_options={options}\nactive_pcr_banks=sha256\n"
        )
        return setup

    def manufacture(self, state: Path) -> None:
        """Make a TPM's state with EK certificates in it, about a second."""
        setup = self.configure()
        state.mkdir()
        subprocess.run(
            ["swtpm_setup", "--tpm2", "--tpm-state", f"dir://{state}", "--createek", "--create-ek-cert",
             "--lock-nvram", "--pcr-banks", "sha256", "--config", str(setup), "--vmid", state.name, "--overwrite"],
            check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def authorities(self) -> list[x509.Certificate]:
        """Return root and intermediate."""
        files = ("swtpm-localca-rootca-cert.pem", "issuercert.pem")
        return [x509.load_pem_x509_certificate((self.folder / file).read_bytes()) for file in files]


@dataclass(frozen=True)
class Key:
    """A loaded key: its handle in the TPM and its TPM2B_PUBLIC as it goes over the wire."""

    handle: Any
    public: bytes
    native: Any

    @property
    def name(self) -> bytes:
        return bytes(self.native.get_name())


@dataclass(frozen=True)
class Tpm:
    """One host's TPM, as the host's own software sees it. It holds three keys at a time: `forget` what is done."""

    esapi: Any

    def ek_certificate(self, kind: str = RSA_EK) -> bytes:
        return bytes(create_ek_template(kind, NVReadEK(self.esapi))[0])

    def ek(self, kind: str = RSA_EK) -> Key:
        """The endorsement key where its maker left it, so that it takes none of the few places for keys."""
        handle = self.esapi.tr_from_tpmpublic(EK_HANDLES[kind])
        public, *_ = self.esapi.read_public(handle)
        return Key(handle, public.marshal(), public)

    def primary(self, kind: str, attributes: str = AK) -> Key:
        """Create a primary key of the endorsement hierarchy, such as "ecc256:ecdsa-sha256:null"."""
        return self._primary(_template(kind, attributes), ESYS_TR.ENDORSEMENT)

    def child(self, kind: str, attributes: str = TRANSPORT, *, policy: bytes = b"") -> Key:
        """Create and load a key below a storage root key, as transport keys are made."""
        root = self._primary(_template("ecc256:aes128cfb", STORAGE), ESYS_TR.OWNER)
        template = _template(kind, attributes, policy=policy)
        private, public, *_ = self.esapi.create(root.handle, TPM2B_SENSITIVE_CREATE(), template)
        handle = self.esapi.load(root.handle, private, public)
        self.forget(root)
        return Key(handle, public.marshal(), public)

    def activate(self, ak: Key, ek: Key, credential_blob: bytes, secret: bytes) -> bytes:
        """Open what make_credential made, both given as they are on the wire."""
        blob, _ = TPM2B_ID_OBJECT.unmarshal(credential_blob)
        encrypted, _ = TPM2B_ENCRYPTED_SECRET.unmarshal(secret)
        if ek.native.publicArea.objectAttributes & TPMA_OBJECT.USERWITHAUTH:  # the high-range templates
            session = ESYS_TR.PASSWORD
        else:
            session = self._policy_session()
            self.esapi.policy_secret(ESYS_TR.ENDORSEMENT, session)
        try:
            return bytes(
                self.esapi.activate_credential(ak.handle, ek.handle, blob, encrypted, ESYS_TR.PASSWORD, session)
            )
        finally:
            if session != ESYS_TR.PASSWORD:
                self.esapi.flush_context(session)

    def pcrs(self, wanted: Iterable[int]) -> dict[int, bytes]:
        return {pcr: bytes(self.esapi.pcr_read(f"sha256:{pcr}")[2][0]) for pcr in wanted}

    def extend(self, pcr: int, digest: bytes) -> None:
        value = TPMT_HA(hashAlg=TPM2_ALG.SHA256, digest=TPMU_HA(sha256=digest))
        self.esapi.pcr_extend(ESYS_TR.PCR0 + pcr, TPML_DIGEST_VALUES([value]))

    def quote(self, ak: Key, nonce: bytes, pcrs: Iterable[int], *, bank: str = "sha256") -> tuple[bytes, bytes]:
        """Return TPMS_ATTEST and TPMT_SIGNATURE."""
        selection = f"{bank}:{','.join(map(str, pcrs))}"
        attest, signature = self.esapi.quote(ak.handle, selection, TPM2B_DATA(nonce))
        return bytes(attest), signature.marshal()

    def certify(self, key: Key, ak: Key, nonce: bytes) -> tuple[bytes, bytes]:
        """Return TPMS_ATTEST and TPMT_SIGNATURE."""
        attest, signature = self.esapi.certify(key.handle, ak.handle, TPM2B_DATA(nonce), _own_scheme())
        return bytes(attest), signature.marshal()

    def sign(self, key: Key, message: bytes) -> bytes:
        """Sign with an unrestricted key whatever it is given, as a forger would."""
        digest = hashlib.sha256(message).digest()
        return bytes(self.esapi.sign(key.handle, TPM2B_DIGEST(digest), _own_scheme()).marshal())

    def decrypt(self, key: Key, ciphertext: bytes, pcrs: Iterable[int]) -> bytes:
        """Decrypt under PolicyPCR over `pcrs` as they are now."""
        session = self._policy_session()
        try:
            selection = TPML_PCR_SELECTION.parse(f"sha256:{','.join(map(str, pcrs))}")
            self.esapi.policy_pcr(session, TPM2B_DIGEST(), selection)
            scheme = TPMT_RSA_DECRYPT(scheme=TPM2_ALG.NULL)
            data = TPM2B_PUBLIC_KEY_RSA(ciphertext)
            return bytes(self.esapi.rsa_decrypt(key.handle, data, scheme, TPM2B_DATA(), session1=session))
        finally:
            self.esapi.flush_context(session)

    def forget(self, *keys: Key) -> None:
        for key in keys:
            self.esapi.flush_context(key.handle)

    def _primary(self, template: Any, hierarchy: Any) -> Key:
        handle, public, *_ = self.esapi.create_primary(TPM2B_SENSITIVE_CREATE(), template, hierarchy)
        return Key(handle, public.marshal(), public)

    def _policy_session(self) -> Any:
        nothing = TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)
        session = self.esapi.start_auth_session(ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, nothing, TPM2_ALG.SHA256)
        self.esapi.trsess_set_attributes(session, TPMA_SESSION.CONTINUESESSION)
        return session


@contextmanager
def running(state: Path) -> Iterator[str]:
    """Run a TPM over a manufactured state and give its TCTI string."""
    socket = state / "cmd"
    process = subprocess.Popen(
        ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server", f"type=unixio,path={socket},disconnect",
         "--ctrl", f"type=unixio,path={socket}.ctrl", "--flags", "not-need-init,startup-clear"]
    )  # fmt: skip
    try:
        while not (state / "cmd.ctrl").exists():
            if process.poll() is not None:
                raise RuntimeError(f"swtpm ended with {process.returncode}")
            time.sleep(0.005)
        yield f"swtpm:path={socket}"
    finally:
        process.terminate()
        process.wait()


def _connected(tcti: str) -> Any:
    """Connect, again while the TPM's socket is there and nobody listens on it yet, as on a busy machine."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return ESAPI(tcti)
        except TSS2_Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextmanager
def opened(tcti: str) -> Iterator[Tpm]:
    """Open a TPM; one opener at a time, swtpm serves the next when this one has closed."""
    esapi = _connected(tcti)
    try:
        yield Tpm(esapi)
    finally:
        with suppress(TSS2_Exception):
            esapi.close()


def _template(kind: str, attributes: str, *, policy: bytes = b"") -> Any:
    area = TPMT_PUBLIC.parse(
        kind, objectAttributes=TPMA_OBJECT.parse(attributes), nameAlg=TPM2_ALG.SHA256, authPolicy=policy
    )
    return TPM2B_PUBLIC(area)


def _own_scheme() -> Any:
    return TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
