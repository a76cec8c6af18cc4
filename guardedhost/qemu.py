"""Starts machines with QEMU and swtpm directly, under the rules of their level.

Keys reach both programs by pipe: never on a command line, in the environment or in a file. QEMU and swtpm talk over a
socket pair that has no name, so nobody else can speak to the vTPM. QEMU's paths are relative to the bundle, which is
its working folder.
"""

import hashlib
import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guardedhost.errors import VmFailure
from guardedhost.files import sync_folder
from guardedhost.machine import RULES, Firmware, Machine, UnlockedMachine
from guardedhost.process import by_pipe, running_pid
from guardedhost.qmp import Qmp
from kps.core.bundle import SEED_FILE

log = logging.getLogger(__name__)

_OVMF = Path("/usr/share/OVMF")
_CODE = _OVMF / "OVMF_CODE_4M.ms.fd"
_VARIABLES = _OVMF / "OVMF_VARS_4M.ms.fd"
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
# Nothing that was not asked for: no files of defaults, no devices of habit, no way out of the sandbox.
_BARE = ["-no-user-config", "-nodefaults", "-sandbox", _SANDBOX]
_BARE += ["-display", "none", "-vga", "none", "-nic", "none", "-parallel", "none"]
_CIPHER = "aes-256-cbc"
# Every program that is given a key.
_NO_CORE = ("prlimit", "--core=0:0")
_START_PATIENCE = 30.0
_QUIT_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class NetworkCard:
    """Where a machine's network goes: a tap device of the host, which is its operator's to make and to bridge.

    QEMU runs no script for it and cannot make one. What the guest hears and says there the hoster sees, at every level.
    """

    tap: str
    mac: str | None = None  # else one that stays with the machine


@dataclass(frozen=True, slots=True)
class Qemu:
    """`accel` is the operator's word: /dev/kvm may exist and yet not work, so it is never guessed."""

    accel: str = "tcg"
    card: NetworkCard | None = None

    def start(self, unlocked: UnlockedMachine) -> None:
        """Start vTPM and machine; raises VmFailure with QEMU's own words when it does not come up."""
        machine = unlocked.machine
        if self.state(machine) != "stopped":
            raise VmFailure(f"{machine.name} is already running.")
        machine.run_folder.mkdir(mode=0o700, exist_ok=True)
        (machine.run_folder / "qmp").unlink(missing_ok=True)
        _make_variables(machine)
        _make_vtpm(unlocked)
        _stop_vtpm(machine)
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with ours, theirs:
            _start_vtpm(unlocked, theirs.fileno())
            theirs.close()
            try:
                self._start_machine(unlocked, ours.fileno())
            except VmFailure:
                _stop_vtpm(machine)
                raise

    def stop(self, machine: Machine, *, patience: float) -> None:
        """ACPI power button, then QEMU's `quit`."""
        for command, seconds in (("system_powerdown", patience), ("quit", _QUIT_PATIENCE)):
            try:
                with Qmp(machine.run_folder / "qmp") as monitor:
                    monitor.execute(command)
            except (ConnectionError, FileNotFoundError):
                return
            except TimeoutError:  # busy, or hung: the next command may get through, and otherwise it does not stop
                log.warning("%s: QEMU did not answer %s in time", machine.name, command)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if self.state(machine) == "stopped":
                    return
                time.sleep(0.05)
        raise VmFailure(f"{machine.name} does not stop.")

    def state(self, machine: Machine) -> str:
        """What QEMU says of itself."""
        try:
            with Qmp(machine.run_folder / "qmp") as monitor:
                return str(monitor.execute("query-status").get("status", "unknown"))
        except (ConnectionError, FileNotFoundError):
            return "stopped"
        except TimeoutError:
            return "unresponsive"

    def _start_machine(self, unlocked: UnlockedMachine, vtpm: int) -> None:
        machine = unlocked.machine
        alive, held = os.pipe()  # QEMU inherits one end and never uses it; it closes when QEMU is gone
        log_path = machine.run_folder / "qemu.log"
        try:
            with by_pipe(unlocked.disk_passphrase) as disk_key, log_path.open("wb") as log:
                command = _command(unlocked, self.accel, disk_key=disk_key, vtpm=vtpm)
                command += _network(self.card, machine) if self.card is not None else []
                _detached(command, machine.folder, descriptors=(disk_key, vtpm, held), log=log.fileno())
                os.close(held)
                held = -1
                self._await_start(machine, alive)
        finally:
            os.close(alive)
            if held >= 0:
                os.close(held)

    def _await_start(self, machine: Machine, alive: int) -> None:
        deadline = time.monotonic() + _START_PATIENCE
        while time.monotonic() < deadline:
            gone, _, _ = select.select([alive], [], [], 0.02)
            if gone:
                said = (machine.run_folder / "qemu.log").read_text(errors="replace").strip()
                raise VmFailure(f"{machine.name} did not start: {said[-400:] or 'QEMU said nothing'}")
            if self.state(machine) == "running":
                return
        raise VmFailure(f"{machine.name} did not start within {_START_PATIENCE:.0f} seconds.")


def _command(unlocked: UnlockedMachine, accel: str, *, disk_key: int, vtpm: int) -> list[str]:
    machine, rules = unlocked.machine, RULES[unlocked.level]
    secure = not rules.any_firmware or machine.firmware is Firmware.SECURE_BOOT
    command = ["qemu-system-x86_64", "-name", machine.name, "-uuid", machine.description.id, *_BARE]
    command += ["-machine", f"q35,dump-guest-core=off,smm={'on' if secure else 'off'}", "-accel", accel]
    command += ["-m", str(machine.description.memory)]
    command += ["-object", f"secret,id=disk-key,file=/dev/fd/{disk_key}", "-blockdev", json.dumps(_disk(machine))]
    command += ["-device", "virtio-blk-pci,drive=disk,bootindex=0"]
    if (machine.folder / SEED_FILE).exists():
        command += ["-blockdev", json.dumps(_seed()), "-device", "virtio-blk-pci,drive=seed"]
    command += ["-chardev", f"socket,id=vtpm,fd={vtpm}", "-tpmdev", "emulator,id=tpm,chardev=vtpm"]
    command += ["-device", "tpm-tis,tpmdev=tpm", "-monitor", "none", "-qmp", "unix:run/qmp,server=on,wait=off"]
    command += _firmware() if secure else []
    command += ["-serial", "file:run/console.log"] if rules.console else ["-serial", "none"]
    command += _guest_agent() if rules.guest_agent else []
    return command


def _disk(machine: Machine) -> dict[str, object]:
    return _encrypted("disk", machine.description.disk)


def _seed() -> dict[str, object]:
    """What cloud-init in the guest reads: encrypted as the disk is, so that the hoster can give it nothing else."""
    return {**_encrypted("seed", SEED_FILE), "read-only": True}


def _encrypted(node: str, file: str) -> dict[str, object]:
    return {
        "driver": "qcow2",
        "node-name": node,
        "file": {"driver": "file", "filename": file},
        "backing": None,  # an image that names a backing file would show the guest a file of the host
        "encrypt": {"format": "luks", "key-secret": "disk-key"},
    }


def _network(card: NetworkCard, machine: Machine) -> list[str]:
    """No option ROM: nothing boots from the network, whatever becomes of the disk."""
    mac = card.mac or mac_of(machine)
    options = ["-netdev", f"tap,id=network,ifname={card.tap},script=no,downscript=no"]
    return [*options, "-device", f"virtio-net-pci,netdev=network,mac={mac},romfile="]


def mac_of(machine: Machine) -> str:
    """The address of a machine that was given none: the same at each start, and not its neighbour's."""
    tail = hashlib.sha256(machine.description.id.encode()).digest()[:3]
    return "52:54:00:" + tail.hex(":")


def _firmware() -> list[str]:
    """OVMF that enforces Secure Boot: its variables can be written in SMM only."""
    options = ["-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1"]
    options += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={_CODE}"]
    return [*options, "-drive", "if=pflash,format=raw,unit=1,file=firmware-variables.fd"]


def _guest_agent() -> list[str]:
    channel = "socket,id=agent,path=run/guest-agent,server=on,wait=off"
    port = "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"
    return ["-device", "virtio-serial", "-chardev", channel, "-device", port]


def _make_variables(machine: Machine) -> None:
    """The machine's own firmware variables, with Microsoft's keys enrolled; made at the first start."""
    path = machine.folder / "firmware-variables.fd"
    if not path.exists():
        new = path.with_suffix(".new")
        shutil.copyfile(_VARIABLES, new)
        new.replace(path)


def _make_vtpm(unlocked: UnlockedMachine) -> None:
    """An encrypted vTPM with endorsement keys, made at the first start; complete or absent."""
    folder = unlocked.machine.folder
    if (folder / "vtpm").exists():
        return
    new = folder / "vtpm.new"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    with by_pipe(unlocked.vtpm_key) as key:
        command = ["swtpm_setup", "--tpm2", "--tpm-state", "dir://vtpm.new", "--createek", "--pcr-banks", "sha256"]
        command += ["--lock-nvram", "--overwrite", "--keyfile-fd", str(key), "--cipher", _CIPHER]
        _run(command, folder, descriptors=(key,))
    new.replace(folder / "vtpm")
    sync_folder(folder)


def _start_vtpm(unlocked: UnlockedMachine, channel: int) -> None:
    """swtpm ends by itself when the machine ends; as a daemon it leaves the working folder, so its paths are whole."""
    machine = unlocked.machine
    with by_pipe(unlocked.vtpm_key) as key:
        command = ["swtpm", "socket", "--tpm2", "--daemon", "--terminate", "--tpmstate", _vtpm_state(machine)]
        command += ["--ctrl", f"type=unixio,clientfd={channel}", "--key", f"fd={key},mode={_CIPHER},format=hex"]
        command += ["--log", f"file={machine.run_folder}/swtpm.log", "--pid", f"file={machine.run_folder}/swtpm.pid"]
        _run(command, machine.folder, descriptors=(key, channel))


def _vtpm_state(machine: Machine) -> str:
    return f"dir={machine.folder}/vtpm,mode=0600"


def _stop_vtpm(machine: Machine) -> None:
    """End a vTPM without a machine: one that an agent started just before it was killed."""
    deadline = time.monotonic() + _QUIT_PATIENCE
    while (pid := running_pid(machine.run_folder / "swtpm.pid", _vtpm_state(machine))) is not None:
        if time.monotonic() > deadline:
            raise VmFailure(f"The vTPM of {machine.name} (process {pid}) does not stop.")
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.02)


def _run(command: Sequence[str], folder: Path, *, descriptors: Sequence[int]) -> None:
    try:
        done = subprocess.run(  # noqa: S603  (a fixed program; what varies was read strictly)
            [*_NO_CORE, *command],
            cwd=folder,
            pass_fds=descriptors,
            capture_output=True,
            start_new_session=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise VmFailure(f"{command[0]} is not installed.") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise VmFailure(f"{command[0]} failed: {said[-300:]}")


def _detached(command: Sequence[str], folder: Path, *, descriptors: Sequence[int], log: int) -> None:
    """Start a program that belongs to nobody, so that the agent may end: `-daemonize` and the sandbox exclude
    each other in QEMU."""
    try:
        subprocess.run(  # noqa: S603  (a fixed program; what varies was read strictly)
            [*_NO_CORE, "setsid", "--fork", *command],
            cwd=folder,
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise VmFailure(f"{command[0]} could not be started: {error}.") from error
