"""A real Active Directory for tests: Samba's KDC alone, one process, no root, a port of its own, gone with the tests.

It is provisioned in four seconds by Debian's python3, which alone has Samba's library. A test that wants it says so by
the fixture `domain`; libkrb5 talks to it, in the same way as on a host.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import gssapi

from deploy.localfabric import free_port
from tests.kdc import REALM, STOP_SECONDS, Realm, clean_environment, wait_for

ADDRESS = "127.0.0.2"  # Samba takes no domain controller at 127.0.0.1
PROVISION = Path(__file__).parent / "ad_provision.py"
SAMBA = "/usr/sbin/samba"


@dataclass(frozen=True)
class Domain(Realm):
    """The domain FABRIC.TEST with its machines, a user and services; `sids` are those of groups and machines."""

    sids: dict[str, str] = field(repr=False)

    def acting_for(self, account: str) -> gssapi.Credentials:
        """Return what the service `svc-other` gets to act for an account (S4U2Self), which the domain lets it."""
        keytab = str(self.keytab("svc-other"))
        own = gssapi.Credentials(
            name=gssapi.Name(f"svc-other@{REALM}", gssapi.NameType.kerberos_principal),
            usage="both",
            store={"client_keytab": keytab, "keytab": keytab, "ccache": f"MEMORY:{os.urandom(8).hex()}"},
        )
        return own.impersonate(gssapi.Name(f"{account}@{REALM}", gssapi.NameType.kerberos_principal))

    def administer(self, act: str, *words: str) -> None:
        """Change the directory while the KDC runs; `tests/ad_provision.py` lists the acts."""
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
def started(folder: Path) -> Iterator[Domain]:
    """Provision a domain and run its KDC."""
    port, password_port = free_port(), free_port()
    sids = json.loads(_administer("make", str(folder), ADDRESS, str(port), str(password_port)))
    domain = Domain(folder, sids)
    domain.configure(ADDRESS, port)
    command = [SAMBA, "-i", "--no-process-group", "-M", "single", f"--configfile={folder}/etc/smb.conf"]
    with (folder / "log.out").open("wb") as log, _running(command, log.fileno()) as server:
        wait_for(domain, "member$", server, lambda: _said(folder))
        yield domain


def _said(folder: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in sorted(folder.glob("log.*")))


@contextmanager
def _running(command: Sequence[str], log: int) -> "Iterator[subprocess.Popen[bytes]]":
    """Samba ends when its standard input does, and so with this process, however that ends."""
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=_environment())
    assert server.stdin is not None
    try:
        yield server
    finally:
        server.stdin.close()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
