"""Makes the Active Directory of `deploy/directory.py`. Run it with Debian's own python3, which has Samba's library.

    directory_provision.py make FOLDER ADDRESS KDC_PORT PASSWORD_PORT SERVICES CONTENTS
    directory_provision.py new-password FOLDER ACCOUNT PASSWORD
    directory_provision.py export FOLDER PRINCIPAL KEYTAB             adds its keys to the file
    directory_provision.py join FOLDER GROUP ACCOUNT
    directory_provision.py leave FOLDER GROUP ACCOUNT
    directory_provision.py delegate FOLDER SERVICE SPN                it may act for others before the SPN
    directory_provision.py set-flags FOLDER ACCOUNT FLAGS             userAccountControl, a number
    directory_provision.py delete FOLDER ACCOUNT

The first prints the SIDs of groups and machines as JSON; the others work while the KDC runs. Nothing needs root but the
ACLs on sysvol, and those are left out: nobody reads group policies here. SERVICES are Samba's words for what it runs,
CONTENTS is the JSON of `Contents`.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ldb
import samba.dckeytab  # noqa: F401  (it gives `Net` its `export_keytab`)
from samba.auth import system_session
from samba.credentials import DONT_USE_KERBEROS, Credentials
from samba.dsdb import DS_DOMAIN_FUNCTION_2008_R2
from samba.net import Net
from samba.param import LoadParm
from samba.provision import provision
from samba.samdb import SamDB

AES_ONLY = "24"  # msDS-SupportedEncryptionTypes; without it a service's tickets are RC4
TRUSTED_TO_AUTHENTICATE_FOR_DELEGATION = 0x1000000
NORMAL_ACCOUNT = 0x200


def make_domain(folder: Path, address: str) -> Path:
    """Provision the domain and return its smb.conf."""
    base = folder / "base.conf"
    base.write_text("[global]\n", encoding="ascii")
    parameters = LoadParm()
    parameters.load(str(base))
    parameters.set("interfaces", f"{address}/8")
    parameters.set("bind interfaces only", "yes")
    provision(
        logging.getLogger("provision"),
        system_session(),
        targetdir=str(folder),
        realm="FABRIC.TEST",
        domain="FABRIC",
        hostname="dc1",
        hostip=address,
        adminpass="Passw0rd.Adm1n",
        serverrole="active directory domain controller",
        dns_backend="NONE",
        dom_for_fun_level=DS_DOMAIN_FUNCTION_2008_R2,
        lp=parameters,
        use_ntvfs=False,
        skip_sysvolacl=True,
        useeadb=False,
    )
    return folder / "etc" / "smb.conf"


def configure(settings: Path, folder: Path, kdc_port: str, password_port: str, services: str) -> None:
    """Leave these alone of all services, and the KDC on a port of ours."""
    ours = (
        f"[global]\n\tserver services = {services}\n\ttls enabled = no\n"
        f"\tkrb5 port = {kdc_port}\n\tkpasswd port = {password_port}\n"
        f"\tpid directory = {folder}/run\n\tncalrpc dir = {folder}/run/ncalrpc\n\tlog file = {folder}/log.samba\n"
    )
    # Provisioning names all services but DNS; the last line counts, and most have ports that only one domain can have.
    theirs = ("dns forwarder", "server services")
    lines = [line for line in settings.read_text().splitlines() if line.strip().partition(" =")[0] not in theirs]
    settings.write_text("\n".join(lines).replace("[global]\n", ours, 1))
    (folder / "run" / "ncalrpc").mkdir(parents=True, exist_ok=True)
    (folder / "keytabs").mkdir()


def dn_of(database: Any, account: str) -> Any:
    return database.search(database.domain_dn(), expression=f"(sAMAccountName={account})", attrs=[])[0].dn


def change(database: Any, account: str, flag: int = ldb.FLAG_MOD_REPLACE, **values: str) -> None:
    message = ldb.Message(dn_of(database, account))
    for name, value in values.items():
        message[name] = ldb.MessageElement(value, flag, name.replace("_", "-"))
    database.modify(message)


def fill(database: Any, contents: Any) -> None:
    for group in contents["groups"]:
        database.newgroup(group)
    for machine in contents["machines"]:
        database.newcomputer(machine, prepare_oldjoin=True)
        database.setpassword(
            f"(sAMAccountName={machine}$)", f"Machine.{machine}.Pw.1", force_change_at_next_login=False
        )
    for person in contents["users"]:
        database.newuser(person, f"Person.{person}.Pw.1")
    for group, members in contents["groups"].items():
        database.add_remove_group_members(group, members, add_members_operation=True)
    for service, spn in contents["services"].items():
        database.newuser(service, "Svc.Passw0rd.1")
        change(database, service, servicePrincipalName=spn, msDS_SupportedEncryptionTypes=AES_ONLY)


def export(parameters: Any, keytabs: dict[Path, str]) -> None:
    credentials = Credentials()
    credentials.guess(parameters)
    credentials.set_kerberos_state(DONT_USE_KERBEROS)
    network = Net(credentials, parameters)
    for keytab, principal in keytabs.items():
        network.export_keytab(keytab=str(keytab), principal=principal)


def sid_of(database: Any, name: str) -> str:
    found = database.search(database.domain_dn(), expression=f"(sAMAccountName={name})", attrs=["objectSid"])
    return str(database.schema_format_value("objectSid", found[0]["objectSid"][0]).decode())


def opened(folder: Path) -> tuple[Any, Any]:
    parameters = LoadParm()
    parameters.load(str(folder / "etc" / "smb.conf"))
    url = str(folder / "private" / "sam.ldb")
    return parameters, SamDB(url=url, session_info=system_session(), lp=parameters)


def make(folder: Path, address: str, kdc_port: str, password_port: str, services: str, written: str) -> None:
    contents = json.loads(written)
    configure(make_domain(folder, address), folder, kdc_port, password_port, services)
    parameters, database = opened(folder)
    fill(database, contents)
    # Nobody here has DNS, so the controller is named by its address.
    change(database, "DC1$", ldb.FLAG_MOD_ADD, servicePrincipalName=f"ldap/{address}")
    principals = {name: f"{name}$" for name in contents["machines"]} | {name: name for name in contents["users"]}
    principals |= {name: name for name in contents["services"]} | {spn: spn for spn in contents["services"].values()}
    files = {folder / "keytabs" / f"{name.replace('/', '-')}.keytab": whose for name, whose in principals.items()}
    export(parameters, files)
    # A service has one file for all: what it is asked for as, and what it logs in as itself.
    for service, spn in contents["services"].items():
        export(parameters, {folder / "keytabs" / f"{spn.replace('/', '-')}.keytab": service})
    # Their keys had to be there first: an account that is disabled when they are exported gives none, and no error.
    for act, *words in contents["acts"]:
        ACTS[act](parameters, database, *words)
    names = (*contents["groups"], *(f"{machine}$" for machine in contents["machines"]))
    print(json.dumps({name: sid_of(database, name) for name in names}))


def set_password(parameters: Any, database: Any, account: str, password: str) -> None:
    database.setpassword(f"(sAMAccountName={account})", password, force_change_at_next_login=False)


def add_keys(parameters: Any, database: Any, principal: str, keytab: str) -> None:
    export(parameters, {Path(keytab): principal})


def join(parameters: Any, database: Any, group: str, account: str) -> None:
    database.add_remove_group_members(group, [account], add_members_operation=True)


def leave(parameters: Any, database: Any, group: str, account: str) -> None:
    database.add_remove_group_members(group, [account], add_members_operation=False)


def delegate(parameters: Any, database: Any, service: str, spn: str) -> None:
    flags = NORMAL_ACCOUNT | TRUSTED_TO_AUTHENTICATE_FOR_DELEGATION
    change(database, service, userAccountControl=str(flags), msDS_AllowedToDelegateTo=spn)


def set_flags(parameters: Any, database: Any, account: str, flags: str) -> None:
    change(database, account, userAccountControl=flags)


def delete(parameters: Any, database: Any, account: str) -> None:
    database.delete(dn_of(database, account))


ACTS: dict[str, Callable[..., None]] = {
    "new-password": set_password,
    "export": add_keys,
    "join": join,
    "leave": leave,
    "delegate": delegate,
    "set-flags": set_flags,
    "delete": delete,
}


def main(act: str, folder: Path, *words: str) -> None:
    os.environ["TDB_NO_FSYNC"] = "1"
    if act == "make":
        make(folder, *words)
    else:
        ACTS[act](*opened(folder), *words)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
