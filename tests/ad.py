"""A real Active Directory for tests: Samba's KDC alone, one process, no root, a port of its own, gone with the tests.

It is provisioned in four seconds by Debian's python3, which alone has Samba's library. A test that wants it says so by
the fixture `domain`; libkrb5 talks to it, in the same way as on a host.
"""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import gssapi
from gssapi.raw import ChannelBindings
from gssapi.raw.misc import GSSError

from deploy.localfabric import free_port

REALM = "FABRIC.TEST"
ADDRESS = "127.0.0.2"  # Samba takes no domain controller at 127.0.0.1
START_SECONDS = 30
STOP_SECONDS = 10
PROVISION = Path(__file__).parent / "ad_provision.py"
SAMBA = "/usr/sbin/samba"
SPNEGO = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")
KERBEROS = gssapi.MechType.kerberos
MUTUAL = gssapi.RequirementFlag.mutual_authentication
BODY = b'{"transport_public": "AAAA"}'

KRB5_CONF = """[libdefaults]
 default_realm = {realm}
 dns_lookup_realm = false
 dns_lookup_kdc = false
 dns_canonicalize_hostname = false
 rdns = false
 forwardable = true
[realms]
 {realm} = {{
  kdc = {address}:{port}
 }}
[domain_realm]
 .fabric.test = {realm}
"""


@dataclass(frozen=True)
class Domain:
    """The domain FABRIC.TEST with its machines, a user and services; `sids` are those of groups and machines."""

    folder: Path
    sids: dict[str, str] = field(repr=False)

    @property
    def configuration(self) -> Path:
        return self.folder / "krb5.conf"

    def keytab(self, name: str) -> Path:
        return self.folder / "keytabs" / f"{name}.keytab"

    def credentials(self, account: str, cache: str | None = None) -> gssapi.Credentials:
        """Log the account in; tickets stay in `cache`, which is new and in memory when none is named."""
        cache = cache or f"MEMORY:{os.urandom(8).hex()}"
        return gssapi.Credentials(
            name=gssapi.Name(f"{account}@{REALM}", gssapi.NameType.kerberos_principal),
            usage="initiate",
            store={"client_keytab": str(self.keytab(account.rstrip("$"))), "ccache": cache},
        )

    def acting_for(self, account: str) -> gssapi.Credentials:
        """Return what the service `svc-other` gets to act for an account (S4U2Self), which the domain lets it."""
        keytab = str(self.keytab("svc-other"))
        own = gssapi.Credentials(
            name=gssapi.Name(f"svc-other@{REALM}", gssapi.NameType.kerberos_principal),
            usage="both",
            store={"client_keytab": keytab, "keytab": keytab, "ccache": f"MEMORY:{os.urandom(8).hex()}"},
        )
        return own.impersonate(gssapi.Name(f"{account}@{REALM}", gssapi.NameType.kerberos_principal))

    def begin(
        self,
        account: str | gssapi.Credentials,
        *,
        service: str = "hgs",
        body: bytes | None = BODY,
        flags: gssapi.RequirementFlag = MUTUAL,
        mech: gssapi.OID = SPNEGO,
        cache: str | None = None,
    ) -> tuple[gssapi.SecurityContext, bytes]:
        """Return a host's side of the conversation and its token; `body` None leaves the ticket unbound."""
        bound = None if body is None else ChannelBindings(application_data=hashlib.sha256(body).digest())
        context = gssapi.SecurityContext(
            name=gssapi.Name(f"HTTP@{service}.fabric.test", gssapi.NameType.hostbased_service),
            creds=self.credentials(account, cache) if isinstance(account, str) else account,
            mech=mech,
            usage="initiate",
            flags=flags,
            channel_bindings=bound,
        )
        token = context.step()
        assert token is not None
        return context, token

    def administer(self, act: str, *words: str) -> None:
        """Change the directory while the KDC runs; `tests/ad_provision.py` lists the acts."""
        _administer(act, str(self.folder), *words)


def _administer(*words: str) -> str:
    command = ["/usr/bin/python3", "-B", str(PROVISION), *words]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words[:1])} failed: {done.stderr}")
    return done.stdout


def _environment(**more: str) -> dict[str, str]:
    """Nothing of ours: another Python would stumble over PYTHONPATH, and Kerberos over what a test has set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KRB5"))}
    return kept | {"TDB_NO_FSYNC": "1"} | more


@contextmanager
def started(folder: Path) -> Iterator[Domain]:
    """Provision a domain and run its KDC."""
    port, password_port = free_port(), free_port()
    sids = json.loads(_administer("make", str(folder), ADDRESS, str(port), str(password_port)))
    domain = Domain(folder, sids)
    domain.configuration.write_text(KRB5_CONF.format(realm=REALM, address=ADDRESS, port=port), encoding="ascii")
    command = [SAMBA, "-i", "--no-process-group", "-M", "single", f"--configfile={folder}/etc/smb.conf"]
    with (folder / "log.out").open("wb") as log, _running(command, log.fileno()) as server:
        _wait(server, domain)
        yield domain


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


def _wait(server: "subprocess.Popen[bytes]", domain: Domain) -> None:
    """Wait until somebody can log in, which is what tests need."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with using(domain):
                domain.credentials("member$")
            return
        except GSSError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                log = "".join(path.read_text(errors="replace") for path in sorted(domain.folder.glob("log.*")))
                raise RuntimeError(f"the KDC did not start: {error}\n{log[-2000:]}") from error
            time.sleep(0.02)


@contextmanager
def using(domain: Domain) -> Iterator[None]:
    """Let libkrb5 in this process know of the domain, and of nothing that the caller's environment names."""
    before = {name: value for name, value in os.environ.items() if name.startswith("KRB5")}
    for name in before:
        del os.environ[name]
    os.environ["KRB5_CONFIG"] = str(domain.configuration)
    try:
        yield
    finally:
        del os.environ["KRB5_CONFIG"]
        os.environ.update(before)
