"""A trace: what one look at a host found, so that it can be judged there and then, or elsewhere later.

It holds what the host sends to its portal anyway, and what everybody on its network can see: logs, public keys,
certificates, one quote. No private key, not even an encrypted one, no release secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from attestation.core.finding import Finding
from guardedhost.agent import modes_of
from guardedhost.store import TPM, Config, LastAttestation
from guardedhost.tpm import Condition

UNREACHABLE, UNPROVEN, HERE = "unreachable", "unproven", "here"


@dataclass(frozen=True, slots=True)
class StateFile:
    """One entry of the state folder; the folder itself, ".", comes first."""

    name: str
    mode: int
    owner: int


@dataclass(frozen=True, slots=True)
class FolderSeen:
    """`user` is who looked; `config` is None where there is no readable configuration, and `error` says why."""

    path: str
    user: int
    files: tuple[StateFile, ...] = ()
    config: Config | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class PortalSeen:
    """How far a request got: name, connection, TLS, answer. `errors` has the step that failed, with a sentence.

    `date` is the portal's clock and `asked_at` the host's at that moment. Where TLS failed, `shown` and `date` come
    from somebody who has not proved to be the portal: they explain, they decide nothing.
    """

    host: str = ""
    port: int = 0
    encrypted: bool = True
    addresses: tuple[str, ...] = ()
    connected: str = ""
    authorities: str = ""
    shown: bytes | None = None
    tls_code: int = 0
    date: datetime | None = None
    asked_at: datetime | None = None
    fabric: str = ""
    mode: str = ""
    version: str = ""
    signers: tuple[bytes, ...] = ()
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QuoteSeen:
    """A quote over the PCRs that the portal asks for, with a nonce of the host's own."""

    nonce: bytes
    attest: bytes
    signature: bytes
    values: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class TpmSeen:
    """What could be had of the TPM; `errors` says what could not: open, condition, endorsement, ak, quote, boot."""

    tcti: str
    condition: Condition | None = None
    ek_public: bytes | None = None
    ek_certificate: bytes | None = None
    ak_public: bytes | None = None
    quote: QuoteSeen | None = None
    reset_count: int | None = None
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeySeen:
    """The host's own key of host-key mode: `public` is a SubjectPublicKeyInfo, None where there is no key."""

    public: bytes | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class AccountSeen:
    """The machine account of Kerberos mode: where its keytab is, and what is wrong with that or with its ticket.

    `service` is what a ticket was asked for; a ticket itself is never kept. `missing` and `install` say which library
    is not on the host, and how it gets there.
    """

    keytab: str = ""
    keytab_error: str = ""
    service: str = ""
    ticket_error: str = ""
    missing: str = ""
    install: str = ""


@dataclass(frozen=True, slots=True)
class LogSeen:
    """A log of the kernel: `content` is None where there is none at `path`, and where `error` says why."""

    path: str
    content: bytes | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class HeldCertificate:
    """The certificate that was in hand before this look; `usable` when the TPM would use its key as the host is now.

    In the modes without a TPM the key is bound to none, and to no boot.
    """

    certificate: bytes
    reset_count: int
    usable: bool | None
    mode: str = TPM


@dataclass(frozen=True, slots=True)
class Answer:
    """What the portal would make of the host now: its status, or a `code` and a sentence where there is none.

    `code` is the portal's, "unreachable", "unproven" when somebody answered who has not proved to be the portal, or
    "here" when the host got no further than itself.
    """

    status: str = ""
    substatus: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    code: str = ""
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """One look at one host. `answer` is None where nothing was asked, as of a host that is not enrolled."""

    at: datetime
    agent: str
    folder: FolderSeen
    portal: PortalSeen | None
    tpm: TpmSeen
    boot_log: LogSeen
    ima_log: LogSeen
    host_key: KeySeen = KeySeen()
    account: AccountSeen = AccountSeen()
    held: HeldCertificate | None = None
    last: LastAttestation | None = None
    answer: Answer | None = None

    @property
    def registered(self) -> tuple[str, ...]:
        """The modes that this host is registered for."""
        return modes_of(self.folder.config) if self.folder.config else ()

    @property
    def enrolled(self) -> bool:
        return self.registered != ()

    @property
    def mode(self) -> str:
        """The attestation mode in force; while the portal cannot say, the one that this host would attest in first."""
        return (self.portal and self.portal.mode) or next(iter(self.registered), TPM)
