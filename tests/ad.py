"""The Active Directory of the tests, with an account for every way in which a ticket can be wrong.

A test that wants it says so by the fixture `domain`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gssapi

from deploy import directory
from deploy.directory import Contents, Directory
from tests.kdc import REALM, Realm

NORMAL_ACCOUNT = 0x200
WORKSTATION = 0x1000
ACCOUNT_DISABLED = 0x2
NO_AUTH_DATA_REQUIRED = 0x2000000

CONTENTS = Contents(
    machines=("member", "stranger", "nested", "disabled", "leaver"),
    groups={
        "Guarded Hosts": ("member$", "disabled$", "leaver$", "Tier1 Hosts", "alice"),
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


class Domain(Directory, Realm):
    """The directory, and what its accounts send."""

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


@contextmanager
def started(folder: Path) -> Iterator[Domain]:
    """Provision the domain and run its KDC."""
    with directory.started(folder, CONTENTS) as made:
        yield Domain(made.folder, made.sids)
