"""`manage.py custody`: keys move, are backed up and come back, whatever is pulled out meanwhile."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.core.management import CommandError, call_command
from django.views.debug import SafeExceptionReporterFilter

from attestation import service as attestation
from kps import service as kps
from kps.guardianship import prepare_successor
from ledger import log_key, moving
from ledger import service as ledger
from ledger.custody import TokenCustody, custody, esys, places
from ledger.custody.choice import forget
from ledger.custody.root import RootCustody
from ledger.custody.tpm import Tpm
from tests import tpm_lab
from tests.tokens import LABEL, MODULE, PIN, softhsm

WHY = "the node goes into production"
PASSPHRASE = "eight words nobody would ever guess"


class PowerCut(BaseException):
    """What no code of ours catches."""


@dataclass
class Fabric:
    """A fabric with keys of every kind, and its settings."""

    folder: Path
    settings: Any

    def run(self, *words: str, typed: str = "") -> str:
        printed = io.StringIO()
        self.settings.typed = typed
        reason = [] if words[0] == "show" else ["--reason", WHY]
        call_command("custody", *words, *reason, stdout=printed)
        return printed.getvalue()

    def now_in(self, name: str) -> None:
        """The operator has changed the setting, and started the service anew."""
        self.settings.CUSTODY = name
        self.start_anew()

    def start_anew(self) -> None:
        forget()
        log_key.forget()

    def publics(self) -> dict[str, bytes]:
        """Open every key with the custody in use, and return what is public of each."""
        self.start_anew()
        found = {key.name: custody().open(key.sealed, key.purpose).public_key() for key in held()}
        log = log_key.log_signer(now=now()).private.public_key().public_bytes_raw()
        return {name: _point(public) for name, public in found.items()} | {"log": log}


def _point(public: ec.EllipticCurvePublicKey) -> bytes:
    numbers = public.public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def now() -> datetime:
    return datetime.now(UTC)


def held() -> list[Any]:
    return [*attestation.held_keys(now=now()), *kps.held_keys()]


@pytest.fixture
def empty(db: None, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fabric]:
    settings.CUSTODY = "insecure-file"
    settings.CUSTODY_FILE = tmp_path / "custody.key"
    settings.CUSTODY_SEALED_FILE = tmp_path / "custody.tpm"
    made = Fabric(tmp_path, settings)
    made.start_anew()

    class Typed:
        isatty = staticmethod(lambda: False)
        readline = staticmethod(lambda: settings.typed + "\n")

    monkeypatch.setattr("sys.stdin", Typed)
    yield made
    made.start_anew()


@pytest.fixture
def fabric(empty: Fabric) -> Fabric:
    attestation.signing_certificates(now=now())
    kps.metadata(now=now())
    prepare_successor(now=now())
    log_key.log_signer(now=now())
    assert len(empty.publics()) == 7
    return empty


@pytest.fixture
def tcti(tmp_path: Path, settings: Any) -> Iterator[str]:
    (tmp_path / "node").mkdir()
    with tpm_lab.running(tmp_path / "node") as found:
        settings.CUSTODY_TCTI = found
        yield found


@pytest.fixture
def token(tmp_path: Path, settings: Any) -> Iterator[None]:
    with softhsm(tmp_path):
        settings.CUSTODY_PKCS11_MODULE, settings.CUSTODY_TOKEN, settings.CUSTODY_TOKEN_PIN = MODULE, LABEL, PIN
        forget()
        yield
    forget()


def update_firmware(tcti: str) -> None:
    with Tpm(tcti) as tpm:
        tpm.extend(0, b"\x22" * 32)


def share_in(printed: str) -> str:
    return printed.strip().splitlines()[printed.strip().splitlines().index(SHOWN) + 1]


SHOWN = "Recovery share, shown this once; write it down and keep it away from this node:"


def acts() -> list[str]:
    return [leaf.act for leaf in ledger.leaves(act_prefix="custody.")][::-1]


# --- from a file into the TPM ------------------------------------------------------------------------------------


@pytest.mark.parametrize("new_root", [False, True])
def test_keys_move_from_a_file_to_the_tpm(fabric: Fabric, tcti: str, new_root: bool) -> None:
    before, secret = fabric.publics(), attestation.release_secret("serial")
    printed = fabric.run("move", "tpm", *(["--new-root"] if new_root else []))
    assert f"The root key of before is {fabric.folder / 'custody.key'}" in printed
    fabric.now_in("tpm")
    assert fabric.publics() == before
    assert (attestation.release_secret("serial") == secret) is not new_root
    (fabric.folder / "custody.key").unlink()
    assert fabric.publics() == before
    assert fabric.run("show").count("under the root key") == 7
    (leaf,) = ledger.leaves(act_prefix="custody.")
    assert leaf.act == "custody.moved"
    assert leaf.actor.startswith("console:")
    assert leaf.detail["root"] == ("a new" if new_root else "the same")
    assert (leaf.detail["from"], leaf.detail["custody"], leaf.detail["reason"]) == ("insecure-file", "tpm", WHY)
    assert len(leaf.detail["moved"]) == 6


def test_processes_of_before_go_on_when_the_root_is_the_same(fabric: Fabric, tcti: str) -> None:
    before = fabric.publics()
    fabric.run("move", "tpm")
    assert fabric.publics() == before


def test_the_file_of_before_opens_nothing_under_a_new_root(fabric: Fabric, tcti: str) -> None:
    fabric.run("move", "tpm", "--new-root")
    fabric.start_anew()
    with pytest.raises(CommandError, match="keys do not open here"):
        fabric.run("show")


def test_a_root_is_renewed_where_it_is(fabric: Fabric) -> None:
    before, root = fabric.publics(), (fabric.folder / "custody.key").read_bytes()
    printed = fabric.run("move", "insecure-file", "--new-root")
    assert fabric.publics() == before
    assert (fabric.folder / "custody.key").read_bytes() != root
    assert (fabric.folder / "custody.key.before").read_bytes() == root
    assert "custody.key.before" in printed


def test_nothing_moves_to_where_it_is(fabric: Fabric) -> None:
    with pytest.raises(CommandError, match="custody_cannot_move"):
        fabric.run("move", "insecure-file")
    assert acts() == []


def test_a_root_of_somebody_else_is_not_overwritten(fabric: Fabric, tcti: str) -> None:
    places.sealed_place().write(fabric.folder / "custody.tpm", bytes(32))
    content = (fabric.folder / "custody.tpm").read_bytes()
    with pytest.raises(CommandError, match="custody_exists"):
        fabric.run("move", "tpm")
    assert (fabric.folder / "custody.tpm").read_bytes() == content
    assert acts() == []


def test_without_a_tpm_nothing_moves(fabric: Fabric, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esys, "_PATIENCE", 0)
    settings.CUSTODY_TCTI = "device:/dev/no-such-tpm"
    before = fabric.publics()
    with pytest.raises(CommandError, match="There is no TPM"):
        fabric.run("move", "tpm")
    assert fabric.publics() == before
    assert sorted(each.name for each in fabric.folder.iterdir()) == ["custody.key", "custody.lock"]


# --- the power goes ----------------------------------------------------------------------------------------------


@contextmanager
def cut_at(place: tuple[Any, str], monkeypatch: pytest.MonkeyPatch, *, call: int = 1, after: bool = False) -> Any:
    """Let the power go at the n-th call of a function, before it has done anything or just after."""
    owner, name = place
    original, calls = getattr(owner, name), 0

    def cutting(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise PowerCut
        returned = original(*args, **options)
        if calls == call:
            raise PowerCut
        return returned

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, cutting)
        with pytest.raises(PowerCut):
            yield


CUTS: list[Any] = [
    pytest.param((places, "write_over"), 1, False, id="before the root is written"),
    pytest.param((places, "write_over"), 1, True, id="after the root is written"),
    pytest.param((RootCustody, "admit"), 1, False, id="before the first key"),
    pytest.param((RootCustody, "admit"), 4, True, id="among the keys"),
    pytest.param((log_key, "reseal"), 1, True, id="after the log's key"),
    pytest.param((moving, "record"), 1, True, id="after the leaf"),
    pytest.param((moving, "put_in_place"), 1, False, id="after the commit"),
    pytest.param((os, "link"), 1, False, id="before the root of before is kept"),
    pytest.param((os, "link"), 1, True, id="after the root of before is kept"),
    pytest.param((moving, "put_in_place"), 1, True, id="at the very end"),
]


@pytest.mark.parametrize(("place", "call", "after"), CUTS)
def test_a_power_cut_loses_no_key(
    fabric: Fabric, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], call: int, after: bool
) -> None:
    before = fabric.publics()
    with cut_at(place, monkeypatch, call=call, after=after):
        fabric.run("move", "insecure-file", "--new-root")
    fabric.run("show")
    assert fabric.publics() == before
    assert not (fabric.folder / "custody.key.next").exists()
    committed = acts() == ["custody.moved"]
    assert (fabric.folder / "custody.key.before").exists() == committed
    fabric.run("move", "insecure-file", "--new-root")
    assert fabric.publics() == before


def test_a_power_cut_on_the_way_into_the_tpm_loses_no_key(
    fabric: Fabric, tcti: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fabric.publics()
    with cut_at((moving, "put_in_place"), monkeypatch):
        fabric.run("move", "tpm", "--new-root")
    fabric.now_in("tpm")
    assert "is finished now" in fabric.run("show")
    assert fabric.publics() == before
    share = share_in(fabric.run("share"))
    update_firmware(tcti)
    fabric.run("recover", typed=share)
    assert fabric.publics() == before


def test_what_a_killed_write_has_left_is_swept(fabric: Fabric) -> None:
    (fabric.folder / ".custody.key.next.0011").write_bytes(bytes(32))
    fabric.run("show")
    assert not (fabric.folder / ".custody.key.next.0011").exists()


def test_two_commands_do_not_run_at_once(fabric: Fabric) -> None:
    with places.one_at_a_time():
        for words in (["move", "insecure-file", "--new-root"], ["show"], ["restore", __file__], ["recover"]):
            with pytest.raises(CommandError, match="Another command"):
                fabric.run(*words, typed=PASSPHRASE)
    assert acts() == []


def test_the_pin_is_on_no_error_page(fabric: Fabric, token: None) -> None:
    shown = SafeExceptionReporterFilter().get_safe_settings()
    assert PIN not in repr(shown)
    assert shown["CUSTODY_TOKEN_PIN"]


def test_when_nothing_opens_the_keys_nothing_is_touched(fabric: Fabric, monkeypatch: pytest.MonkeyPatch) -> None:
    with cut_at((moving, "put_in_place"), monkeypatch):
        fabric.run("move", "insecure-file", "--new-root")
    (fabric.folder / "custody.key.next").write_bytes(bytes(32))
    with pytest.raises(CommandError, match="custody restore"):
        fabric.run("show")
    assert (fabric.folder / "custody.key.next").exists()


# --- into a token, and out of it ---------------------------------------------------------------------------------


def test_keys_move_into_a_token_and_hosts_keep_their_certificates(fabric: Fabric, token: None) -> None:
    before, secret = fabric.publics(), attestation.release_secret("serial")
    fabric.run("move", "pkcs11")
    assert fabric.publics() == before  # by a process of before, which the token is set for
    fabric.now_in("pkcs11")
    (fabric.folder / "custody.key").unlink()
    assert fabric.publics() == before
    assert attestation.release_secret("serial") == secret
    assert fabric.run("show").count("in the token") == 6


def test_under_a_new_root_the_token_makes_it_itself(fabric: Fabric, token: None) -> None:
    before, secret = fabric.publics(), attestation.release_secret("serial")
    fabric.run("move", "pkcs11", "--new-root")
    fabric.now_in("pkcs11")
    assert fabric.publics() == before
    assert attestation.release_secret("serial") != secret


@pytest.mark.parametrize("call", [1, 4])
def test_a_power_cut_on_the_way_into_a_token_loses_no_key(
    fabric: Fabric, token: None, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    before = fabric.publics()
    with cut_at((TokenCustody, "admit"), monkeypatch, call=call, after=True):
        fabric.run("move", "pkcs11")
    assert fabric.publics() == before
    fabric.run("move", "pkcs11")
    fabric.now_in("pkcs11")
    assert fabric.publics() == before
    assert fabric.run("show").count("in the token") == 6


def test_keys_of_a_token_stay_when_the_fabric_leaves_it(fabric: Fabric, token: None, tcti: str) -> None:
    fabric.run("move", "pkcs11")
    fabric.now_in("pkcs11")
    before = fabric.publics()
    assert fabric.run("move", "tpm").count("stays in the token") == 6
    fabric.now_in("tpm")
    assert fabric.publics() == before
    assert prepared_public() not in before.values()


def prepared_public() -> bytes:
    sealed, public = custody().generate("x")
    assert _point(custody().open(sealed, "x").public_key()) == _point(public)
    return _point(public)


def test_a_token_is_not_moved_into_itself_nor_backed_up(fabric: Fabric, token: None) -> None:
    fabric.run("move", "pkcs11")
    fabric.now_in("pkcs11")
    for words in (["move", "pkcs11"], ["move", "pkcs11", "--new-root"], ["backup", str(fabric.folder / "b")]):
        with pytest.raises(CommandError, match="custody_cannot_move"):
            fabric.run(*words, typed=PASSPHRASE)
    assert acts() == ["custody.moved"]


def test_a_token_that_is_not_set_is_a_sentence(fabric: Fabric) -> None:
    with pytest.raises(CommandError, match="GUARDHOUSE_CUSTODY_TOKEN"):
        fabric.run("move", "pkcs11")


# --- a new fabric ------------------------------------------------------------------------------------------------


def test_a_new_fabric_begins_in_the_tpm(empty: Fabric, tcti: str) -> None:
    empty.now_in("tpm")
    share = share_in(empty.run("create"))
    kps.metadata(now=now())
    before = empty.publics()
    update_firmware(tcti)
    empty.start_anew()
    with pytest.raises(CommandError, match="custody_boot_state"):
        empty.run("show")
    empty.run("recover", typed=share.lower().replace("-", " "))
    assert empty.publics() == before
    assert acts() == ["custody.created", "custody.recovered"]


def test_a_new_fabric_begins_in_a_token(empty: Fabric, token: None) -> None:
    empty.now_in("pkcs11")
    empty.run("create")
    kps.metadata(now=now())
    assert empty.run("show").count("in the token") == 2
    with pytest.raises(CommandError, match="custody_exists"):
        empty.run("create")


def test_a_fabric_with_keys_gets_no_other_root(fabric: Fabric, tcti: str) -> None:
    fabric.now_in("tpm")
    with pytest.raises(CommandError, match="custody_exists"):
        fabric.run("create")
    assert not (fabric.folder / "custody.tpm").exists()


def test_a_root_that_is_there_is_not_overwritten(empty: Fabric, tcti: str) -> None:
    empty.now_in("tpm")
    empty.run("create")
    content = (empty.folder / "custody.tpm").read_bytes()
    with pytest.raises(CommandError, match="custody_exists"):
        empty.run("create")
    assert (empty.folder / "custody.tpm").read_bytes() == content


# --- backup and recovery -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["insecure-file", "tpm"])
def test_a_backup_brings_everything_back(fabric: Fabric, tcti: str, to: str) -> None:
    before, backup = fabric.publics(), fabric.folder / "backup"
    root = (fabric.folder / "custody.key").read_bytes()
    fabric.run("backup", str(backup), typed=PASSPHRASE)
    assert backup.stat().st_mode & 0o777 == 0o600
    assert root not in backup.read_bytes()
    assert root.hex().encode() not in backup.read_bytes()
    (fabric.folder / "custody.key").unlink()
    fabric.now_in(to)
    fabric.run("restore", str(backup), typed=PASSPHRASE)
    assert fabric.publics() == before
    assert acts() == ["custody.backed-up", "custody.restored"]


def test_a_backup_takes_the_place_of_a_root_that_opens_nothing(fabric: Fabric) -> None:
    before, backup = fabric.publics(), fabric.folder / "backup"
    fabric.run("backup", str(backup), typed=PASSPHRASE)
    (fabric.folder / "custody.key").write_bytes(bytes(32))
    fabric.start_anew()
    fabric.run("restore", str(backup), typed=PASSPHRASE)
    assert fabric.publics() == before
    assert (fabric.folder / "custody.key.before").read_bytes() == bytes(32)


def test_a_backup_of_another_fabric_changes_nothing(fabric: Fabric) -> None:
    backup = fabric.folder / "backup"
    fabric.run("backup", str(backup), typed=PASSPHRASE)
    fabric.run("move", "insecure-file", "--new-root")
    before = fabric.publics()
    with pytest.raises(CommandError, match="of another fabric, or of before"):
        fabric.run("restore", str(backup), typed=PASSPHRASE)
    assert fabric.publics() == before
    assert acts() == ["custody.backed-up", "custody.moved"]


@pytest.mark.parametrize("typed", ["", "short", PASSPHRASE + "!"])
def test_a_backup_opens_by_its_passphrase_alone(fabric: Fabric, typed: str) -> None:
    backup = fabric.folder / "backup"
    fabric.run("backup", str(backup), typed=PASSPHRASE)
    with pytest.raises(CommandError, match="custody_share_refused"):
        fabric.run("restore", str(backup), typed=typed)
    assert acts() == ["custody.backed-up"]


def test_a_backup_has_a_passphrase_that_lasts_and_overwrites_nothing(fabric: Fabric) -> None:
    backup = fabric.folder / "backup"
    with pytest.raises(CommandError, match="at least 16 characters"):
        fabric.run("backup", str(backup), typed="fifteen letters")
    assert not backup.exists()
    backup.write_text("mine")
    with pytest.raises(CommandError, match="custody_exists"):
        fabric.run("backup", str(backup), typed=PASSPHRASE)
    assert (backup.read_text(), acts()) == ("mine", [])


@pytest.mark.parametrize("content", [b"", b"{}", b"a.b.c.d.e", b"\xff" * 50])
def test_what_is_no_backup_is_a_sentence(fabric: Fabric, content: bytes) -> None:
    (fabric.folder / "backup").write_bytes(content)
    with pytest.raises(CommandError, match=r"\(custody_malformed\)|\(custody_share_refused\)"):
        fabric.run("restore", str(fabric.folder / "backup"), typed=PASSPHRASE)
    with pytest.raises(CommandError, match="cannot be read"):
        fabric.run("restore", str(fabric.folder / "no such file"), typed=PASSPHRASE)


def test_after_a_firmware_update_the_share_and_nothing_else_brings_the_keys_back(fabric: Fabric, tcti: str) -> None:
    before, share = fabric.publics(), share_in(fabric.run("move", "tpm"))
    fabric.now_in("tpm")
    update_firmware(tcti)
    fabric.start_anew()
    for typed in ("", share[:-1], share[:-1] + ("A" if share[-1] != "A" else "B")):
        with pytest.raises(CommandError, match="custody_share_refused"):
            fabric.run("recover", typed=typed)
    with pytest.raises(CommandError, match="custody_boot_state"):
        fabric.run("show")
    fabric.run("recover", typed=share)
    assert fabric.publics() == before
    assert acts() == ["custody.moved", "custody.recovered"]


def test_a_share_that_was_replaced_opens_nothing(fabric: Fabric, tcti: str) -> None:
    first = share_in(fabric.run("move", "tpm"))
    fabric.now_in("tpm")
    second = share_in(fabric.run("share"))
    with pytest.raises(CommandError, match="custody_share_refused"):
        fabric.run("recover", typed=first)
    fabric.run("recover", typed=second)
    leaves = [repr(leaf.detail) for leaf in ledger.leaves(act_prefix="custody.")]
    assert not [each for each in leaves if first in each or second in each]
