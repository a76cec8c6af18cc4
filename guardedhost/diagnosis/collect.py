"""Looks at everything on one host that attesting needs, and writes down what is there and what is not.

Whatever fails, the rest is looked at all the same, and nothing is changed. An enrolled host asks the portal for its
verdict, which is a trial there.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from attestation.core.eventlog import EVENT_LOG_LIMIT
from attestation.core.ima import IMA_LIMIT
from attestation.core.quote import QUOTED_PCRS
from guardedhost import agent, host_key
from guardedhost.client import Client
from guardedhost.diagnosis import probe
from guardedhost.diagnosis.trace import (
    HERE,
    UNPROVEN,
    UNREACHABLE,
    AccountSeen,
    Answer,
    FolderSeen,
    HeldCertificate,
    KeySeen,
    LogSeen,
    PortalSeen,
    QuoteSeen,
    StateFile,
    TpmSeen,
    Trace,
)
from guardedhost.errors import AgentError, LibraryMissing, Refused, StoreDamaged, TpmFailure, Unproven, Unreachable
from guardedhost.store import TPM, Config, Credential, LastAttestation, Store
from guardedhost.tpm import Tpm
from guardedhost.wire import Verdict

_PATIENCE: Final = 30.0
_MOST_FILES: Final = 100
_NONCE: Final = 32


def collect(store: Store) -> Trace:
    """A look at the host whose state is in `store`."""
    at = datetime.now(UTC)
    folder = _folder(store)
    config = folder.config or Config()
    portal = probe.look_at(config.server, config.ca) if config.server else None
    trace = Trace(
        at=at,
        agent=version("guardhouse"),
        folder=folder,
        portal=portal,
        tpm=TpmSeen(config.tcti),
        boot_log=LogSeen(config.event_log),
        ima_log=LogSeen(config.ima_log),
        host_key=_host_key(store),
        account=_account(config),
        last=_last(store, folder),
    )
    try:
        with _alone(store), Tpm(config.tcti) if config.tcti else nullcontext() as tpm:
            return _with_tpm(trace, store, config, tpm)
    except TimeoutError:
        return _without_tpm(trace, f"Another process of the agent has held the TPM for {_PATIENCE:.0f} seconds.")
    except OSError as error:
        return _without_tpm(trace, f"{store.folder / 'lock'} cannot be opened: {error.strerror}.")
    except TpmFailure as error:
        return _without_tpm(trace, str(error))


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Wait for the daemon and for starts of machines, but not for ever; a folder that is not there is not made."""
    if not store.folder.is_dir():
        yield
        return
    with store.locked(patience=_PATIENCE):
        yield


def _folder(store: Store) -> FolderSeen:
    seen = FolderSeen(str(store.folder), os.geteuid())
    try:
        paths = [store.folder, *sorted(store.folder.iterdir())[:_MOST_FILES]]
        seen = replace(seen, files=tuple(_file(path, store.folder) for path in paths))
        return replace(seen, config=store.config())
    except FileNotFoundError:
        return replace(seen, error="There is no such folder")
    except StoreDamaged as error:
        return replace(seen, error=str(error))
    except OSError as error:
        return replace(seen, error=error.strerror or str(error))


def _file(path: Path, folder: Path) -> StateFile:
    status = path.lstat()
    return StateFile("." if path == folder else path.name, status.st_mode, status.st_uid)


def _last(store: Store, folder: FolderSeen) -> LastAttestation | None:
    try:
        return store.last_attestation() if folder.config else None
    except OSError:
        return None


def _host_key(store: Store) -> KeySeen:
    """The key's public part. One that is not there is not made."""
    try:
        if not (store.folder / "host-key.pem").exists():
            return KeySeen()
        return KeySeen(host_key.public_spki(host_key.host_key(store.folder)))
    except StoreDamaged as error:
        return KeySeen(error=str(error))
    except OSError as error:
        return KeySeen(error=f"{store.folder / 'host-key.pem'} cannot be read: {error.strerror}.")


def _account(config: Config) -> AccountSeen:
    """The keytab as a file, and a ticket to the portal's service, which is asked for and thrown away."""
    if not config.keytab:
        return AccountSeen()
    service = f"HTTP@{agent.service_host(config.server)}"
    seen = AccountSeen(config.keytab, service=service)
    try:
        mode = Path(config.keytab).stat().st_mode
        with Path(config.keytab).open("rb") as file:
            file.read(1)
    except OSError as error:
        return replace(seen, keytab_error=f"{config.keytab} cannot be read: {error.strerror}.")
    if mode & 0o077:
        seen = replace(seen, keytab_error=f"{config.keytab} can be read by others than its owner.")
    try:
        agent.conversation(config, b"")
    except LibraryMissing as error:
        return replace(seen, missing=error.reason, install=error.remedy)
    except AgentError as error:
        return replace(seen, ticket_error=str(error))
    return seen


def _without_tpm(trace: Trace, error: str) -> Trace:
    trace = replace(trace, tpm=replace(trace.tpm, errors={"open": error}))
    trace = _with_logs(trace)
    return replace(trace, answer=Answer(code=HERE, sentence=error) if trace.enrolled else None)


def _with_tpm(trace: Trace, store: Store, config: Config, tpm: Tpm | None) -> Trace:
    """Go on with the TPM open, or without one where the configuration names none."""
    seen = TpmSeen("", errors={"open": "This host is configured without a TPM."}) if tpm is None else _tpm(config, tpm)
    trace = replace(trace, tpm=seen, held=_held(store, tpm, trace.folder))
    trace = _with_logs(trace)
    return replace(trace, answer=_answer(store, config, tpm, trace.portal) if trace.enrolled else None)


def _tpm(config: Config, tpm: Tpm) -> TpmSeen:
    errors: dict[str, str] = {}

    def ask(what: str, command: Callable[[], Any]) -> Any:
        try:
            return command()
        except TpmFailure as error:
            errors[what] = str(error)
            return None

    endorsement = ask("endorsement", tpm.endorsement)
    return TpmSeen(
        tcti=config.tcti,
        condition=ask("condition", tpm.condition),
        ek_public=endorsement and bytes(endorsement.public),
        ek_certificate=endorsement and endorsement.certificate and bytes(endorsement.certificate),
        ak_public=ask("ak", tpm.ak_public),
        quote=ask("quote", lambda: _quote(tpm)),
        reset_count=ask("boot", tpm.reset_count),
        errors=errors,
    )


def _quote(tpm: Tpm) -> QuoteSeen:
    nonce = os.urandom(_NONCE)
    quoted = tpm.quote(QUOTED_PCRS, nonce)
    return QuoteSeen(nonce, quoted.signed.attest, bytes(quoted.signed.signature), quoted.values)


def _held(store: Store, tpm: Tpm | None, folder: FolderSeen) -> HeldCertificate | None:
    credential: Credential | None = None
    if folder.config:
        try:
            credential = store.credential()
        except OSError:
            credential = None
    if credential is None:
        return None
    usable = None
    if tpm is not None and credential.mode == TPM:
        usable = tpm.usable_now(credential.key, credential.boot_pcrs)
    return HeldCertificate(credential.certificate, credential.reset_count, usable, credential.mode)


def _with_logs(trace: Trace) -> Trace:
    """After the quote, as when attesting: the IMA list may have grown past the quoted PCR 10, and not fall short."""
    boot_log, ima_log = _log(trace.boot_log, EVENT_LOG_LIMIT), _log(trace.ima_log, IMA_LIMIT)
    return replace(trace, boot_log=boot_log, ima_log=ima_log)


def _log(seen: LogSeen, limit: int) -> LogSeen:
    try:
        return replace(seen, content=agent.log_content(seen.path, limit))
    except AgentError as error:
        return replace(seen, error=str(error))


def _answer(store: Store, config: Config, tpm: Tpm | None, portal: PortalSeen | None) -> Answer | None:
    if portal is None:
        return None
    if step := next((each for each in portal.errors if each not in ("info", "signers")), None):
        return Answer(code=UNREACHABLE, sentence=f"{portal.errors[step]}.")
    try:
        return _words(agent.ask_verdict(agent.Host(store, config, Client(config.server, config.ca), tpm)))
    except Refused as error:
        return Answer(code=error.code, sentence=error.detail)
    except Unreachable as error:
        return Answer(code=UNREACHABLE, sentence=str(error))
    except Unproven as error:
        return Answer(code=UNPROVEN, sentence=str(error))
    except AgentError as error:
        return Answer(code=HERE, sentence=str(error))
    except OSError as error:
        return Answer(code=HERE, sentence=f"The state folder cannot be read: {error.strerror}.")


def _words(verdict: Verdict) -> Answer:
    return Answer(verdict.status, verdict.substatus, verdict.findings)
