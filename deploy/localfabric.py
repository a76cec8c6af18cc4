"""A whole fabric on this machine: the portal, its persons, lab hosts and a tenant's desk, each a real process.

The demo runs on it, and so do the tests of whole flows and the benchmarks. Nothing here is a stand-in: the portal is
served as in production, hosts run the shipped agent over a software TPM, the tenant uses the shipped command.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sys.executable).parent
CAPTURES = ROOT / "tests" / "vectors" / "qemu-ovmf"
START_SECONDS = 60
STOP_SECONDS = 10


class DidNotWork(Exception):
    """A step of the fabric failed; the message says which, and what the program printed."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def private_file(path: Path, content: str) -> Path:
    """Write a file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(content)
    return path


def run(command: Sequence[str], *, environment: Mapping[str, str] | None = None, stdin: str = "") -> str:
    """Run a program to its end and return what it printed; raise `DidNotWork` when it fails."""
    done = attempt(command, environment=environment, stdin=stdin)
    if done.returncode != 0:
        raise DidNotWork(f"{' '.join(command[:4])} … ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def attempt(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end, whatever that is."""
    return subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False, cwd=ROOT)


@dataclass
class Portal:
    """The portal in a folder of its own, on a port of this machine."""

    folder: Path
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)
    live: bool = True  # one ASGI process with websockets; else WSGI, as pages and machine APIs run in production
    workers: int = 1
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GUARDHOUSE_", "DJANGO_"))}
        return kept | {
            "GUARDHOUSE_STATE_DIR": str(self.folder),
            "GUARDHOUSE_SECRET_KEY_FILE": str(self.folder / "secret.key"),
            "GUARDHOUSE_LOOPBACK_ONLY": "1",
            "GUARDHOUSE_LOG_LEVEL": "INFO",
            **self.settings,
        }

    def set_up(self) -> None:
        """Make the folder, the secret key and the database."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "secret.key").exists():
            private_file(self.folder / "secret.key", secrets.token_urlsafe(48))
        self.manage("migrate", "--verbosity", "0")

    def manage(self, *words: str, stdin: str = "") -> str:
        return run([sys.executable, "manage.py", *words], environment=self.environment, stdin=stdin)

    def start(self) -> None:
        """Serve, and return when the portal answers."""
        command = [str(PROGRAMS / "granian"), "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", str(self.workers)]
        if self.live:
            command += ["--interface", "asginl", "fabric.asgi:application"]
        else:
            command += ["--interface", "wsgi", "--http", "1", "--no-ws", "--blocking-threads", "4"]
            command += ["fabric.wsgi:application"]
        with (self.folder / "portal.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise DidNotWork(f"The portal did not start:\n{self.log()[-3000:]}")
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/attestation/v1/info", timeout=2) as answer:  # noqa: S310  (loopback)
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def log(self) -> str:
        return (self.folder / "portal.log").read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the portal as a power cut would: no handler runs, in any of its processes."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, how)
            self.process.wait(STOP_SECONDS)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process = None

    def add_person(self, name: str, role: str, *, tenant: str = "") -> str:
        """Let a person in and return the password made for them."""
        password = f"{secrets.choice(WORDS)}-{secrets.choice(WORDS)}-{secrets.randbelow(900) + 100}"
        words = ["add_person", name, "--role", role, *(["--tenant", tenant] if tenant else [])]
        self.manage(*words, stdin=f"{password}\n")
        return password

    def trust_maker(self, authority: Path) -> None:
        """Trust the private CA of the lab's TPM maker."""
        for file in ("swtpm-localca-rootca-cert.pem", "issuercert.pem"):
            self.manage("trust_authority", str(authority / file), "--provenance", "made by this lab")


WORDS = (
    "amber",
    "birch",
    "copper",
    "dune",
    "ember",
    "fjord",
    "garnet",
    "harbor",
    "indigo",
    "juniper",
    "kelp",
    "linden",
)


@dataclass
class LabHost:
    """A guarded host: the shipped agent over a software TPM that booted a captured log."""

    name: str
    folder: Path
    capture: str
    authority: Path
    keytab: Path | None = None  # of its machine account, where there is a directory
    daemon: "subprocess.Popen[bytes] | None" = None

    def power_on(self) -> None:
        log = CAPTURES / self.capture / "eventlog.bin"
        words = ["lab", "host", "--name", self.name, "--dir", str(self.folder), "--boot-log", str(log)]
        run([*GUARDHOUSE, *words, "--ca-dir", str(self.authority)])

    def power_off(self) -> None:
        self.stop_agent()
        attempt([*GUARDHOUSE, "lab", "stop", "--dir", str(self.folder)])

    def enrol(self, server: str, mode: str = "tpm") -> str:
        words = ["--server", server, "--mode", mode, "--state-dir", str(self.folder)]
        words += ["--keytab", str(self.keytab)] if mode == "kerberos" else []
        return run([*GUARDHOUSE, "host", "enrol", *words])

    def rehearse(self) -> "subprocess.CompletedProcess[str]":
        return attempt([*GUARDHOUSE, "host", "rehearse", "--state-dir", str(self.folder)])

    def attest(self) -> "subprocess.CompletedProcess[str]":
        return attempt([*GUARDHOUSE, "host", "attest", "--state-dir", str(self.folder)])

    def run_agent(self) -> None:
        """Start the daemon."""
        with (self.folder / "agent.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [*GUARDHOUSE, "host", "run", "--state-dir", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop_agent(self) -> None:
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait(STOP_SECONDS)
            self.daemon = None

    def vm(self, act: str, bundle: Path, *options: str) -> "subprocess.CompletedProcess[str]":
        """Make (of an order), start, stop or ask after a VM; the answer's exit code says how it went."""
        identity = ["--state-dir", str(self.folder)] if act in ("provision", "start") else []
        return attempt([*GUARDHOUSE, "host", "vm", act, str(bundle), *identity, *options])


GUARDHOUSE = (str(PROGRAMS / "guardhouse"),)


@dataclass
class TenantDesk:
    """The tenant's own machine: owner key, the fabric's guardian, protected virtual machines."""

    folder: Path
    name: str

    def new_owner(self) -> str:
        """Make the owner key and return its fingerprint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        passphrase = private_file(self.folder / "passphrase", secrets.token_urlsafe(24))
        words = ["owner", "new", "--name", self.name, "--out", str(self.owner)]
        self._tenant(*words, "--passphrase-file", str(passphrase))
        shown = self._tenant("owner", "show", str(self.owner)).split()
        return shown[shown.index("fingerprint") + 1]

    @property
    def owner(self) -> Path:
        return self.folder / "owner.key"

    def protect(self, server: str, *, fingerprint: str, vm: str, level: str = "shielded") -> Path:
        """Import the fabric's guardian and hand a small VM to it; return the bundle."""
        kept = self.folder / "guardians"
        self._tenant("guardian", "fetch", server, "--fingerprint", fingerprint, "--folder", str(kept))
        bundle = self.folder / vm
        words = ["protect", "--owner", str(self.owner), "--passphrase-file", str(self.folder / "passphrase")]
        words += ["--guardian", str(kept / f"{fingerprint}.json"), "--name", vm, "--level", level]
        words += ["--demo-disk", "--memory", "128", "--out", str(bundle)]
        self._tenant(*words)
        return bundle

    def _tenant(self, *words: str) -> str:
        return run([*GUARDHOUSE, "tenant", *words])
