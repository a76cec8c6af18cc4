"""Makes the Active Directory of the tests. Run it with Debian's own python3, which has Samba's library.

    ad_provision.py make FOLDER ADDRESS KDC_PORT PASSWORD_PORT    prints the SIDs of groups and machines as JSON
    ad_provision.py new-password FOLDER ACCOUNT PASSWORD
    ad_provision.py export FOLDER PRINCIPAL KEYTAB                adds its keys to the file
    ad_provision.py leave FOLDER GROUP ACCOUNT

The last three work while the KDC runs. Nothing needs root but the ACLs on sysvol, and those are left out: nobody reads
group policies here.
"""

import json
import logging
import os
import sys
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
NO_AUTH_DATA_REQUIRED = 0x2000000
TRUSTED_TO_AUTHENTICATE_FOR_DELEGATION = 0x1000000
NORMAL_ACCOUNT = 0x200
ACCOUNT_DISABLED = 0x2
WORKSTATION = 0x1000

GROUPS = ("Guarded Hosts", "Tier1 Hosts")
MACHINES = ("member", "stranger", "nested", "disabled", "leaver")
MEMBERS = {"Guarded Hosts": ["member$", "disabled$", "leaver$", "Tier1 Hosts", "alice"], "Tier1 Hosts": ["nested$"]}
SERVICES = {"svc-hgs": "HTTP/hgs", "svc-other": "HTTP/other", "svc-plain": "HTTP/plain", "svc-rotated": "HTTP/rotated"}
SERVICE_DOMAIN = ".fabric.test"


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


def configure(settings: Path, folder: Path, kdc_port: str, password_port: str) -> None:
    """Leave the KDC alone of all services, on a port of ours."""
    ours = (
        f"[global]\n\tserver services = kdc\n\tkrb5 port = {kdc_port}\n\tkpasswd port = {password_port}\n"
        f"\tpid directory = {folder}/run\n\tncalrpc dir = {folder}/run/ncalrpc\n\tlog file = {folder}/log.samba\n"
    )
    # Provisioning names all services but DNS; the last line counts, and most have ports that only one domain can have.
    theirs = ("dns forwarder", "server services")
    lines = [line for line in settings.read_text().splitlines() if line.strip().partition(" =")[0] not in theirs]
    settings.write_text("\n".join(lines).replace("[global]\n", ours, 1))
    (folder / "run" / "ncalrpc").mkdir(parents=True, exist_ok=True)
    (folder / "keytabs").mkdir()


def change(database: Any, account: str, **values: str) -> None:
    found = database.search(database.domain_dn(), expression=f"(sAMAccountName={account})", attrs=[])
    message = ldb.Message(found[0].dn)
    for name, value in values.items():
        message[name] = ldb.MessageElement(value, ldb.FLAG_MOD_REPLACE, name.replace("_", "-"))
    database.modify(message)


def fill(database: Any) -> None:
    for group in GROUPS:
        database.newgroup(group)
    for machine in MACHINES:
        database.newcomputer(machine, prepare_oldjoin=True)
        database.setpassword(
            f"(sAMAccountName={machine}$)", f"Machine.{machine}.Pw.1", force_change_at_next_login=False
        )
    database.newuser("alice", "Alice.Passw0rd.1")
    for group, members in MEMBERS.items():
        database.add_remove_group_members(group, members, add_members_operation=True)
    for service, name in SERVICES.items():
        database.newuser(service, "Svc.Passw0rd.1")
        spn = name + SERVICE_DOMAIN
        change(database, service, servicePrincipalName=spn, msDS_SupportedEncryptionTypes=AES_ONLY)
    change(
        database,
        "svc-other",
        userAccountControl=str(NORMAL_ACCOUNT | TRUSTED_TO_AUTHENTICATE_FOR_DELEGATION),
        msDS_AllowedToDelegateTo="HTTP/hgs" + SERVICE_DOMAIN,
    )
    change(database, "svc-plain", userAccountControl=str(NORMAL_ACCOUNT | NO_AUTH_DATA_REQUIRED))


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


def make(folder: Path, address: str, kdc_port: str, password_port: str) -> None:
    configure(make_domain(folder, address), folder, kdc_port, password_port)
    parameters, database = opened(folder)
    fill(database)
    principals = {name: f"{name}$" for name in MACHINES} | {name: name for name in ("alice", "svc-other")}
    principals |= {name.partition("/")[2]: name + SERVICE_DOMAIN for name in SERVICES.values()}
    export(parameters, {folder / "keytabs" / f"{name}.keytab": whose for name, whose in principals.items()})
    # Its keys had to be there first: an account that is disabled when they are exported gives none, and no error.
    change(database, "disabled$", userAccountControl=str(WORKSTATION | ACCOUNT_DISABLED))
    names = (*GROUPS, *(f"{machine}$" for machine in MACHINES))
    print(json.dumps({name: sid_of(database, name) for name in names}))


def main(act: str, folder: Path, *words: str) -> None:
    os.environ["TDB_NO_FSYNC"] = "1"
    if act == "make":
        make(folder, *words)
        return
    parameters, database = opened(folder)
    first, second = words
    if act == "new-password":
        database.setpassword(f"(sAMAccountName={first})", second, force_change_at_next_login=False)
    elif act == "export":
        export(parameters, {Path(second): first})
    elif act == "leave":
        database.add_remove_group_members(first, [second], add_members_operation=False)
    else:
        raise SystemExit(f"{act} is none of the acts")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
