"""A machine is made out of a template and shielding data: what its signers signed, and nothing in the plain."""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pycdlib import PyCdlib

from cli.host import host
from cli.recovery import RecoveryRefused
from cli.restore import Remains, restore_anew, restore_plain
from cli.shielding import Wanted as Bundle
from guardedhost import agent, vm
from guardedhost.bundle import read_states
from guardedhost.errors import AgentError, VmFailure
from guardedhost.image import opened
from guardedhost.machine import Machine, read_machine
from guardedhost.provision import LABEL, Wanted, first_protector, make, seed_image
from guardedhost.provision import provision as provision_in
from guardedhost.qemu import _command
from guardedhost.store import Store
from guardedhost.vm import Released, prepare
from kps.core.bundle import DISK_FILE, SEED_FILE, VmState
from kps.core.catalog import Catalog, parse_catalog
from kps.core.chain import make_machine
from kps.core.guardian import GuardianKeys
from kps.core.order import Order, build_order
from kps.core.protector import VerifiedProtector, open_protector, roll_protector, verify_protector
from kps.core.secrets import VmSecrets, open_secrets
from kps.core.seed import build_seed
from kps.core.shielding_data import ShieldingData
from kps.core.wrap import ReleasedKeys
from tests.disks import content, converted, raw
from tests.kps.parties import FABRIC, KEY, NOW, OTHER_FABRIC, OWNER, STRANGER
from tests.kps.shielding import CONTENT, VALUES, catalog_token, data_in, shielding_data

FILE = shielding_data()
DATA = data_in(FILE)
Release = Callable[[Machine, VmState], Released]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    return converted(raw(folder / "disk.raw", content()), folder / "disk.qcow2")


@pytest.fixture(scope="module")
def catalog(template: Path) -> Catalog:
    with opened(template) as image:
        return parse_catalog(catalog_token(of=image.volume()))


def answer(data: ShieldingData = DATA, maker: GuardianKeys = FABRIC, **changes: Any) -> Released:
    """What a portal answers that makes a machine of some data; a lie where the test wants one."""
    chain = make_machine(data.protector.chain, maker, nonce=os.urandom(16), now=NOW)
    egress = os.urandom(32)
    document = roll_protector(data.protector, chain, key=egress, signer=maker.signing)
    keys = ReleasedKeys(chain.statement.id, chain.statement.level, data.protector.roll + 1, KEY, egress)
    return Released(replace(keys, **changes), document)


def honest(machine: Machine, state: VmState) -> Released:
    """The portal as it is: it opens what was asked for."""
    protector = verify_protector(state.protector)
    if protector.chain.statement.makes_machines:
        assert open_protector(protector, FABRIC.encryption) == KEY
        return answer()
    egress = os.urandom(32)
    keys = ReleasedKeys(
        protector.id, protector.level, protector.roll + 1, open_protector(protector, FABRIC.encryption), egress
    )
    return Released(keys, roll_protector(protector, protector.chain, key=egress, signer=FABRIC.signing))


def never(machine: Machine, state: VmState) -> Released:
    raise AssertionError("the portal was asked for a key")


def made(folder: Path, template: Path, catalog: Catalog, release: Release = honest, **changes: Any) -> Machine:
    with tempfile.TemporaryDirectory() as beside:
        file = Path(beside) / "web.shield"
        file.write_bytes(changes.pop("file", FILE))
        wanted = Wanted("web1", 512, template, catalog, file, DATA, VALUES)
        return make(replace(wanted, **changes), folder / "web1", release, lambda _: None)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, template: Path, catalog: Catalog) -> Machine:
    """A machine as a host has made it; the tests below only look at it."""
    return made(tmp_path_factory.mktemp("machines"), template, catalog)


def protector_of(machine: Machine) -> VerifiedProtector:
    (state,) = read_states(machine.folder)
    return verify_protector(state.content.protector)


def secrets_of(machine: Machine) -> VmSecrets:
    """What the owner's own key opens, without any fabric."""
    first, (state,) = protector_of(machine), read_states(machine.folder)
    key = open_protector(first, OWNER.encryption)
    return open_secrets(state.content.secrets, key, protector_id=first.id, roll=first.roll)


def passphrase_of(machine: Machine) -> bytes:
    return secrets_of(machine).disk_passphrase.encode()


def files_of(machine: Machine, passphrase: bytes) -> dict[str, bytes]:
    """Read the machine's seed as cloud-init does: by its names in Rock Ridge."""
    with opened(machine.folder / SEED_FILE, passphrase=passphrase) as image:
        data = bytes(image.read(0, image.size))
    disk, found = PyCdlib(), {}
    disk.open_fp(io.BytesIO(data))
    assert disk.pvd.volume_identifier.decode().strip() == LABEL
    for entry in disk.list_children(iso_path="/"):
        if entry.is_file():
            name, into = entry.rock_ridge.name().decode(), io.BytesIO()
            disk.get_file_from_iso_fp(into, rr_path=f"/{name}")
            found[name] = into.getvalue()
    disk.close()
    return found


def test_a_made_machine_has_the_template_s_disk_and_its_seed(machine: Machine, catalog: Catalog) -> None:
    passphrase = passphrase_of(machine)
    with opened(machine.folder / DISK_FILE, passphrase=passphrase) as image:
        assert image.volume().root == catalog.volume.root
    assert files_of(machine, passphrase) == build_seed(CONTENT, VALUES, machine_id=protector_of(machine).id)


def test_its_protector_is_its_owner_s_though_the_owner_was_not_there(machine: Machine) -> None:
    first = protector_of(machine)
    assert (first.owner, first.chain.made_from, first.level) == (OWNER.guardian, DATA.id, "shielded")
    described = read_machine(machine.folder).description
    assert (described.id, described.name, described.memory) == (str(first.id), "web1", 512)


def test_nothing_is_left_in_the_plain(machine: Machine) -> None:
    assert [path.name for path in machine.folder.parent.iterdir()] == ["web1"]
    for path in machine.folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
        for plain in (b"marker", b"login", b"rootroot", b"write_files", passphrase_of(machine)):
            assert plain not in path.read_bytes(), (path, plain)


def test_a_made_machine_starts_as_any_other_and_its_seed_is_read_only(machine: Machine, tmp_path: Path) -> None:
    copied = read_machine(Path(shutil.copytree(machine.folder, tmp_path / "web1")))
    unlocked = prepare(copied, lambda state: honest(copied, state)).unlocked
    assert unlocked.disk_passphrase == passphrase_of(machine)
    command = _command(unlocked, "tcg", disk_key=7, vtpm=8)
    nodes = {node["node-name"]: node for node in (json.loads(word) for word in command if word.startswith("{"))}
    assert nodes["seed"]["encrypt"] == nodes["disk"]["encrypt"] == {"format": "luks", "key-secret": "disk-key"}
    assert (nodes["seed"]["read-only"], nodes["seed"]["backing"]) == (True, None)


def test_a_disk_that_is_not_the_catalog_s_opens_no_secret(tmp_path: Path, catalog: Catalog) -> None:
    disk = raw(tmp_path / "evil.raw", content(changed=5 * 1024 * 1024 + 7))
    with pytest.raises(VmFailure, match=r"not what the catalog of debian-12 12\.1 describes"):
        made(tmp_path, disk, catalog, never)
    assert [path.name for path in tmp_path.iterdir()] == ["evil.raw"]


@pytest.mark.parametrize("file", [FILE[:-9] + FILE[-5:], FILE.splitlines(keepends=True)[0], FILE + b"\n"])
def test_a_file_that_was_exchanged_meanwhile_makes_no_machine(
    tmp_path: Path, template: Path, catalog: Catalog, file: bytes
) -> None:
    """Its head was verified before the disk was copied; what follows is held against that when it is opened."""
    with pytest.raises(VmFailure, match="the owner has signed"):
        made(tmp_path, template, catalog, file=file)
    assert not list(tmp_path.iterdir())


def test_a_disk_of_another_size_opens_no_secret(tmp_path: Path, catalog: Catalog) -> None:
    disk = raw(tmp_path / "evil.raw", content() + bytes(512))
    with pytest.raises(VmFailure, match="Get the disk that belongs"):
        made(tmp_path, disk, catalog, never)


def test_a_template_that_the_owner_has_not_named_opens_no_secret(
    tmp_path: Path, template: Path, catalog: Catalog
) -> None:
    for other in (
        parse_catalog(catalog_token("12.0", of=catalog.volume)),
        parse_catalog(catalog_token(name="alpine", of=catalog.volume)),
        parse_catalog(catalog_token(signer=OTHER_FABRIC, of=catalog.volume)),
    ):
        with pytest.raises(VmFailure, match="The shielding data accepts"):
            made(tmp_path, template, other, never)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("values", [{}, VALUES | {"HostName": "a\nruncmd: [id]"}, VALUES | {"TimeZone": "UTC"}])
def test_values_that_are_missing_or_not_of_their_kind_open_no_secret(
    tmp_path: Path, template: Path, catalog: Catalog, values: dict[str, str]
) -> None:
    with pytest.raises(VmFailure, match="@"):
        made(tmp_path, template, catalog, never, values=values)
    assert not list(tmp_path.iterdir())


def _lies() -> list[Released]:
    foreign = data_in(shielding_data(owner=STRANGER))
    plain = answer()
    return [
        answer(foreign),
        answer(level="encryption-supported"),
        answer(roll=7),
        answer(protector=DATA.id),
        Released(plain.keys, DATA.document["protector"]),
        Released(plain.keys, answer().protector),
        Released(plain.keys, {}),
    ]


def test_the_first_protector_of_a_machine_is_of_this_owner_and_this_data() -> None:
    assert first_protector(DATA, answer()).chain.made_from == DATA.id
    for lie in _lies():
        with pytest.raises(AgentError):
            first_protector(DATA, lie)


def test_a_portal_that_lies_makes_no_machine(tmp_path: Path, template: Path, catalog: Catalog) -> None:
    with pytest.raises(AgentError):
        made(tmp_path, template, catalog, lambda *_: _lies()[0])
    assert not list(tmp_path.iterdir())


def test_a_wrong_key_makes_no_machine(tmp_path: Path, template: Path, catalog: Catalog) -> None:
    with pytest.raises(VmFailure, match="does not open"):
        made(tmp_path, template, catalog, lambda *_: answer(ingress=bytes(32)))
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_replaced(tmp_path: Path, template: Path, catalog: Catalog) -> None:
    (tmp_path / "web1").mkdir()
    with pytest.raises(VmFailure, match="exists already"):
        made(tmp_path, template, catalog, never)


def test_the_largest_seed_is_an_image_of_whole_sectors() -> None:
    image = seed_image({"user-data": bytes(600 * 1024), "meta-data": b"{}", "network-config": b""})
    assert len(image) % 2048 == 0


def test_a_host_holds_what_it_made_until_it_says_otherwise(
    tmp_path: Path, template: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the portal counts it. The daemon gives back what does not run, and `vm stop` does."""
    monkeypatch.setattr(agent, "opened", lambda store: nullcontext())
    monkeypatch.setattr(vm, "release", lambda _, machine, state: honest(machine, state))
    store = Store(tmp_path / "state")
    file = tmp_path / "web.shield"
    file.write_bytes(FILE)
    wanted = Wanted("web1", 512, template, catalog, file, DATA, VALUES)
    made_here = provision_in(store, wanted, tmp_path / "web1", lambda _: None)
    assert store.held() == [made_here.folder]
    with pytest.raises(VmFailure, match="exists already"):
        provision_in(store, wanted, tmp_path / "web1", lambda _: None)
    monkeypatch.setattr(vm, "release", lambda _, machine, state: answer(ingress=bytes(32)))
    with pytest.raises(VmFailure, match="does not open"):
        provision_in(store, wanted, tmp_path / "web2", lambda _: None)
    assert store.held() == [made_here.folder]


# --- its owner gets it back ----------------------------------------------------------------------------------


def test_its_owner_gets_the_seed_back_with_the_disk(machine: Machine, tmp_path: Path) -> None:
    found = Remains(machine.folder, machine.folder / DISK_FILE, secrets_of(machine))
    seed = build_seed(CONTENT, VALUES, machine_id=protector_of(machine).id)
    wanted = Bundle("web1", "shielded", 512, None)
    restore_anew(found, wanted, OWNER, [], folder=tmp_path / "anew", now=NOW)
    anew = read_machine(tmp_path / "anew")
    assert passphrase_of(anew) != passphrase_of(machine)
    assert files_of(anew, passphrase_of(anew)) == seed
    restore_plain(found, tmp_path / "plain")
    with opened(tmp_path / "plain" / SEED_FILE) as image:
        assert seed["network-config"] in bytes(image.read(0, image.size))


def test_a_seed_that_leads_elsewhere_is_not_followed(machine: Machine, tmp_path: Path) -> None:
    copied = tmp_path / "web1"
    shutil.copytree(machine.folder, copied)
    (copied / SEED_FILE).unlink()
    (copied / SEED_FILE).symlink_to(machine.folder / SEED_FILE)
    with pytest.raises(RecoveryRefused, match="is not a file"):
        restore_plain(Remains(copied, copied / DISK_FILE, secrets_of(machine)), tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


# --- the command -------------------------------------------------------------------------------------------------


def provision(folder: Path, disk: Path, catalog: Catalog, **changes: Any) -> Any:
    order = Order("web1", 512, catalog.volume.root.hex(), DATA.digest, VALUES)
    (folder / "web1.order").write_bytes(build_order(replace(order, **changes)))
    (folder / "disk.catalog").write_text(catalog_token(of=catalog.volume))
    (folder / "web.shield").write_bytes(FILE)
    words = ["vm", "provision", folder / "web1.order", "--template", disk, "--catalog", folder / "disk.catalog"]
    words += ["--shielding-data", folder / "web.shield", "--out", folder / "web1", "--state-dir", folder / "state"]
    return CliRunner().invoke(host, [str(word) for word in words])


def test_papers_that_do_not_belong_together_make_no_machine(tmp_path: Path, template: Path, catalog: Catalog) -> None:
    for changes, says in (
        ({"template": "0" * 64}, "another template disk"),
        ({"shielding_data": "0" * 64}, "other shielding data"),
        ({"values": {}}, "@HostName@ needs a value"),
    ):
        done = provision(tmp_path, template, catalog, **changes)
        assert done.exit_code == 1, done.output
        assert says in done.output
    assert not (tmp_path / "web1").exists()


def test_a_host_that_is_not_enrolled_makes_no_machine(tmp_path: Path, template: Path, catalog: Catalog) -> None:
    done = provision(tmp_path, template, catalog)
    assert done.exit_code == 1
    assert "enrol" in done.output
    assert not (tmp_path / "web1").exists()
