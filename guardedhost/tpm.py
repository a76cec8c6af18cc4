"""The host's TPM, as the agent needs it: who it is, what it measured, and keys that work in one boot state only.

Nothing is stored in the TPM: the endorsement key and the AK are primaries, made again from the seed by the same
template; the transport key is kept by the caller as two blobs that only this TPM can load.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from guardedhost.allowance import Allowances
from guardedhost.errors import TpmFailure
from guardedhost.esys import SavedKey, selection

_QUOTE_ATTEMPTS = 8
_PCR_COUNT = 24
# TPM_PT and TPMA_PERMANENT.inLockout (Part 2, 6.13 and 8.6).
_PT_FIXED, _PT_VARIABLE, _PROPERTIES = 0x100, 0x200, 64
_PT_MANUFACTURER, _PT_FIRMWARE_1, _PT_FIRMWARE_2 = 0x105, 0x10B, 0x10C
_PT_PERMANENT, _PT_LOCKOUT_COUNTER, _PT_MAX_AUTH_FAIL, _PT_LOCKOUT_INTERVAL = 0x200, 0x20E, 0x20F, 0x210
_IN_LOCKOUT = 1 << 9
_TRANSPORT = "decrypt|fixedtpm|fixedparent|sensitivedataorigin|noda"


@dataclass(frozen=True, slots=True)
class Endorsement:
    """The endorsement key and, when its maker left one in NV, the certificate for it."""

    public: bytes  # TPM2B_PUBLIC
    certificate: bytes | None


@dataclass(frozen=True, slots=True)
class Condition:
    """Who made a TPM, and whether wrong guesses at its keys' passwords have locked it (Part 1, 19.8)."""

    manufacturer: str
    firmware: str
    locked: bool
    failures: int
    most_failures: int
    seconds_per_failure: int


@dataclass(frozen=True, slots=True)
class Signed:
    """TPMS_ATTEST as signed, and its TPMT_SIGNATURE."""

    attest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Quoted:
    signed: Signed
    values: dict[int, bytes]


class Tpm(Allowances):
    """What the agent asks of a TPM."""

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
        blob = self._read(self._t.TPM2B_ID_OBJECT, credential_blob)
        seed = self._read(self._t.TPM2B_ENCRYPTED_SECRET, secret)
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

    def condition(self) -> Condition:
        """What the TPM says of itself (TPM_PT, Part 2, 6.13)."""
        fixed, variable = self._properties(_PT_FIXED), self._properties(_PT_VARIABLE)
        maker = fixed.get(_PT_MANUFACTURER, 0).to_bytes(4, "big")
        return Condition(
            manufacturer=maker.rstrip(b"\0 ").decode("ascii", "replace"),
            firmware=f"{fixed.get(_PT_FIRMWARE_1, 0):08x}{fixed.get(_PT_FIRMWARE_2, 0):08x}",
            locked=bool(variable.get(_PT_PERMANENT, 0) & _IN_LOCKOUT),
            failures=variable.get(_PT_LOCKOUT_COUNTER, 0),
            most_failures=variable.get(_PT_MAX_AUTH_FAIL, 0),
            seconds_per_failure=variable.get(_PT_LOCKOUT_INTERVAL, 0),
        )

    def _properties(self, first: int) -> dict[int, int]:
        t = self._t
        args = (t.TPM2_CAP.TPM_PROPERTIES, first, _PROPERTIES)
        _, found = self._do("read the TPM's properties", self._esys.get_capability, *args)
        return {int(each.property): int(each.value) for each in found.data.tpmProperties}

    # Measurements

    def read_pcrs(self, pcrs: Iterable[int]) -> dict[int, bytes]:
        """The sha256 bank's values; the TPM gives at most eight at a time."""
        values: dict[int, bytes] = {}
        left = sorted(set(pcrs))
        while left:
            _, chosen, digests = self._do("read the PCRs", self._esys.pcr_read, selection(left))
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
                attest, signature = self._do("quote", self._esys.quote, ak, selection(pcrs), nonce)
                body = self._read(self._t.TPMS_ATTEST, bytes(attest))
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
            self._do("compute the boot policy", self._esys.policy_pcr, session, b"", selection(boot_pcrs))
            return bytes(self._do("read the boot policy", self._esys.policy_get_digest, session))

    def usable_now(self, key: SavedKey, boot_pcrs: Sequence[int]) -> bool:
        """Whether this TPM has the key and would use it in the boot state the host is in."""
        try:
            policy = bytes(self._read(self._t.TPM2B_PUBLIC, key.public).publicArea.authPolicy)
            with self._loaded(key):
                return policy == self.boot_policy(boot_pcrs)
        except TpmFailure:
            return False

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
            self._do("satisfy the boot policy", self._esys.policy_pcr, session, b"", selection(boot_pcrs))
            flags = t.TPMA_SESSION.CONTINUESESSION | t.TPMA_SESSION.ENCRYPT
            self._do("encrypt the answer", self._esys.trsess_set_attributes, session, flags)
            scheme = t.TPMT_RSA_DECRYPT(scheme=t.TPM2_ALG.NULL)
            args = (handle, ciphertext, scheme, b"", session)
            return bytes(self._do("open a key with the transport key", self._esys.rsa_decrypt, *args))


def _selected(selection: Any) -> list[int]:
    mask = int.from_bytes(bytes(selection[0].pcrSelect)[: selection[0].sizeofSelect], "little")
    return [pcr for pcr in range(_PCR_COUNT) if mask >> pcr & 1]
