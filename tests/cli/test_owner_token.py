"""An owner's keys in a PKCS#11 token: what they do there, and that nothing brings them out."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import pytest
from click.testing import CliRunner, Result

from cli.owner_file import place_of, read_card, read_place
from cli.template import template
from cli.tenant import tenant
from cli.token import ENCRYPTION, SIGNING, opened
from kps.core.guardian import build_metadata
from kps.core.protector import create_protector, open_protector, verify_protector
from kps.errors import MalformedDocument, SecretsRefused
from tests.kps.parties import FABRIC, NOW, STRANGER
from tests.tokens import LABEL, MODULE, PIN, softhsm

PASSPHRASE = "correct horse battery"


@dataclass(frozen=True)
class Kept:
    """An owner with a key file and sheets, made once."""

    folder: Path
    fingerprint: str


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("kept")
    (folder / "passphrase").write_text(PASSPHRASE)
    assert run(folder, "owner", "new", "--name", "Kontor Nord", "--out", folder / "owner.key").exit_code == 0
    sheets = ["--shares", 2, "--threshold", 2, "--out", folder / "sheets"]
    assert run(folder, "owner", "split", folder / "owner.key", *sheets).exit_code == 0
    return Kept(folder, read_card(folder / "owner.key").fingerprint)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    (tmp_path / "pin").write_text(f"{PIN}\n")
    (tmp_path / "metadata.json").write_text(json.dumps({"metadata": build_metadata(FABRIC, now=NOW)}))
    with softhsm(tmp_path):
        yield tmp_path


def run(home: Path, *words: object, **how: Any) -> Result:
    return invoked(home, tenant, words, **how)


def new(home: Path, *more: object, out: str = "owner.key", **how: Any) -> Result:
    return run(home, "owner", "new", "--name", "Kontor Nord", "--token", LABEL, "--out", home / out, *more, **how)


def load(home: Path, kept: Kept, *more: object, **how: Any) -> Result:
    return run(
        home, "owner", "load", kept.folder / "owner.key", "--token", LABEL, "--out", home / "t.key", *more, **how
    )


@pytest.fixture
def owner(home: Path) -> Path:
    done = new(home)
    assert done.exit_code == 0, done.output
    return home / "owner.key"


def invoked(home: Path, command: click.Command, words: Sequence[object], **how: Any) -> Result:
    files = {"PASSPHRASE_FILE": home / "passphrase", "PIN_FILE": home / "pin", "PKCS11_MODULE": MODULE}
    files |= how.pop("files", {})
    env = {f"GUARDHOUSE_{name}": str(path) if path and path.exists() else None for name, path in files.items()}
    env["XDG_CONFIG_HOME"] = str(home / "config")
    return CliRunner().invoke(command, [str(word) for word in words], env=env, **how)


def sign(home: Path, owner: Path, **how: Any) -> Result:
    """The quickest that a command does with an owner's keys."""
    (home / "disk.raw").write_bytes(bytes(4096))
    what = ["--name", "Debian", "--version", "1", "--out", home / f"catalog-{uuid4()}"]
    return invoked(home, template, ["sign", home / "disk.raw", "--signer", owner, *what], **how)


def objects() -> list[str]:
    """What is in the token, as somebody with the PIN sees it."""
    import pkcs11

    with pkcs11.lib(str(MODULE)).get_token(token_label=LABEL).open(user_pin=PIN) as session:
        return [str(key) for key in session.get_objects()]


def private_keys(session: Any) -> list[Any]:
    import pkcs11

    return list(session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY}))


# --- what they do ------------------------------------------------------------------------------------------------


def test_the_file_of_an_owner_in_a_token_holds_no_key(home: Path, owner: Path) -> None:
    shown = run(home, "owner", "show", owner).output
    assert f"keys in the token “{LABEL}”" in shown
    assert read_card(owner).fingerprint in shown
    place = read_place(owner)
    assert place is not None
    assert json.loads(owner.read_text())["keys"] == {"token": LABEL, "id": place.key_id.hex()}


def test_a_token_makes_a_key_protector_and_opens_it(home: Path, owner: Path) -> None:
    place, card = read_place(owner), read_card(owner)
    assert place is not None
    with opened(MODULE, LABEL, PIN) as token:
        keys, key = token.keys(card.name, place), bytes(range(32))
        made = create_protector(keys, [FABRIC.guardian], protector_id=uuid4(), level="shielded", key=key, now=NOW)
        verified = verify_protector(made)
        assert verified.owner == card
        assert open_protector(verified, keys.encryption) == key
        assert open_protector(verified, FABRIC.encryption) == key


@pytest.mark.parametrize("made", ["in the token", "outside"])
def test_no_key_comes_out_of_the_token_and_each_has_one_use(home: Path, kept: Kept, made: str) -> None:
    import pkcs11
    from pkcs11 import Attribute

    done = new(home) if made == "in the token" else load(home, kept)
    assert done.exit_code == 0, done.output
    with pkcs11.lib(str(MODULE)).get_token(token_label=LABEL).open(user_pin=PIN) as session:
        keys = {key.label: key for key in private_keys(session)}
        assert set(keys) == {SIGNING, ENCRYPTION}
        for label, key in keys.items():
            assert (key[Attribute.SENSITIVE], key[Attribute.EXTRACTABLE], key[Attribute.PRIVATE]) == (True, False, True)
            assert (key[Attribute.SIGN], key[Attribute.DERIVE]) == (label == SIGNING, label == ENCRYPTION)
            with pytest.raises(pkcs11.exceptions.AttributeSensitive):
                key[Attribute.VALUE]
        assert {key[Attribute.LOCAL] for key in keys.values()} == {made == "in the token"}


def test_a_vm_that_a_token_s_owner_protects_opens_with_the_same_owner_s_sheets(home: Path, kept: Kept) -> None:
    done = load(home, kept)
    assert (done.exit_code, "still in" in done.output) == (0, True), done.output
    assert read_card(home / "t.key").fingerprint == kept.fingerprint
    what = ["--guardian", home / "metadata.json", "--name", "payroll", "--level", "shielded", "--memory", 64]
    assert run(home, "protect", "--owner", home / "t.key", *what, "--demo-disk", "--out", home / "vm").exit_code == 0
    for drill in (given(kept), ["--copy", home / "t.key"]):
        drilled = run(home, "owner", "drill", *drill, "--vm", home / "vm")
        assert (drilled.exit_code, "1 MiB" in drilled.output) == (0, True), drilled.output


def given(kept: Kept) -> list[object]:
    return [word for sheet in sorted((kept.folder / "sheets").iterdir()) for word in ("--share", sheet)]


def test_a_lost_token_is_replaced_from_paper(home: Path, kept: Kept) -> None:
    (home / "passphrase").unlink()
    done = run(home, "owner", "recover", *given(kept), "--token", LABEL, "--out", home / "t.key")
    assert done.exit_code == 0, done.output
    assert read_card(home / "t.key").fingerprint == kept.fingerprint
    assert sign(home, home / "t.key").exit_code == 0


def test_a_lost_file_is_found_in_the_token_again(home: Path, kept: Kept, owner: Path) -> None:
    card = read_card(owner)
    owner.unlink()
    find = ["owner", "find", "--token", LABEL, "--name", "Kontor", "--out", home / "again.key"]
    assert run(home, *find).exit_code == 0
    assert read_card(home / "again.key").fingerprint == card.fingerprint
    assert sign(home, home / "again.key").exit_code == 0
    (home / "again.key").unlink()
    assert load(home, kept).exit_code == 0
    done = run(home, *find)
    assert (done.exit_code, "Several owners" in done.output) == (2, True)
    assert run(home, *find, "--fingerprint", card.fingerprint).exit_code == 0
    (home / "again.key").unlink()
    assert run(home, *find, "--fingerprint", STRANGER.guardian.fingerprint).exit_code == 1
    assert not (home / "again.key").exists()


# --- what is refused ---------------------------------------------------------------------------------------------


def test_a_wrong_pin_is_tried_once_and_said(home: Path, owner: Path) -> None:
    (home / "pin").write_text("000000")
    done = sign(home, owner)
    assert (done.exit_code, "refuses the PIN" in done.output, "000000" in done.output) == (1, True, False)
    assert not list(home.glob("catalog*"))


def test_a_passphrase_is_never_tried_as_a_pin(home: Path, owner: Path) -> None:
    (home / "pin").unlink()
    done = sign(home, owner, input=f"{PIN}\n")
    assert (done.exit_code, f"PIN of the token {LABEL}" in done.output, PIN in done.output) == (0, True, False)
    (home / "passphrase").write_text(PIN)
    assert sign(home, owner).exit_code == 1


def test_no_option_takes_a_pin_and_no_file_a_library(home: Path, owner: Path) -> None:
    for option in ("--pin", "--user-pin", "--so-pin"):
        assert new(home, option, PIN, out="x.key").exit_code == 2
    document = json.loads(owner.read_text())
    document["keys"]["module"] = str(MODULE)
    owner.write_text(json.dumps(document))
    assert sign(home, owner).exit_code == 1


def test_without_a_library_it_is_said_what_is_missing(home: Path, owner: Path) -> None:
    done = sign(home, owner, files={"PKCS11_MODULE": None})
    assert (done.exit_code, "GUARDHOUSE_PKCS11_MODULE" in done.output) == (1, True)
    (home / "no-library").write_text("x")
    done = sign(home, owner, files={"PKCS11_MODULE": home / "no-library"})
    assert (done.exit_code, "cannot be loaded" in done.output) == (1, True), done.output


def test_without_its_package_it_is_said_what_to_install(
    home: Path, owner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    done = sign(home, owner)
    assert (done.exit_code, "guardhouse[token]" in done.output) == (1, True), done.output


def test_another_token_or_a_key_that_was_removed_is_a_sentence(home: Path, owner: Path) -> None:
    import pkcs11

    document = json.loads(owner.read_text())
    for token, key_id, sentence in (
        ("another", document["keys"]["id"], "no token called another"),
        (LABEL, "00" * 16, "no key"),
    ):
        owner.write_text(json.dumps({**document, "keys": {"token": token, "id": key_id}}))
        done = sign(home, owner)
        assert (done.exit_code, sentence in done.output) == (1, True), done.output
    owner.write_text(json.dumps(document))
    with pkcs11.lib(str(MODULE)).get_token(token_label=LABEL).open(rw=True, user_pin=PIN) as session:
        for key in private_keys(session):
            key.destroy()
    assert "the key was removed" in sign(home, owner).output


def test_keys_of_another_than_the_card_s_owner_are_refused(home: Path, owner: Path) -> None:
    document = json.loads(owner.read_text())
    owner.write_text(json.dumps({**document, "owner": STRANGER.guardian.card}))
    assert "not that of the keys" in sign(home, owner).output


@pytest.mark.parametrize(
    "how", [("split", "--shares", 2, "--threshold", 2, "--out", "sheets"), ("passphrase",)], ids=lambda how: how[0]
)
def test_what_only_a_key_file_can_do_is_refused(home: Path, owner: Path, how: tuple[object, ...]) -> None:
    verb, *more = how
    done = run(home, "owner", verb, owner, *more)
    assert (done.exit_code, "`owner load`" in done.output) == (1, True)


def test_keys_to_which_no_file_leads_are_not_left_in_the_token(home: Path, kept: Kept) -> None:
    for taken in (home / "owner.key", home / "t.key"):
        taken.write_text("something")
    assert (new(home).exit_code, load(home, kept).exit_code) == (1, 1)
    assert (home / "owner.key").read_text() == "something"
    assert objects() == []


@pytest.mark.parametrize(
    "keys",
    [{}, {"token": "x"}, {"token": "x", "id": "00"}, {"token": "x" * 33, "id": "00" * 16}, {"token": 1, "id": 2}],
)
def test_a_damaged_place_is_refused(keys: object) -> None:
    with pytest.raises(MalformedDocument):
        place_of({"keys": keys})


def test_reading_a_token_s_owner_as_a_file_is_refused(home: Path, owner: Path) -> None:
    from cli.owner_file import read_owner_secret

    with pytest.raises(SecretsRefused, match="do not leave it"):
        read_owner_secret(owner, PASSPHRASE)
