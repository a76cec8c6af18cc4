"""Whole lab machines for tests: a software TPM that booted a captured log, and the words it speaks to the portal."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attestation.core.base64url import from_b64u, to_b64u
from attestation.core.eventlog import EV_NO_ACTION, parse_event_log
from attestation.core.quote import BOOT_PCRS, QUOTED_PCRS
from attestation.core.transport import policy_pcr
from tests.tpm_lab import TRANSPORT, Key, Maker, Tpm, opened, running

CAPTURES = Path(__file__).parent / "vectors" / "qemu-ovmf"


@dataclass
class Machine:
    """One host: its name, its TPM with the boot already measured, its keys and its boot log."""

    name: str
    tpm: Tpm
    log: bytes
    ek: Key
    ak: Key
    transport: Key
    ek_certificate: bytes | None
    maker: Maker
    attester: str = ""
    kept: dict[str, Any] = field(default_factory=dict)

    def enrolment(self, **changes: object) -> dict[str, object]:
        """Return the body of an enrolment request."""
        body: dict[str, object] = {
            "name": self.name,
            "ek_public": to_b64u(self.ek.public),
            "ak_public": to_b64u(self.ak.public),
        }
        if self.ek_certificate is not None:
            body["ek_certificate"] = to_b64u(self.ek_certificate)
        return body | changes

    def evidence(
        self,
        nonce: bytes,
        *,
        pcrs: tuple[int, ...] = QUOTED_PCRS,
        ak: Key | None = None,
        transport: Key | None = None,
        certify_nonce: bytes | None = None,
        log: bytes | None = None,
        with_log: bool = True,
    ) -> dict[str, Any]:
        """Return the body that answers a challenge, honest unless told otherwise."""
        signer, key = ak or self.ak, transport or self.transport
        quote, signature = self.tpm.quote(signer, nonce, pcrs)
        certify, certify_signature = self.tpm.certify(key, signer, certify_nonce or nonce)
        body: dict[str, Any] = {
            "quote": to_b64u(quote),
            "signature": to_b64u(signature),
            "pcr_values": {str(pcr): to_b64u(value) for pcr, value in self.tpm.pcrs(pcrs).items()},
            "transport_public": to_b64u(key.public),
            "transport_certify": to_b64u(certify),
            "transport_signature": to_b64u(certify_signature),
        }
        if with_log:
            body["event_log"] = to_b64u(self.log if log is None else log)
        return body

    @property
    def log_digest(self) -> str:
        return hashlib.sha256(self.log).hexdigest()

    def activate(self, credential_blob: bytes, secret: bytes) -> bytes:
        return self.tpm.activate(self.ak, self.ek, credential_blob, secret)

    @contextmanager
    def another_transport_key(self, attributes: str = TRANSPORT, *, policy: bytes | None = None) -> Iterator[Key]:
        """Give a transport key of another kind. The usual one makes room for it: a TPM holds three keys at a time."""
        self.tpm.forget(self.transport)
        bound = policy_pcr(("sha256", BOOT_PCRS), self.tpm.pcrs(BOOT_PCRS)) if policy is None else policy
        key = self.tpm.child("rsa2048:oaep-sha256:null", attributes, policy=bound)
        try:
            yield key
        finally:
            self.tpm.forget(key)
            self.transport = bound_transport_key(self.tpm)

    def unwrap(self, encrypted_key: bytes) -> bytes:
        return self.tpm.decrypt(self.transport, encrypted_key, BOOT_PCRS)


def measure(tpm: Tpm, log: bytes) -> None:
    """Extend what a firmware and a boot loader had extended when the log was captured."""
    for event in parse_event_log(log).events:
        if event.untrusted_type != EV_NO_ACTION:
            tpm.extend(event.pcr, event.digests["sha256"])


def bound_transport_key(tpm: Tpm) -> Key:
    """Create a transport key for this boot, as an honest agent does."""
    policy = policy_pcr(("sha256", BOOT_PCRS), tpm.pcrs(BOOT_PCRS))
    return tpm.child("rsa2048:oaep-sha256:null", policy=policy)


@contextmanager
def booted(maker: Maker, folder: Path, *, name: str, capture: str) -> Iterator[Machine]:
    """Manufacture a TPM, let it boot a captured log of this repository, and give the machine."""
    with booted_from(maker, folder, name=name, log=(CAPTURES / capture / "eventlog.bin").read_bytes()) as machine:
        yield machine


@contextmanager
def booted_from(maker: Maker, folder: Path, *, name: str, log: bytes) -> Iterator[Machine]:
    """Manufacture a TPM, let it boot any log, and give the machine."""
    maker.manufacture(folder / name)
    with switched_on(maker, folder / name, name=name, log=log) as machine:
        yield machine


@contextmanager
def switched_on(maker: Maker, state: Path, *, name: str, log: bytes) -> Iterator[Machine]:
    """Let a TPM that was manufactured boot any log, and give the machine."""
    with running(state) as tcti, opened(tcti) as tpm:
        measure(tpm, log)
        yield Machine(
            name=name,
            tpm=tpm,
            log=log,
            ek=tpm.ek(),
            ak=tpm.primary("ecc256:ecdsa-sha256:null"),
            transport=bound_transport_key(tpm),
            ek_certificate=tpm.ek_certificate(),
            maker=maker,
        )


def decoded(body: Mapping[str, Any], name: str) -> bytes:
    """Return one binary field of an answer."""
    return from_b64u(str(body[name]))
