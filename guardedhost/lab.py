"""Lab hosts: a software TPM with an EK certificate, and a captured boot replayed into its PCRs.

A lab host proves nothing about this machine; it lets the real agent meet the real portal with real PCR values. Its
folder is a state folder of the agent, with the TPM and the logs of its present "boot" in `lab/`.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from attestation.core.eventlog import EV_NO_ACTION, EventLog, parse_event_log
from attestation.core.ima import ima_measurements
from attestation.errors import ParseError
from guardedhost.errors import AgentError
from guardedhost.files import locked, write_atomically
from guardedhost.process import running_pid
from guardedhost.store import Store
from guardedhost.tpm import Tpm

_SOCKET_PATH_LIMIT = 100  # sockaddr_un holds 108 bytes, and ".ctrl" comes on top
_PATIENCE = 10.0


def make_host(folder: Path, *, name: str, boot_log: Path, ima_log: Path | None, authority: Path | None) -> None:
    """Make a lab host, or power an existing one on again: same TPM, so the same identity."""
    store = Store(folder)
    with store.locked():
        lab = folder / "lab"
        lab.mkdir(mode=0o700, exist_ok=True)
        if not (lab / "tpm").exists():
            _manufacture(lab, name, authority or lab / "authority")
        _power_on(store, boot_log, ima_log)
        store.save_config(replace(store.config(), name=name))


def reboot(folder: Path, *, boot_log: Path, ima_log: Path | None) -> None:
    """Reset the TPM, as a reboot does, and replay another captured boot."""
    store = Store(folder)
    with store.locked():
        _require_lab(folder)
        _power_on(store, boot_log, ima_log)


def stop(folder: Path) -> None:
    """Switch the TPM off."""
    with Store(folder).locked():
        lab = _require_lab(folder)
        _power_off(lab)
        if (lab / "sockets").is_symlink():
            shutil.rmtree((lab / "sockets").readlink(), ignore_errors=True)
            (lab / "sockets").unlink()


def _require_lab(folder: Path) -> Path:
    lab = folder / "lab"
    if not (lab / "tpm").exists():
        raise AgentError(f"{folder} is not the folder of a lab host.")
    return lab


def _manufacture(lab: Path, name: str, authority: Path) -> None:
    """A new TPM, with endorsement keys and certificates by the lab's own certificate authority."""
    state = lab / "tpm.new"
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(mode=0o700)
    authority.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = _setup_config(lab, authority.resolve())
    command = ["swtpm_setup", "--tpm2", "--tpm-state", f"dir://{state.resolve()}", "--create-ek-cert", "--lock-nvram"]
    command += ["--pcr-banks", "sha256", "--config", str(config), "--vmid", name, "--overwrite"]
    with locked(authority / "lock"):  # the authority makes itself at first use; two hosts may come at once
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (fixed program)
    if done.returncode:
        raise AgentError(f"swtpm_setup failed: {(done.stderr or done.stdout).strip()[-300:]}")
    state.replace(lab / "tpm")


def _setup_config(lab: Path, authority: Path) -> Path:
    files = {
        lab / "localca.conf": f"statedir = {authority}\nsigningkey = {authority}/signkey.pem\n"
        f"issuercert = {authority}/issuercert.pem\ncertserial = {authority}/certserial\n",
        lab / "localca.options": "--platform-manufacturer Guardhouse\n--platform-version 1\n--platform-model Lab\n",
        lab / "setup.conf": f"create_certs_tool = {shutil.which('swtpm_localca') or '/usr/bin/swtpm_localca'}\n"
        f"create_certs_tool_config = {lab.resolve()}/localca.conf\n"
        f"create_certs_tool_options = {lab.resolve()}/localca.options\nactive_pcr_banks = sha256\n",
    }
    for path, text in files.items():
        write_atomically(path, text.encode())
    return lab / "setup.conf"


def _power_on(store: Store, boot_log: Path, ima_log: Path | None) -> None:
    log = _read_boot_log(boot_log)
    ima, ima_measured = _read_ima_log(ima_log)
    lab = store.folder.resolve() / "lab"
    _power_off(lab)
    tcti = _start(lab)
    with Tpm(tcti) as tpm:
        for event in log.events:
            if event.untrusted_type != EV_NO_ACTION:
                tpm.extend(event.pcr, event.digests["sha256"])
        for pcr, digest in ima_measured:
            tpm.extend(pcr, digest)
    write_atomically(lab / "event-log.bin", boot_log.read_bytes())
    write_atomically(lab / "ima-log.bin", ima)
    ima_path = str(lab / "ima-log.bin") if ima_log else ""
    store.save_config(replace(store.config(), tcti=tcti, event_log=str(lab / "event-log.bin"), ima_log=ima_path))


def _read_boot_log(path: Path) -> EventLog:
    """A log that a software TPM can replay: one that has sha256 and starts at locality 0."""
    try:
        log = parse_event_log(path.read_bytes())
    except ParseError as error:
        raise AgentError(f"{path}: {error}") from error
    if "sha256" not in log.banks or log.startup_locality:
        raise AgentError(f"{path}: a lab host replays sha256 logs that start at locality 0 only.")
    return log


def _read_ima_log(path: Path | None) -> tuple[bytes, list[tuple[int, bytes]]]:
    """An IMA list, and what the kernel extended for it."""
    if path is None:
        return b"", []
    content = path.read_bytes()
    try:
        return content, list(ima_measurements(content, bank="sha256"))
    except ParseError as error:
        raise AgentError(f"{path}: {error}") from error


def _start(lab: Path) -> str:
    """Start swtpm in the background and wait until it answers; its start is a TPM reset."""
    socket = _socket_folder(lab) / "socket"
    for left in (socket, socket.with_name("socket.ctrl")):
        left.unlink(missing_ok=True)  # of a swtpm that was killed
    command = ["swtpm", "socket", "--tpm2", "--daemon", "--tpmstate", f"dir={lab / 'tpm'},mode=0600"]
    command += ["--server", f"type=unixio,path={socket},mode=0600,disconnect"]
    command += ["--ctrl", f"type=unixio,path={socket}.ctrl,mode=0600", "--flags", "not-need-init,startup-clear"]
    command += ["--pid", f"file={lab / 'swtpm.pid'}", "--log", f"file={lab / 'swtpm.log'}"]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True, check=False)  # noqa: S603 (fixed program)
    if done.returncode:
        raise AgentError(f"swtpm did not start: {done.stderr.strip()[-300:]}")
    return f"swtpm:path={socket}"


def _socket_folder(lab: Path) -> Path:
    """The lab folder, or, when its path is too long for a socket, a private folder that `sockets` points at."""
    if len(str(lab)) < _SOCKET_PATH_LIMIT - len("/socket"):
        return lab
    link = lab / "sockets"
    if not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(tempfile.mkdtemp(prefix="guardhouse-lab-"))  # 0700
    return link.readlink()


def _power_off(lab: Path) -> None:
    pid = running_pid(lab / "swtpm.pid", str(lab.resolve() / "tpm"))
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    while running_pid(lab / "swtpm.pid", str(lab.resolve() / "tpm")) is not None:
        if time.monotonic() > deadline:
            raise AgentError(f"swtpm (process {pid}) does not stop.")
        time.sleep(0.01)
