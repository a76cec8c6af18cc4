"""A real KDC that is no Active Directory: MIT's, no root, a port of its own, gone with the tests.

Its tickets have a PAC with its own checksums and nothing in it of accounts and groups (krb5 1.20). It runs after 0.3 s.
"""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.localfabric import free_port
from tests.kdc import REALM, STOP_SECONDS, Realm, clean_environment, wait_for

ADDRESS = "127.0.0.1"
PRINCIPALS = {"member": "member$", "hgs": "HTTP/hgs.fabric.test"}

_KDC_CONF = """[kdcdefaults]
 kdc_listen = {address}:{port}
 kdc_tcp_listen = {address}:{port}
[realms]
 {realm} = {{
  database_name = {folder}/database
  key_stash_file = {folder}/stash
  supported_enctypes = aes256-cts:normal
 }}
[logging]
 kdc = FILE:{folder}/log.kdc
"""


@contextmanager
def started(folder: Path) -> Iterator[Realm]:
    """Make a realm of the same name as the domain's, with a machine of the same name, and run its KDC."""
    realm, port = Realm(folder), free_port()
    realm.configure(ADDRESS, port)
    kdc_conf = folder / "kdc.conf"
    text = _KDC_CONF.format(realm=REALM, folder=folder, address=ADDRESS, port=port)
    kdc_conf.write_text(text, encoding="ascii")
    environment = clean_environment(KRB5_CONFIG=str(realm.configuration), KRB5_KDC_PROFILE=str(kdc_conf))
    _make(realm, environment)
    # It ends with this process, however that ends.
    command = ["setpriv", "--pdeathsig", "TERM", "/usr/sbin/krb5kdc", "-n", "-r", REALM]
    with _running(command, environment, folder / "log.out") as server:
        wait_for(realm, PRINCIPALS["member"], server, lambda: (folder / "log.kdc").read_text(errors="replace"))
        yield realm


def _make(realm: Realm, environment: Mapping[str, str]) -> None:
    realm.keytab("").parent.mkdir()
    _run(["/usr/sbin/kdb5_util", "create", "-s", "-P", "master", "-r", REALM], environment)
    lines = [
        f"addprinc -randkey {principal}\nktadd -k {realm.keytab(name)} {principal}\n"
        for name, principal in PRINCIPALS.items()
    ]
    _run(["/usr/sbin/kadmin.local", "-r", REALM], environment, "".join(lines))
    missing = [name for name in PRINCIPALS if not realm.keytab(name).exists()]
    assert not missing  # kadmin.local ends with 0 whatever becomes of its commands


def _run(command: Sequence[str], environment: Mapping[str, str], words: str = "") -> None:
    subprocess.run(command, env=environment, input=words, check=True, capture_output=True, text=True)


@contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> "Iterator[subprocess.Popen[bytes]]":
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
