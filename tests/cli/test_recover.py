"""A VM brought back with its owner's keys alone, out of a bundle that somebody else has kept."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.backup import OpenedVm, open_state
from cli.owner_file import read_card, read_owner
from cli.tenant import tenant
from guardedhost.errors import ImageFailure
from guardedhost.image import opened
from guardedhost.luks import require_opens
from guardedhost.machine import read_machine
from kps.core.guardian import GuardianKeys, build_metadata
from kps.core.protector import open_protector
from kps.errors import ProtectorUnopened
from tests.kps.parties import FABRIC, NOW, OTHER_FABRIC

PASSPHRASE, OTHER_PASSPHRASE = "correct horse battery", "another horse battery"
MARK = b"GUARDHOUSE-PLAIN-TEXT-MARK"


def run(home: Path, *words: object, **how: Any) -> Result:
    env = {"GUARDHOUSE_PASSPHRASE_FILE": str(home / "passphrase"), "XDG_CONFIG_HOME": str(home / "config")}
    return CliRunner().invoke(tenant, [str(word) for word in words], env=env, **how)


def ran(home: Path, *words: object) -> None:
    done = run(home, *words)
    assert done.exit_code == 0, done.output


@dataclass(frozen=True)
class Kept:
    """An owner, sheets, and a VM as it comes out of a backup; made once, and copied for each test."""

    folder: Path
    owner: GuardianKeys
    root: bytes
    vm: OpenedVm


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    home = tmp_path_factory.mktemp("kept")
    (home / "passphrase").write_text(PASSPHRASE)
    for name, keys in (("fabric", FABRIC), ("other-fabric", OTHER_FABRIC)):
        (home / f"{name}.json").write_text(json.dumps({"metadata": build_metadata(keys, now=NOW)}))
    (home / "disk.raw").write_bytes((MARK * 1000).ljust(256 * 1024, b"\0"))
    ran(home, "owner", "new", "--name", "Kontor Nord", "--out", home / "owner.key")
    ran(home, "owner", "split", home / "owner.key", "--shares", 2, "--threshold", 2, "--out", home / "sheets")
    what = ["--name", "payroll", "--level", "encryption-supported", "--memory", 64, "--disk", home / "disk.raw"]
    whose = ["--owner", home / "owner.key", "--guardian", home / "fabric.json"]
    ran(home, "protect", *whose, *what, "--out", home / "payroll")
    (home / "payroll" / "vtpm").mkdir()
    (home / "payroll" / "vtpm" / "tpm2-00.permall").write_bytes(b"sealed state")
    (home / "payroll" / "firmware-variables.fd").write_bytes(b"variables")
    owner = read_owner(home / "owner.key", PASSPHRASE)
    return Kept(home, owner, root(home / "disk.raw"), open_state(home / "payroll" / "state.0.json", owner))


@pytest.fixture
def home(tmp_path: Path, kept: Kept) -> Path:
    shutil.copytree(kept.folder, tmp_path / "home")
    return tmp_path / "home"


def root(disk: Path, passphrase: bytes | None = None) -> bytes:
    with opened(disk, passphrase=passphrase) as image:
        return image.volume().root


def recover(home: Path, *more: object, bundle: str = "payroll", **how: Any) -> Result:
    return run(home, "recover", home / bundle, *more, "--out", home / "back", **how)


def by_file(home: Path) -> list[object]:
    return ["--owner", home / "owner.key"]


def by_sheets(home: Path) -> list[object]:
    return [word for sheet in sorted((home / "sheets").iterdir()) for word in ("--share", sheet)]


def opened_vm(home: Path, owner: GuardianKeys) -> OpenedVm:
    return open_state(home / "back" / "state.0.json", owner)


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (folder, *folder.rglob("*"))}


# --- what comes back ---------------------------------------------------------------------------------------------


def test_papers_and_a_bundle_bring_a_vm_back_under_new_keys(home: Path, kept: Kept) -> None:
    (home / "owner.key").unlink()
    done = recover(home, *by_sheets(home), "--guardian", home / "other-fabric.json")
    assert done.exit_code == 0, done.output
    assert FABRIC.guardian.fingerprint in done.output
    vm, before = opened_vm(home, kept.owner), kept.vm
    assert vm.secrets is not None
    assert before.secrets is not None
    assert (vm.protector.owner.name, vm.protector.level) == ("Kontor Nord", "encryption-supported")
    assert vm.protector.guardians == (OTHER_FABRIC.guardian,)
    assert vm.protector.id != before.protector.id
    assert read_machine(home / "back").description.name == "payroll"
    new, old = vm.secrets.disk_passphrase.encode(), before.secrets.disk_passphrase.encode()
    assert root(home / "back" / "disk.qcow2", new) == kept.root
    with pytest.raises(ImageFailure):
        require_opens(home / "back" / "disk.qcow2", old)
    with pytest.raises(ProtectorUnopened):
        open_protector(vm.protector, FABRIC.encryption)
    assert vm.secrets.vtpm_key == before.secrets.vtpm_key
    assert (home / "back" / "vtpm" / "tpm2-00.permall").read_bytes() == b"sealed state"
    assert (home / "back" / "firmware-variables.fd").read_bytes() == b"variables"
    assert modes(home / "back") == {0}
    assert not [path for path in (home / "back").rglob("*") if path.is_file() and MARK in path.read_bytes()]


def test_a_disk_in_the_plain_comes_back_even_from_an_older_state(home: Path, kept: Kept) -> None:
    bundle = home / "payroll"
    (bundle / "state.0.json").rename(bundle / "state.7.json")
    (bundle / "state.8.json").write_text("{}")
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    done = recover(home, *by_file(home), "--plain")
    assert (done.exit_code, "INSECURE" in done.output, "state.7.json" in done.output) == (0, True, True), done.output
    assert root(home / "back" / "disk.qcow2") == kept.root
    assert kept.vm.secrets is not None
    assert (home / "back" / "vtpm.key").read_text() == kept.vm.secrets.vtpm_key
    assert modes(home / "back") == {0}
    assert before == {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    assert not [path.name for path in home.iterdir() if path.name.startswith(".")]


def test_a_new_owner_gets_the_vm_when_the_old_key_is_not_to_be_trusted_any_more(home: Path, kept: Kept) -> None:
    (home / "other-passphrase").write_text(OTHER_PASSPHRASE)
    other = ["--passphrase-file", home / "other-passphrase"]
    ran(home, "owner", "new", "--name", "Kontor Süd", "--out", home / "new.key", *other)
    shutil.rmtree(home / "payroll" / "vtpm")
    how = ["--new-owner", home / "new.key", "--new-passphrase-file", home / "other-passphrase", "--level", "shielded"]
    done = recover(home, *by_file(home), *how, bundle="payroll/state.0.json")
    assert (done.exit_code, "No disk" in done.output) == (1, True)
    disk = ["--disk", home / "payroll" / "disk.qcow2"]
    done = recover(home, *by_file(home), *how, *disk, bundle="payroll/state.0.json")
    assert done.exit_code == 0, done.output
    vm = opened_vm(home, read_owner(home / "new.key", OTHER_PASSPHRASE))
    assert (vm.protector.owner, vm.protector.level) == (read_card(home / "new.key"), "shielded")
    assert vm.protector.guardians == ()
    with pytest.raises(ProtectorUnopened):
        open_protector(vm.protector, kept.owner.encryption)
    assert vm.secrets is not None
    assert kept.vm.secrets is not None
    assert vm.secrets.vtpm_key != kept.vm.secrets.vtpm_key
    assert not (home / "back" / "vtpm").exists()


# --- what is refused ---------------------------------------------------------------------------------------------


def test_another_owner_s_key_brings_nothing_back(home: Path) -> None:
    ran(home, "owner", "new", "--name", "x", "--out", home / "stranger.key")
    done = recover(home, "--owner", home / "stranger.key", "--plain")
    assert (done.exit_code, "of another owner" in done.output) == (1, True)
    assert not (home / "back").exists()


def test_too_few_sheets_bring_nothing_back(home: Path) -> None:
    done = recover(home, *by_sheets(home)[:2], "--plain")
    assert (done.exit_code, "Too few" in done.output, (home / "back").exists()) == (1, True, False)


@pytest.mark.parametrize(
    "more",
    [
        ("--plain", "--guardian", "fabric.json"),
        ("--plain", "--level", "shielded"),
        ("--plain", "--new-owner", "owner.key"),
        ("--share", "passphrase"),
        ("--fingerprint", "0" * 64),
    ],
    ids=" ".join,
)
def test_what_does_not_go_together_is_refused(home: Path, more: tuple[str, ...]) -> None:
    words = [home / word if (home / word).exists() else word for word in more]
    assert recover(home, *by_file(home), *words).exit_code == 2


def _link(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


def _link_folder(path: Path, target: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to(target)


def _crowd(folder: Path) -> None:
    for number in range(17):
        (folder / str(number)).touch()


SPOILT: dict[str, Callable[[Path, Path], object]] = {
    "is a link": lambda vm, home: _link(vm / "firmware-variables.fd", home / "passphrase"),
    "or is a link": lambda vm, home: _link(vm / "vtpm" / "tpm2-00.permall", home / "passphrase"),
    "is not a folder": lambda vm, home: _link_folder(vm / "vtpm", home),
    "is not a file": lambda vm, _: os.mkfifo(vm / "vtpm" / "pipe"),
    "holds more than 16 files": lambda vm, _: _crowd(vm / "vtpm"),
    "no part of a VM": lambda vm, _: (vm / "vtpm" / "large").write_bytes(bytes(4 * 1024 * 1024 + 1)),
    "holds no state file": lambda vm, _: (vm / "state.0.json").unlink(),
    "No disk lies in": lambda vm, _: (vm / "disk.qcow2").unlink(),
    "cannot be opened": lambda vm, home: shutil.copy(home / "disk.raw", vm / "disk.qcow2"),
}


@pytest.mark.parametrize("sentence", SPOILT)
@pytest.mark.parametrize("how", ["plain", "anew"])
def test_what_its_keeper_has_changed_brings_nothing_of_this_machine_out(home: Path, sentence: str, how: str) -> None:
    SPOILT[sentence](home / "payroll", home)
    before = {path.name for path in home.iterdir()}
    done = recover(home, *by_file(home), *(["--plain"] if how == "plain" else []))
    assert (done.exit_code, sentence in done.output) == (1, True), done.output
    assert {path.name for path in home.iterdir()} == before


def test_a_folder_that_is_there_is_not_touched(home: Path) -> None:
    (home / "back").mkdir()
    done = recover(home, *by_file(home), "--plain")
    assert (done.exit_code, "exists already" in done.output, list((home / "back").iterdir())) == (1, True, [])


def test_a_bare_protector_or_a_missing_description_is_a_sentence(home: Path) -> None:
    state = json.loads((home / "payroll" / "state.0.json").read_text())
    (home / "bare.json").write_text(json.dumps(state["protector"]))
    disk = ["--disk", home / "payroll" / "disk.qcow2"]
    assert "bare key protector" in recover(home, *by_file(home), *disk, bundle="bare.json").output
    (home / "payroll" / "vm.json").unlink()
    assert "has no vm.json" in recover(home, *by_file(home), *disk).output
