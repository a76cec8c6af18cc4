"""A real Active Directory on this machine: Samba's KDC alone, one process, no root, a port of its own.

Its LDAP too where somebody has port 389 for it, which cannot be another. It is provisioned in four seconds by Debian's
python3, which alone has Samba's library, and is gone with whoever started it. The demo has one in Kerberos mode, and so
have tests; libkrb5 talks to it, in the same way as on a host.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deploy.localfabric import free_port
from deploy.realm import STOP_SECONDS, Realm, clean_environment, wait_for

ADDRESS = "127.0.0.2"  # Samba takes no domain controller at 127.0.0.1
PROVISION = Path(__file__).parent / "directory_provision.py"
SAMBA = "/usr/sbin/samba"


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a directory: `groups` with their members, `services` with their SPN, and `acts` done at the end.

    A machine is named without its dollar sign, and a member with it. The acts are those of `Directory.administer`.
    """

    machines: Sequence[str]
    groups: Mapping[str, Sequence[str]]
    services: Mapping[str, str]
    users: Sequence[str] = ()
    acts: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Directory(Realm):
    """The domain FABRIC.TEST, running; `sids` are those of its groups and machines, `address` is its controller's."""

    address: str
    sids: dict[str, str] = field(repr=False)

    def administer(self, act: str, *words: str) -> None:
        """Change the directory while the KDC runs; `directory_provision.py` lists the acts."""
        _administer(act, str(self.folder), *words)


def _administer(*words: str) -> str:
    command = ["/usr/bin/python3", "-B", str(PROVISION), *words]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words[:1])} failed: {done.stderr}")
    return done.stdout


def _environment() -> dict[str, str]:
    return clean_environment(TDB_NO_FSYNC="1")


@contextmanager
def started(
    folder: Path, contents: Contents, *, address: str = ADDRESS, with_ldap: bool = False
) -> Iterator[Directory]:
    """Provision a directory in a folder that does not exist or is empty, and run its KDC."""
    folder.mkdir(parents=True, exist_ok=True)
    port, password_port = free_port(), free_port()
    services, written = "kdc, ldap" if with_ldap else "kdc", json.dumps(asdict(contents))
    sids = json.loads(_administer("make", str(folder), address, str(port), str(password_port), services, written))
    directory = Directory(folder, address, sids)
    directory.configure(address, port)
    command = [SAMBA, "-i", "--no-process-group", "-M", "single", f"--configfile={folder}/etc/smb.conf"]
    with (folder / "log.out").open("wb") as log, _running(command, log.fileno()) as server:
        wait_for(directory, f"{contents.machines[0]}$", server, lambda: _said(folder))
        yield directory


def _said(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in sorted(folder.glob("log.*")))


@contextmanager
def _running(command: Sequence[str], log: int) -> "Iterator[subprocess.Popen[bytes]]":
    """Samba ends when its standard input does, and so with this process, however that ends."""
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=_environment(), start_new_session=True
    )
    try:
        yield server
    finally:
        try:
            server.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
