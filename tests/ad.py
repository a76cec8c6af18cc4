"""The Active Directory of the tests, with an account for every way in which a ticket can be wrong.

A test that wants it says so by the fixture `domain`.
"""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gssapi

from deploy import directory
from deploy.directory import ADDRESS, Contents, Directory
from tests.kdc import REALM, Realm

NORMAL_ACCOUNT = 0x200
WORKSTATION = 0x1000
ACCOUNT_DISABLED = 0x2
NO_AUTH_DATA_REQUIRED = 0x2000000
LDAP_PORT = 389
TRIES = 20

CONTENTS = Contents(
    machines=("member", "stranger", "nested", "disabled", "leaver", "mover", "goner"),
    groups={
        "Guarded Hosts": ("member$", "disabled$", "leaver$", "mover$", "goner$", "Tier1 Hosts", "alice"),
        "Tier1 Hosts": ("nested$",),
    },
    services={f"svc-{name}": f"HTTP/{name}.fabric.test" for name in ("hgs", "other", "plain", "rotated")},
    users=("alice",),
    acts=(
        ("delegate", "svc-other", "HTTP/hgs.fabric.test"),
        ("set-flags", "svc-plain", str(NORMAL_ACCOUNT | NO_AUTH_DATA_REQUIRED)),
        ("set-flags", "disabled$", str(WORKSTATION | ACCOUNT_DISABLED)),
    ),
)


@dataclass(frozen=True)
class Domain(Directory, Realm):
    """The directory, and what its accounts send."""

    has_ldap: bool

    def keytab(self, name: str) -> Path:
        """Return the file with an account's keys, or with those of a service by its host's name."""
        service = super().keytab(f"HTTP/{name}.fabric.test")
        return service if service.exists() else super().keytab(name)

    def acting_for(self, account: str) -> gssapi.Credentials:
        """Return what the service `svc-other` gets to act for an account (S4U2Self), which the domain lets it."""
        keytab = str(self.keytab("svc-other"))
        own = gssapi.Credentials(
            name=gssapi.Name(f"svc-other@{REALM}", gssapi.NameType.kerberos_principal),
            usage="both",
            store={"client_keytab": keytab, "keytab": keytab, "ccache": f"MEMORY:{os.urandom(8).hex()}"},
        )
        return own.impersonate(gssapi.Name(f"{account}@{REALM}", gssapi.NameType.kerberos_principal))


def may_have_ldap() -> bool:
    """Say whether we may have its port: root may, others where net.ipv4.ip_unprivileged_port_start lets them."""
    try:
        free_address()
    except PermissionError:
        return False
    return True


def free_address() -> str:
    """Return a loopback address whose port for LDAP nobody has: two runs of the tests are not in each other's way."""
    for _ in range(TRIES):
        address = "127.{}.{}.{}".format(*(2 + byte % 250 for byte in os.urandom(3)))
        with socket.socket() as tried:
            try:
                tried.bind((address, LDAP_PORT))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise
            return address
    raise RuntimeError("no loopback address has its port for LDAP free")


@contextmanager
def started(folder: Path, *, with_ldap: bool = False) -> Iterator[Domain]:
    """Provision the domain and run its KDC, and its LDAP where that is asked for."""
    address = free_address() if with_ldap else ADDRESS
    with directory.started(folder, CONTENTS, address=address, with_ldap=with_ldap) as made:
        yield Domain(made.folder, made.address, made.sids, with_ldap)
