"""The state folder of one host: small JSON files, each complete or absent, whenever the machine stops.

What belongs together (a
certificate, the key it certifies and its release secret) is one file, so no crash can mix two of them. Only the
configuration cannot be made again by attesting; any other damaged file counts as absent.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509

from attestation.core.base64url import from_b64u, to_b64u
from attestation.core.certificate import serial_text
from attestation.core.finding import Finding, finding_from
from guardedhost import files
from guardedhost.allowance import Allowance
from guardedhost.errors import StoreDamaged
from guardedhost.esys import SavedKey

TPM, HOST_KEY, KERBEROS = "tpm", "hostkey", "kerberos"
DEFAULT_FOLDER = Path("/var/lib/guardhouse")
EVENT_LOG = "/sys/kernel/security/tpm0/binary_bios_measurements"
IMA_LOG = "/sys/kernel/security/ima/binary_runtime_measurements"
# A certificate this close to its end may lapse between the request for a key and the portal's check.
_SPARE = timedelta(seconds=5)

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Config:
    """What the operator chose; `attester` is empty until the host is enrolled."""

    server: str = ""
    attester: str = ""  # as TPM mode knows this host
    ak: str = ""  # the name of the AK that was enrolled (TPM 2.0 part 1, 16), in hexadecimal
    key_attester: str = ""  # as host-key mode knows it
    keytab: str = ""  # of the machine account that Kerberos mode knows it by
    principal: str = ""  # of that account; the keytab's first when it is empty
    name: str = ""
    tcti: str = "device:/dev/tpmrm0"
    event_log: str = EVENT_LOG
    ima_log: str = IMA_LOG
    ca: str = ""
    # The presence of /dev/kvm does not prove that it works (nested hypervisors), so acceleration is a choice.
    accel: str = "tcg"


@dataclass(frozen=True, slots=True)
class Credential:
    """A health certificate with all that is needed to use it. `release_secret` stays encrypted to the transport key.

    In the modes without a TPM the key is this host's own (SubjectPublicKeyInfo and PEM), and bound to no boot.
    """

    certificate: bytes
    release_secret: str = field(repr=False)  # JWE, compact
    key: SavedKey = field(repr=False)
    boot_pcrs: tuple[int, ...]
    reset_count: int
    mode: str = TPM

    @property
    def serial(self) -> str:
        return serial_text(self._parsed.serial_number)

    @property
    def not_after(self) -> datetime:
        return self._parsed.not_valid_after_utc

    @property
    def _parsed(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.certificate)

    def valid(self, *, now: datetime, reset_count: int) -> bool:
        """Whether it is worth sending: not lapsed, and given in this boot. The portal decides for itself."""
        return self.alive(now=now) and reset_count == self.reset_count

    def alive(self, *, now: datetime) -> bool:
        return now + _SPARE < self.not_after


@dataclass(frozen=True, slots=True)
class OfflineTicket:
    """What starts a machine without the portal: its key, sealed in the TPM, and what became of it so far.

    `roll` is the state that the key opens, `until` a moment of the calendar. `spent` are the starts made by it, in
    seconds since 1970; `told` says whether the portal has heard of all of them.
    """

    owner: str
    protector: str
    roll: int
    until: int
    allowance: Allowance
    spent: tuple[int, ...] = ()
    told: bool = True


@dataclass(frozen=True, slots=True)
class LastAttestation:
    """The outcome an operator wants to see without asking the portal."""

    at: datetime
    status: str
    substatus: tuple[str, ...]
    findings: tuple[Finding, ...]
    next_attestation_at: datetime
    certificate_until: datetime | None


class Store:
    """The files of one host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self, *, patience: float | None = None) -> Iterator[None]:
        """One process at a time talks to the TPM and replaces files; the daemon and a VM start wait for each other."""
        self._make_folder()
        with files.locked(self.folder / "lock", patience=patience):
            yield

    def config(self) -> Config:
        """The configuration, or defaults when there is none yet."""
        try:
            text = (self.folder / "config.json").read_text()
        except FileNotFoundError:
            return Config()
        try:
            return Config(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise StoreDamaged(f"{self.folder / 'config.json'} is damaged; enrol this host again.") from error

    def enrolled(self) -> Config:
        """The configuration of an enrolled host; a host that is not yet one is told what to do."""
        config = self.config()
        if not (config.attester or config.key_attester or config.keytab):
            raise StoreDamaged(
                f"This host is not enrolled (no attester in {self.folder}): run `guardhouse host enrol`."
            )
        return config

    def save_config(self, config: Config) -> None:
        self._save("config.json", asdict(config))

    def transport_key(self) -> tuple[SavedKey, int] | None:
        """The key made in this boot, with the reset count of the boot it was made in."""
        return self._load("transport.json", lambda fields: (_key(fields), int(fields["reset_count"])))

    def save_transport_key(self, key: SavedKey, reset_count: int) -> None:
        self._save("transport.json", {**_key_fields(key), "reset_count": reset_count})

    def own_transport_key(self) -> SavedKey | None:
        """The transport key of host-key mode."""
        return self._load("own-transport.json", _key)

    def save_own_transport_key(self, key: SavedKey) -> None:
        self._save("own-transport.json", _key_fields(key))

    def credential(self) -> Credential | None:
        return self._load("credential.json", _credential)

    def save_credential(self, credential: Credential) -> None:
        fields = {
            "certificate": to_b64u(credential.certificate),
            "release_secret": credential.release_secret,
            "boot_pcrs": list(credential.boot_pcrs),
            "reset_count": credential.reset_count,
            "mode": credential.mode,
        }
        self._save("credential.json", {**_key_fields(credential.key), **fields})

    def drop_credential(self) -> None:
        """Forget a certificate that the portal no longer honours."""
        (self.folder / "credential.json").unlink(missing_ok=True)

    def last_attestation(self) -> LastAttestation | None:
        return self._load("status.json", _last_attestation)

    def save_last_attestation(self, last: LastAttestation) -> None:
        fields = asdict(last)
        for name in ("at", "next_attestation_at", "certificate_until"):
            fields[name] = fields[name] and fields[name].isoformat()
        self._save("status.json", fields)

    def machines(self) -> list[Path]:
        """The bundles that were started here."""
        return self._load("machines.json", lambda fields: [Path(path) for path in fields["bundles"]]) or []

    def remember_machine(self, bundle: Path) -> None:
        known = sorted({str(path) for path in (*self.machines(), bundle)})
        self._save("machines.json", {"bundles": known})

    def held(self) -> list[Path]:
        """The bundles whose key this host got, and of which it has not told the portal that they stopped."""
        return self._load("held.json", lambda fields: [Path(path) for path in fields["bundles"]]) or []

    def remember_held(self, bundle: Path) -> None:
        self._save_held({*self.held(), bundle})

    def forget_held(self, bundle: Path) -> None:
        self._save_held(set(self.held()) - {bundle})

    def _save_held(self, bundles: set[Path]) -> None:
        self._save("held.json", {"bundles": sorted(map(str, bundles))})

    def tickets(self) -> dict[Path, OfflineTicket]:
        """What this host may start without the portal, by bundle."""
        return self._load("offline.json", _tickets) or {}

    def save_ticket(self, bundle: Path, ticket: OfflineTicket | None) -> None:
        """Keep what a bundle may be started by, instead of what there was; None for nothing any more."""
        tickets = {path: each for path, each in self.tickets().items() if path != bundle}
        if ticket is not None:
            tickets[bundle] = ticket
        self._save("offline.json", {str(path): _ticket_fields(each) for path, each in tickets.items()})

    def _make_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _save(self, name: str, fields: dict[str, Any]) -> None:
        self._make_folder()
        files.write_atomically(self.folder / name, json.dumps(fields, indent=1).encode())

    def _load(self, name: str, build: Callable[[dict[str, Any]], T]) -> T | None:
        try:
            content = (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return build(json.loads(content))
        except (KeyError, ValueError, TypeError):
            log.warning("%s is damaged and will be made again", self.folder / name)
            return None


def _key_fields(key: SavedKey) -> dict[str, Any]:
    return {"public": to_b64u(key.public), "private": to_b64u(key.private)}


def _key(fields: dict[str, Any]) -> SavedKey:
    return SavedKey(from_b64u(fields["public"]), from_b64u(fields["private"]))


def _ticket_fields(ticket: OfflineTicket) -> dict[str, Any]:
    allowance = ticket.allowance
    bounds = {name: getattr(allowance, name) for name in ("index", "first", "last", "deadline")}
    said = {name: getattr(ticket, name) for name in ("owner", "protector", "roll", "until", "spent", "told")}
    return {**said, **bounds, **_key_fields(allowance.key), "boot_pcrs": allowance.boot_pcrs}


def _tickets(fields: dict[str, Any]) -> dict[Path, OfflineTicket]:
    return {Path(path): _ticket(each) for path, each in fields.items()}


def _ticket(fields: dict[str, Any]) -> OfflineTicket:
    pcrs = tuple(int(pcr) for pcr in fields["boot_pcrs"])
    bounds = [int(fields[name]) for name in ("index", "first", "last", "deadline")]
    return OfflineTicket(
        owner=str(fields["owner"]),
        protector=str(fields["protector"]),
        roll=int(fields["roll"]),
        until=int(fields["until"]),
        allowance=Allowance(_key(fields), pcrs, *bounds),
        spent=tuple(int(start) for start in fields["spent"]),
        told=fields["told"] is True,
    )


def _credential(fields: dict[str, Any]) -> Credential:
    credential = Credential(
        certificate=from_b64u(fields["certificate"]),
        release_secret=str(fields["release_secret"]),
        key=_key(fields),
        boot_pcrs=tuple(int(pcr) for pcr in fields["boot_pcrs"]),
        reset_count=int(fields["reset_count"]),
        mode=str(fields.get("mode", TPM)),
    )
    _ = credential.not_after  # raises ValueError when the certificate cannot be read
    return credential


def _last_attestation(fields: dict[str, Any]) -> LastAttestation:
    until = fields["certificate_until"]
    last = LastAttestation(
        at=datetime.fromisoformat(fields["at"]),
        status=str(fields["status"]),
        substatus=tuple(fields["substatus"]),
        findings=tuple(finding_from(finding) for finding in fields["findings"]),
        next_attestation_at=datetime.fromisoformat(fields["next_attestation_at"]),
        certificate_until=until and datetime.fromisoformat(until),
    )
    return replace(last, findings=tuple(replace(f, pcrs=tuple(f.pcrs)) for f in last.findings))
