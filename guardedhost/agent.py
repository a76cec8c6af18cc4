"""What the agent does: enrol the host, prove its state, and use the certificate that the proof earns."""

import json
import logging
import shlex
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from attestation.core.base64url import to_b64u
from attestation.core.eventlog import EVENT_LOG_LIMIT
from attestation.core.ima import IMA_LIMIT
from attestation.core.possession import prove
from attestation.core.tpm import parse_public
from guardedhost import host_key
from guardedhost.client import Client
from guardedhost.errors import AgentError, LibraryMissing, Unreachable
from guardedhost.esys import SavedKey
from guardedhost.jwe import open_jwe
from guardedhost.store import HOST_KEY, KERBEROS, TPM, Config, Credential, LastAttestation, Store
from guardedhost.tpm import Quoted, Tpm
from guardedhost.wire import Activation, Challenge, Verdict

if TYPE_CHECKING:
    from guardedhost.kerberos import Conversation

log = logging.getLogger(__name__)

INSTALL_KERBEROS: Final = (
    "In the source tree that this agent was installed from, run"
    f" `{shlex.quote(sys.executable)} -m pip install --require-hashes -r requirements/kerberos.txt`;"
    " docs/hosts.md says what that needs."
)
_PIECE = 1 << 20


class NotAttested(AgentError):
    """The portal did not accept the host; `verdict` says why."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"The portal gave this host no certificate: {verdict.status}.")
        self.verdict = verdict


class NotInMode(AgentError):
    """The fabric asks for a mode that this host is not registered for."""

    def __init__(self, mode: str) -> None:
        super().__init__(
            f"The fabric is in {mode} mode, and this host is not registered for it:"
            f" run `guardhouse host enrol --mode {mode}`."
        )
        self.mode = mode


class Purpose(Enum):
    """Why a host shows its state: for a certificate, for people to see who is ready, or to know its own verdict."""

    CERTIFICATE = "certificate"
    REHEARSAL = "rehearsal"
    VERDICT = "verdict"

    @property
    def is_trial(self) -> bool:
        return self is Purpose.VERDICT


@dataclass(frozen=True, slots=True)
class Host:
    """A host with its state folder locked, and its TPM open if it has one."""

    store: Store
    config: Config
    client: Client
    opened_tpm: Tpm | None

    @property
    def tpm(self) -> Tpm:
        if self.opened_tpm is None:
            raise AgentError("This host was registered without a TPM, and what is asked of it needs one.")
        return self.opened_tpm


@contextmanager
def opened(store: Store, config: Config | None = None) -> Iterator[Host]:
    """Lock the state folder and open the TPM; without `config`, the host must be enrolled.

    A host whose configuration names no TPM attests by its host key alone.
    """
    config = config or store.enrolled()
    client = Client(config.server, config.ca)
    with store.locked(), Tpm(config.tcti) if config.tcti else nullcontext() as tpm:
        yield Host(store, config, client, tpm)


def enrol(host: Host) -> Activation:
    """Make the host known to the portal, and prove that its AK lives beside its endorsement key.

    The identity is in the TPM, so enrolling again is harmless: the portal recognises the same keys.
    """
    endorsement, ak_public = host.tpm.endorsement(), host.tpm.ak_public()
    enrolment = host.client.enrol(
        host.config.name or socket.gethostname(),
        ek_public=endorsement.public,
        ek_certificate=endorsement.certificate,
        ak_public=ak_public,
    )
    secret = host.tpm.activate(enrolment.credential_blob, enrolment.secret)
    activation = host.client.activate(enrolment.id, secret)
    name = parse_public(ak_public).name.hex()
    host.store.save_config(replace(host.config, attester=activation.attester, ak=name))
    log.info("enrolled: attester=%s state=%s", activation.attester, activation.state)
    return activation


def register_host_key(host: Host) -> Activation:
    """Make the host known to the portal by a key of its own, and prove that it has it."""
    key = host_key.host_key(host.store.folder)
    name = host.config.name or socket.gethostname()
    offer = host.client.offer_host_key(name, host_key.public_spki(key))
    activation = host.client.prove_host_key(offer, prove(key, nonce=offer.nonce))
    host.store.save_config(replace(host.config, key_attester=activation.attester))
    log.info("registered: attester=%s state=%s", activation.attester, activation.state)
    return activation


def attest(host: Host) -> Verdict:
    """Attest once in the mode in force, and keep the outcome: the certificate of a pass, the findings in any case."""
    return _in_force(host, Purpose.CERTIFICATE)


def ask_verdict(host: Host) -> Verdict:
    """Ask what attesting would come to now. Nothing comes of the answer, at the portal or here: no file is written."""
    return _in_force(host, Purpose.VERDICT)


def _in_force(host: Host, purpose: Purpose) -> Verdict:
    mode = host.client.mode()
    if mode not in modes_of(host.config):
        raise NotInMode(mode)
    return _IN_MODE[mode](host, purpose)


def rehearse(host: Host) -> dict[str, Verdict]:
    """Try every other mode that this host is registered for; that earns nothing, and shows people who is ready."""
    mode = host.client.mode()
    return {each: _IN_MODE[each](host, Purpose.REHEARSAL) for each in modes_of(host.config) if each != mode}


def mode_of(store: Store) -> str:
    """Ask for the mode in force, without touching the TPM."""
    config = store.enrolled()
    return Client(config.server, config.ca).mode()


def modes_of(config: Config) -> tuple[str, ...]:
    """The modes that this host is registered for."""
    known = {TPM: config.attester, HOST_KEY: config.key_attester, KERBEROS: config.keytab}
    return tuple(mode for mode, identity in known.items() if identity)


def _attest_by_key(host: Host, purpose: Purpose) -> Verdict:
    read = host_key.kept_host_key if purpose.is_trial else host_key.host_key
    key, transport = read(host.store.folder), _own_transport_key(host, purpose)
    challenge = host.client.challenge(host.config.key_attester, trial=purpose.is_trial)
    proof = prove(key, nonce=challenge.nonce, transport_spki=transport.public)
    verdict = host.client.possession(challenge.id, proof)
    if purpose is Purpose.CERTIFICATE:
        _keep(host, verdict, HOST_KEY, transport, boot_pcrs=(), reset_count=0)
    return verdict


def use_account(host: Host) -> None:
    """Let this host attest by its machine account from now on; the directory knows it, so nobody is told."""
    with _libkrb5():
        import guardedhost.kerberos  # noqa: F401  (whether it can be is all that is asked)
    if not Path(host.config.keytab).is_file():
        raise AgentError(f"There is no keytab at {host.config.keytab or 'the path that --keytab names'}.")
    host.store.save_config(host.config)


def _attest_by_account(host: Host, purpose: Purpose) -> Verdict:
    transport = _own_transport_key(host, purpose)
    body = json.dumps({"transport_key": to_b64u(transport.public), "trial": purpose.is_trial}).encode()
    spoken = conversation(host.config, body)
    verdict = host.client.membership(body, spoken.header, spoken.require_proof)
    if purpose is Purpose.CERTIFICATE:
        _keep(host, verdict, KERBEROS, transport, boot_pcrs=(), reset_count=0)
    return verdict


def conversation(config: Config, body: bytes) -> "Conversation":
    """Get a ticket to the portal's service for this body."""
    with _libkrb5():
        from guardedhost.kerberos import Account, Conversation
    return Conversation(Account(config.keytab, config.principal), service_host(config.server), body)


@contextmanager
def _libkrb5() -> Iterator[None]:
    """Say what to install where an import of what only hosts in Kerberos mode need fails."""
    try:
        yield
    except ImportError as error:
        reason = f"Kerberos mode needs the Python module gssapi and libkrb5, which cannot be loaded: {error}."
        raise LibraryMissing(reason, INSTALL_KERBEROS) from error


def service_host(server: str) -> str:
    """The host whose service a ticket is for: the portal's, by the name that the operator configured."""
    return urlsplit(server).hostname or ""


def _own_transport_key(host: Host, purpose: Purpose) -> SavedKey:
    saved = host.store.own_transport_key()
    if saved is None:
        made = host_key.new_transport_key()
        saved = SavedKey(host_key.public_spki(made), host_key.private_pem(made))
        if not purpose.is_trial:
            host.store.save_own_transport_key(saved)
    return saved


def _attest_by_tpm(host: Host, purpose: Purpose) -> Verdict:
    event_log = log_content(host.config.event_log, EVENT_LOG_LIMIT)
    if event_log is None:
        raise AgentError(f"There is no boot log at {host.config.event_log}; the host cannot show what it booted.")
    log_digest, boot = sha256(event_log).hexdigest(), host.tpm.reset_count()
    challenge = host.client.challenge(host.config.attester, log_digest, boot=boot, trial=purpose.is_trial)
    key, reset_count = _transport_key(host, challenge.boot_pcrs, purpose)
    quoted = host.tpm.quote(challenge.pcrs, challenge.nonce)
    evidence = _evidence(host, challenge, quoted, key)
    if challenge.send_event_log:
        evidence["event_log"] = to_b64u(event_log)
    verdict = host.client.evidence(challenge.id, evidence)
    if purpose is Purpose.CERTIFICATE:
        _keep(host, verdict, TPM, key, boot_pcrs=challenge.boot_pcrs, reset_count=reset_count)
    return verdict


_IN_MODE: Final[Mapping[str, Callable[..., Verdict]]] = {
    TPM: _attest_by_tpm,
    HOST_KEY: _attest_by_key,
    KERBEROS: _attest_by_account,
}


def certificate_valid(host: Host) -> Credential | None:
    """The credential in hand, if it is still worth sending."""
    credential = host.store.credential()
    if credential is None or not credential.alive(now=datetime.now(UTC)):
        return None
    if credential.mode != TPM:
        return credential
    if not credential.valid(now=datetime.now(UTC), reset_count=host.tpm.reset_count()):
        return None
    return credential if host.tpm.usable_now(credential.key, credential.boot_pcrs) else None


def ensure_certificate(host: Host) -> Credential:
    """A credential that is worth sending; attests when there is none."""
    if credential := certificate_valid(host):
        return credential
    verdict = attest(host)
    credential = certificate_valid(host)
    if credential is None:
        raise NotAttested(verdict)
    return credential


def open_token(host: Host, credential: Credential, token: str) -> bytes:
    """Open what the portal wrapped to this host's transport key."""
    if credential.mode != TPM:
        return open_jwe(token, lambda wrapped: host_key.decrypt(credential.key.private, wrapped))
    return open_jwe(token, lambda wrapped: host.tpm.decrypt(credential.key, credential.boot_pcrs, wrapped))


def _transport_key(host: Host, boot_pcrs: tuple[int, ...], purpose: Purpose) -> tuple[SavedKey, int]:
    """The key of this boot: made once, because making an RSA key takes a hardware TPM seconds."""
    reset_count = host.tpm.reset_count()
    saved = host.store.transport_key()
    if saved and saved[1] == reset_count and host.tpm.usable_now(saved[0], boot_pcrs):
        return saved
    key = host.tpm.create_transport_key(boot_pcrs)
    if not purpose.is_trial:
        host.store.save_transport_key(key, reset_count)
    return key, reset_count


def _evidence(host: Host, challenge: Challenge, quoted: Quoted, key: SavedKey) -> dict[str, Any]:
    certified = host.tpm.certify(key, challenge.nonce)
    evidence: dict[str, Any] = {
        "quote": to_b64u(quoted.signed.attest),
        "signature": to_b64u(quoted.signed.signature),
        "pcr_values": {str(pcr): to_b64u(value) for pcr, value in quoted.values.items()},
        "transport_public": to_b64u(key.public),
        "transport_certify": to_b64u(certified.attest),
        "transport_signature": to_b64u(certified.signature),
    }
    # After the quote: the list may have grown past the quoted PCR 10, and a longer list still has the quoted prefix.
    path = host.config.ima_log if challenge.send_ima_log else ""
    if (ima_log := log_content(path, IMA_LIMIT, start=challenge.ima_from)) is not None:
        evidence["ima_log"] = to_b64u(ima_log)
    return evidence


def _keep(
    host: Host, verdict: Verdict, mode: str, key: SavedKey, *, boot_pcrs: tuple[int, ...], reset_count: int
) -> None:
    credential = None
    if verdict.certificate and verdict.release_secret:
        credential = Credential(verdict.certificate, verdict.release_secret, key, boot_pcrs, reset_count, mode)
        try:
            until = credential.not_after
        except ValueError as error:
            raise Unreachable("The portal sent a certificate that cannot be read.") from error
        host.store.save_credential(credential)
    else:
        until = None
        host.store.drop_credential()
    host.store.save_last_attestation(
        LastAttestation(
            at=datetime.now(UTC),
            status=verdict.status,
            substatus=verdict.substatus,
            findings=verdict.findings,
            next_attestation_at=verdict.next_attestation_at,
            certificate_until=until,
        )
    )
    codes = ",".join(finding.code for finding in verdict.findings)
    serial = credential.serial if credential else "-"
    log.info("attested: status=%s certificate=%s findings=%s", verdict.status, serial, codes or "-")


def log_content(path: str, limit: int, *, start: int = 0) -> bytes | None:
    """A log of the kernel from a place on, or None when this host keeps none there.

    The kernel's lists cannot be sought in, they are made while they are read: what lies before is read and let go.
    """
    if not path:
        return None
    try:
        with Path(path).open("rb") as file:
            while start > 0 and (skipped := file.read(min(start, _PIECE))):
                start -= len(skipped)
            content = file.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AgentError(f"{path} cannot be read: {error.strerror}.") from error
    if len(content) > limit:
        raise AgentError(f"{path} is larger than {limit} bytes; the portal would refuse it.")
    return content
