"""A real Debian guest, from a signed template and shielding data to what it says of itself over the network.

Not part of `make test`: the template is built from Debian's packages and the guest boots without KVM, which takes
minutes. `make guest` runs it, as root: the network is a tap device of this machine.
"""

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from deploy.democast import Fabric
from deploy.localfabric import GUARDHOUSE, LabHost, Portal, attempt, free_port, private_file, run

pytestmark = pytest.mark.guest
ROOT = Path(__file__).resolve().parent.parent.parent
OWNER, SLUG, VM, LEVEL = "Kontor Nord", "kontor-nord", "web1", "shielded"
TAP, HERE, THERE, MAC = "guardhouse-t0", "198.51.100.1/30", "198.51.100.2/30", "52:54:00:6b:6e:01"  # RFC 5737
USER_DATA = """#cloud-config
hostname: "@HostName@"
disable_root: false
ssh_pwauth: false
users:
  - name: root
    ssh_authorized_keys: ["{login}"]
write_files:
  - path: /etc/app/database
    permissions: "0600"
    content: "@Secret-db@"
"""
NETWORK = """version: 2
ethernets:
  lan:
    match: {macaddress: "@MACAddr-1@"}
    addresses: ["@IP4Addr-1@"]
"""
RECIPE = """
name = "web servers"
level = "shielded"
user_data = "user-data.yaml"
network_config = "network.yaml"

[[template]]
name = "debian-12"
version = "12.1"
signer = "{signer}"
rule = "at-least"

[[file]]
path = "/etc/ssh/ssh_host_ed25519_key"
from = "host"

[[file]]
path = "/etc/app/ca.pem"
from = "ca.pem"
mode = "0644"

[secrets]
db = {{from = "db"}}
"""
BOOT_PATIENCE = 420.0  # without KVM, on a machine that does other things
# What the guest is asked, a line each: what it says is in the answer under the first word.
QUESTIONS = {
    "name": "hostname",
    "secret": "cat /etc/app/database",
    "file": "cat /etc/app/ca.pem && stat -c %a /etc/app/ca.pem",
    "keys": "ls /etc/ssh/ssh_host_*",
    "tpm": "cat /sys/class/tpm/tpm0/tpm_version_major && test -c /dev/tpm0",
    "disks": "lsblk --nodeps --noheadings --output NAME,RO,LABEL",
    "write": "dd if=/dev/zero of=/dev/vdb bs=512 count=1 2>&1; true",
    "secure boot": "mokutil --sb-state",
    "failed": "systemctl --failed --no-legend",
    "serial port": "cat /sys/class/tty/ttyS0/type",  # 0: the kernel has a name for one, and found none
    "cloud-init": "cloud-init status --wait --long",
    "instance": "cat /var/lib/cloud/data/instance-id",
}


@dataclass
class Desk:
    """The tenant's own machine, and in it what a new machine gets."""

    folder: Path

    def run(self, *words: str | Path) -> str:
        environment = os.environ | {
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "GUARDHOUSE_PASSPHRASE_FILE": str(private_file(self.folder / "passphrase", "a long one for the desk")),
        }
        return run([*GUARDHOUSE, *map(str, words)], environment=environment)

    def write(self, name: str, content: str) -> Path:
        return private_file(self.folder / name, content)

    def ssh_key(self, name: str) -> str:
        """Make a key pair and return its public half."""
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / name)])
        return (self.folder / f"{name}.pub").read_text().strip()

    def asked(self, host_key: str, question: str) -> str:
        """Ask the guest over SSH; one with another host key than this is not talked to."""
        known = self.write("known_hosts", f"{THERE.partition('/')[0]} {' '.join(host_key.split()[:2])}\n")
        options = [f"UserKnownHostsFile={known}", "StrictHostKeyChecking=yes", "ConnectTimeout=5", "BatchMode=yes"]
        words = [word for option in options for word in ("-o", option)]
        target = f"root@{THERE.partition('/')[0]}"
        return run(["ssh", "-F", "/dev/null", "-i", str(self.folder / "login"), *words, target, question])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "desk").mkdir()
    return Desk(tmp_path / "desk")


@pytest.fixture
def tap() -> Iterator[str]:
    """A tap device with nothing behind it but this machine."""
    run(["ip", "tuntap", "add", TAP, "mode", "tap"])
    try:
        run(["ip", "address", "add", HERE, "dev", TAP])
        run(["ip", "link", "set", TAP, "up"])
        assert f"dev {TAP}" in run(["ip", "route", "get", THERE.partition("/")[0]])  # and no other network of ours
        yield TAP
    finally:
        run(["ip", "link", "delete", TAP])


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template as the script in the tree builds it; one that was built already is taken where GUEST_TEMPLATE is."""
    if built := os.environ.get("GUEST_TEMPLATE"):
        return Path(built)
    disk = tmp_path_factory.mktemp("template") / "debian-12.qcow2"
    run([str(ROOT / "deploy" / "debian_template.sh"), str(disk)])
    return disk


@pytest.fixture
def fabric(tmp_path: Path, desk: Desk) -> Iterator[tuple[Fabric, LabHost]]:
    """A fabric with a healthy host, that has taken the tenant."""
    fabric = Fabric(Portal(tmp_path / "portal", free_port()))
    host = LabHost("a01", tmp_path / "a01", "secureboot-on", tmp_path / "maker")
    try:
        desk.run("tenant", "owner", "new", "--name", OWNER, "--out", desk.folder / "owner.key")
        shown = desk.run("tenant", "owner", "show", desk.folder / "owner.key").split()
        fabric.portal.set_up()
        fabric.portal.manage("add_tenant", OWNER, shown[shown.index("fingerprint") + 1])
        for name, role, tenant in (("ada", "fabric admin", ""), ("ben", "approver", ""), ("tim", "owner", SLUG)):
            fabric.add_person(name, role, tenant=tenant)
        fabric.portal.start()
        host.power_on()
        fabric.portal.trust_maker(host.authority)
        host.enrol(fabric.portal.url)
        fabric.admit(host)
        assert host.attest().returncode == 1  # there is no baseline yet, and the Evidence is kept
        fabric.admit_baseline(host)
        yield fabric, host
    finally:
        host.power_off()
        fabric.portal.stop()


def signed(desk: Desk, disk: Path) -> tuple[Path, str]:
    """Sign a template; return its catalog and the signer's thumbprint."""
    signer, catalog = desk.folder / "signer.key", desk.folder / "debian-12.catalog"
    thumbprint = desk.run("template", "signer", "new", "--name", "Kontor images", "--out", signer).split()[-1]
    desk.run("template", "sign", disk, "--signer", signer, "--name", "debian-12", "--version", "12.1", "--out", catalog)
    return catalog, thumbprint


def sealed(desk: Desk, portal: Portal, *, signer: str, secret: str) -> Path:
    """Make shielding data in which everything is used that a guest can be given."""
    fingerprint = portal.manage("guardian_fingerprint").strip()
    kept = desk.run("tenant", "guardian", "fetch", portal.url, "--fingerprint", fingerprint).split("Kept as ")[1]
    desk.write("user-data.yaml", USER_DATA.format(login=desk.ssh_key("login")))
    desk.write("network.yaml", NETWORK)
    desk.write("ca.pem", "the certificate of the shop\n")
    desk.write("db", f"{secret}\n")
    desk.ssh_key("host")
    recipe, file = desk.write("web.toml", RECIPE.format(signer=signer)), desk.folder / "web.shield"
    owner = desk.folder / "owner.key"
    desk.run("tenant", "shield", "new", recipe, "--owner", owner, "--guardian", kept.strip(), "--out", file)
    return file


def ordered(fabric: Fabric, catalog: Path, file: Path, to: Path) -> Path:
    """Offer the template, upload the shielding data and order a machine, by API; return the order's file."""
    fabric.person("ada").submit("/templates/offer/", {"catalog": (catalog.name, catalog.read_bytes())})
    made = fabric.portal.manage("api_token", "make", "orders", "--by", "tim", "--reason", "to order machines")
    token = next(word for word in made.split() if word.startswith("guard_"))

    def asked(path: str, body: object = None) -> bytes:
        answer = requests.request(
            "GET" if body is None else "POST",
            f"{fabric.portal.url}/api/v1/{path}",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            timeout=10,
        )
        assert answer.ok, answer.text
        return answer.content

    data = json.loads(asked("shielding-data", {"tenant": SLUG, "name": "web servers", "file": file.read_text()}))
    (fits,) = data["templates"]
    assert fits["applies"], fits["against"]
    values = {"HostName": VM, "MACAddr-1": MAC, "IP4Addr-1": THERE}
    wanted = {"shielding_data": data["id"], "template": fits["template"], "name": VM, "memory": 512, "values": values}
    order = json.loads(asked("machine-orders", wanted))
    to.write_bytes(asked(f"machine-orders/{order['id']}/file"))
    return to


def wait_for_guest(desk: Desk, host_key: str, bundle: Path) -> float:
    """Wait until the guest lets the tenant in; return how long it took."""
    began = time.monotonic()
    target = THERE.partition("/")[0]
    while time.monotonic() - began < BOOT_PATIENCE:
        if attempt(["ssh-keyscan", "-T", "5", "-t", "ed25519", target]).stdout.strip():
            desk.asked(host_key, "cloud-init status --wait || true")
            return time.monotonic() - began
        time.sleep(2)
    log = (bundle / "run" / "qemu.log").read_text(errors="replace")
    raise AssertionError(f"The guest did not answer within {BOOT_PATIENCE:.0f} s: {log[-1000:]}")


def image_info(path: Path) -> dict[str, object]:
    told = subprocess.run(
        ["qemu-img", "info", "--force-share", "--output=json", str(path)], capture_output=True, check=True
    )
    return dict(json.loads(told.stdout))


def test_a_debian_guest_is_what_its_shielding_data_says(
    fabric: tuple[Fabric, LabHost], desk: Desk, template: Path, tap: str
) -> None:
    site, host = fabric
    secret = secrets.token_hex(16)
    catalog, signer = signed(desk, template)
    file = sealed(desk, site.portal, signer=signer, secret=secret)
    order = ordered(site, catalog, file, desk.folder / "web1.order")

    bundle = host.folder / VM
    papers = ["--template", template, "--catalog", catalog, "--shielding-data", file, "--out", bundle]
    made = host.vm("provision", order, *map(str, papers))
    assert made.returncode == 0, made.stderr
    for disk in ("disk.qcow2", "seed.qcow2"):
        told = json.dumps(image_info(bundle / disk))
        assert '"encrypted": true' in told
        assert '"format": "luks"' in told
    for path in filter(Path.is_file, bundle.rglob("*")):
        assert secret.encode() not in path.read_bytes(), path

    try:
        started = host.vm("start", bundle, "--tap", tap, "--mac", MAC)
        assert started.returncode == 0, started.stderr
        assert f"is running ({LEVEL})" in started.stdout
        host_key = (desk.folder / "host.pub").read_text()
        print(f"the guest answered after {wait_for_guest(desk, host_key, bundle):.0f} s")  # its host key is ours
        said = {name: desk.asked(host_key, question).strip() for name, question in QUESTIONS.items()}
        print(json.dumps(said, indent=2))
        desk.asked(host_key, "echo written by the guest > /var/lib/kept")
        off = host.vm("stop", bundle, "--wait", "120")
        assert off.returncode == 0, off.stderr
        again = host.vm("start", bundle, "--tap", tap, "--mac", MAC)
        assert again.returncode == 0, again.stderr
        print(f"the guest answered again after {wait_for_guest(desk, host_key, bundle):.0f} s")
        kept = {name: desk.asked(host_key, QUESTIONS[name]).strip() for name in ("name", "secret", "keys", "instance")}
        assert desk.asked(host_key, "cat /var/lib/kept").strip() == "written by the guest"
    finally:
        host.vm("stop", bundle, "--wait", "60")

    assert kept == {name: said[name] for name in kept}
    assert said["name"] == VM
    assert said["secret"] == secret
    assert said["file"].split("\n") == ["the certificate of the shop", "644"]
    assert said["keys"] == "/etc/ssh/ssh_host_ed25519_key"
    assert said["tpm"] == "2"
    assert [line.split() for line in said["disks"].split("\n")] == [["vda", "0"], ["vdb", "1", "CIDATA"]]
    assert "not permitted" in said["write"] or "Read-only" in said["write"]
    assert said["secure boot"] == "SecureBoot enabled"
    assert said["failed"] == ""
    assert said["serial port"] == "0"  # a shielded machine has no console that the hoster could read
    assert "status: done" in said["cloud-init"]
    assert said["instance"] == json.loads((bundle / "vm.json").read_text())["id"]
    assert not (bundle / "run" / "console.log").exists()

    # What the guest has written is in the encrypted disk, and its owner gets it back without the fabric.
    for path in filter(Path.is_file, bundle.rglob("*")):
        assert secret.encode() not in path.read_bytes(), path
    plain = desk.folder / "plain"
    desk.run("tenant", "recover", bundle, "--owner", desk.folder / "owner.key", "--plain", "--out", plain)
    raw = desk.folder / "plain.raw"
    run(["qemu-img", "convert", "-O", "raw", str(plain / "disk.qcow2"), str(raw)])
    assert secret.encode() in raw.read_bytes()
    shutil.rmtree(plain)
