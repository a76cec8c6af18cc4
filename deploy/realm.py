"""A Kerberos realm on this machine, whoever's KDC it is: where libkrb5 finds it, and how accounts log in."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gssapi
from gssapi.raw.misc import GSSError

REALM = "FABRIC.TEST"
START_SECONDS = 30
STOP_SECONDS = 10

_KRB5_CONF = """[libdefaults]
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
class Realm:
    """The realm FABRIC.TEST, with a keytab of each account and each service."""

    folder: Path

    @property
    def configuration(self) -> Path:
        return self.folder / "krb5.conf"

    def keytab(self, name: str) -> Path:
        """Return the file with the keys of a machine, a user, a service, or an SPN."""
        return self.folder / "keytabs" / f"{name.replace('/', '-')}.keytab"

    def configure(self, address: str, port: int) -> None:
        """Say where its KDC is, and that no DNS server has a say in anything."""
        text = _KRB5_CONF.format(realm=REALM, address=address, port=port)
        self.configuration.write_text(text, encoding="ascii")

    def credentials(self, account: str, cache: str | None = None) -> gssapi.Credentials:
        """Log the account in; tickets stay in `cache`, which is new and in memory when none is named."""
        cache = cache or f"MEMORY:{os.urandom(8).hex()}"
        return gssapi.Credentials(
            name=gssapi.Name(f"{account}@{REALM}", gssapi.NameType.kerberos_principal),
            usage="initiate",
            store={"client_keytab": str(self.keytab(account.rstrip("$"))), "ccache": cache},
        )


def clean_environment(**more: str) -> dict[str, str]:
    """Nothing of ours: another Python would stumble over PYTHONPATH, and Kerberos over what this process has set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KRB5"))}
    return kept | more


def wait_for(realm: Realm, account: str, server: "subprocess.Popen[bytes]", log: Callable[[], str]) -> None:
    """Wait until somebody can log in, which is what a KDC is there for."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with using(realm):
                realm.credentials(account)
            return
        except GSSError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the KDC did not start: {error}\n{log()[-2000:]}") from error
            time.sleep(0.02)


@contextmanager
def using(realm: Realm) -> Iterator[None]:
    """Let libkrb5, here and in children, know of the realm and of nothing that the caller's environment names."""
    before = {name: value for name, value in os.environ.items() if name.startswith("KRB5")}
    for name in before:
        del os.environ[name]
    os.environ["KRB5_CONFIG"] = str(realm.configuration)
    try:
        yield
    finally:
        del os.environ["KRB5_CONFIG"]
        os.environ.update(before)
