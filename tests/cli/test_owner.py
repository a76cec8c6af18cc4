"""The owner's commands: shares, recovery, drill, passphrase; and that nothing of a secret stays behind."""

import json
import os
import pty
import re
import select
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cli.backup import open_state
from cli.care import parse_care
from cli.owner_file import read_owner, read_owner_secret
from cli.owner_secret import OwnerSecret
from cli.recovery import Share, parse_share
from cli.tenant import tenant
from kps.core.guardian import build_metadata
from kps.errors import SecretsRefused
from tests.kps.parties import FABRIC, NOW, STRANGER, protector

PATIENCE = 30.0
PASSPHRASE, NEW_PASSPHRASE = "correct horse battery", "another horse battery"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return furnished(tmp_path)


def furnished(folder: Path) -> Path:
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    (folder / "new").write_text(NEW_PASSPHRASE + "\n")
    (folder / "metadata.json").write_text(json.dumps({"metadata": build_metadata(FABRIC, now=NOW)}))
    return folder


def run(home: Path, *words: object, env: dict[str, str] | None = None, **how: Any) -> Result:
    environment = {"GUARDHOUSE_PASSPHRASE_FILE": str(home / "passphrase"), "XDG_CONFIG_HOME": str(home / "config")}
    return CliRunner().invoke(tenant, [str(word) for word in words], env={**environment, **(env or {})}, **how)


def made(home: Path, name: str = "Kontor Nord", file: str = "owner.key") -> OwnerSecret:
    done = run(home, "owner", "new", "--name", name, "--out", home / file)
    assert done.exit_code == 0, done.output
    return read_owner_secret(home / file, PASSPHRASE)


@dataclass(frozen=True)
class Kept:
    """One owner with sheets and two VMs, made once: each test has its copy."""

    folder: Path
    owner: OwnerSecret

    def copy(self, *names: str, into: Path) -> None:
        for name in names:
            source = self.folder / name
            (shutil.copytree if source.is_dir() else shutil.copy2)(source, into / name)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = furnished(tmp_path_factory.mktemp("kept"))
    owner = made(folder)
    split(folder)
    for name in ("payroll", "other"):
        what = ["--guardian", folder / "metadata.json", "--name", name, "--level", "shielded", "--memory", 64]
        done = run(folder, "protect", "--owner", folder / "owner.key", *what, "--demo-disk", "--out", folder / name)
        assert done.exit_code == 0, done.output
    return Kept(folder, owner)


@pytest.fixture
def owner(home: Path, kept: Kept) -> OwnerSecret:
    kept.copy("owner.key", into=home)
    return kept.owner


@pytest.fixture
def fingerprint(owner: OwnerSecret) -> str:
    return owner.keys.guardian.fingerprint


@pytest.fixture
def sheets(home: Path, owner: OwnerSecret, kept: Kept) -> list[Path]:
    kept.copy("sheets", "config", into=home)
    return [home / "sheets" / f"share-{number}.txt" for number in range(1, 6)]


@pytest.fixture
def bundle(home: Path, kept: Kept) -> Path:
    kept.copy("payroll", into=home)
    return home / "payroll"


def split(home: Path, *, file: str = "owner.key", out: str = "sheets") -> list[Path]:
    how_many = ["--shares", 5, "--threshold", 3]
    done = run(home, "owner", "split", home / file, *how_many, "--out", home / out)
    assert done.exit_code == 0, done.output
    return [home / out / f"share-{number}.txt" for number in range(1, 6)]


def given(*sheets: Path) -> list[object]:
    return [word for sheet in sheets for word in ("--share", sheet)]


def words(sheet: Path) -> str:
    return " ".join(parse_share(sheet.read_bytes()).words)


def recover(home: Path, *more: object, **how: Any) -> Result:
    return run(home, "owner", "recover", *more, "--out", home / "again.key", **how)


def drill(home: Path, *more: object, **how: Any) -> Result:
    return run(home, "owner", "drill", *more, **how)


def shown(home: Path) -> str:
    return run(home, "owner", "show", home / "owner.key").output


def secrets_of(owner: OwnerSecret) -> list[bytes]:
    """The owner's secret and keys as they would lie in a file, in each way that is near at hand."""
    raw = [owner.secret]
    for key in (owner.keys.signing, owner.keys.encryption):
        raw.append(key.private_numbers().private_value.to_bytes(32, "big"))
        raw.append(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    return [form for each in raw for form in (each, each.hex().encode(), repr(each).encode())]


def files(home: Path) -> Iterator[Path]:
    return (path for path in home.rglob("*") if path.is_file())


# --- split -------------------------------------------------------------------------------------------------------


def test_each_share_is_a_file_of_its_own_for_its_owner_s_eyes_only(sheets: list[Path]) -> None:
    assert {stat.S_IMODE(sheet.stat().st_mode) for sheet in sheets} == {0o600}
    assert stat.S_IMODE(sheets[0].parent.stat().st_mode) == 0o700
    assert sorted(sheets[0].parent.iterdir()) == sheets


def test_no_word_of_a_share_is_on_the_screen_or_in_the_record(home: Path, owner: OwnerSecret) -> None:
    done = run(home, "owner", "split", home / "owner.key", "--shares", 2, "--threshold", 2, "--out", home / "sheets")
    share = parse_share((home / "sheets" / "share-1.txt").read_bytes())
    record = (home / "config" / "guardhouse" / "owners" / f"{owner.keys.guardian.fingerprint}.json").read_text()
    for text in (done.output, record):
        assert share.set_name in text
        assert " ".join(share.words[2:5]) not in text


def test_shares_go_to_no_other_place_than_a_terminal_or_a_folder(home: Path, owner: OwnerSecret) -> None:
    done = run(home, "owner", "split", home / "owner.key", "--shares", 2, "--threshold", 2)
    assert (done.exit_code, "on a terminal only" in done.output) == (2, True)


@pytest.mark.parametrize(
    "wish", [("5", "1"), ("17", "3"), ("2", "3"), ("1", "1"), ("0", "0"), ("3", "x")], ids=" ".join
)
def test_a_wish_that_protects_nothing_is_refused(home: Path, owner: OwnerSecret, wish: tuple[str, str]) -> None:
    how = ["--shares", wish[0], "--threshold", wish[1], "--out", home / "sheets"]
    assert run(home, "owner", "split", home / "owner.key", *how).exit_code == 2
    assert not (home / "sheets").exists()


def test_shares_are_not_written_among_others(home: Path, sheets: list[Path]) -> None:
    before = [sheet.read_bytes() for sheet in sheets]
    how = ["--shares", 5, "--threshold", 3, "--out", home / "sheets"]
    assert run(home, "owner", "split", home / "owner.key", *how).exit_code == 1
    assert [sheet.read_bytes() for sheet in sheets] == before


def test_a_wrong_passphrase_makes_no_shares(home: Path, owner: OwnerSecret) -> None:
    (home / "passphrase").write_text(NEW_PASSPHRASE)
    how = ["--shares", 5, "--threshold", 3, "--out", home / "sheets"]
    assert "does not open" in run(home, "owner", "split", home / "owner.key", *how).output
    assert not (home / "sheets").exists()


# --- recover -----------------------------------------------------------------------------------------------------


def test_papers_and_nothing_else_are_the_owner(home: Path, owner: OwnerSecret, sheets: list[Path]) -> None:
    (home / "owner.key").unlink()
    (home / "passphrase").write_text(NEW_PASSPHRASE)
    done = recover(home, *given(*sheets[2:]))
    assert (done.exit_code, owner.keys.guardian.fingerprint in done.output) == (0, True), done.output
    assert read_owner_secret(home / "again.key", NEW_PASSPHRASE) == owner
    assert stat.S_IMODE((home / "again.key").stat().st_mode) == 0o600


def test_what_is_typed_from_paper_recovers(
    home: Path, owner: OwnerSecret, sheets: list[Path], fingerprint: str
) -> None:
    typed = [words(sheets[0]), words(sheets[4]).replace(" ", "  ", 3), words(sheets[1]).upper()]
    done = recover(home, "--name", "Kontor Nord", "--fingerprint", fingerprint, input="\n".join(typed) + "\n")
    assert done.exit_code == 0, done.output
    assert read_owner_secret(home / "again.key", PASSPHRASE) == owner


def test_a_mistyped_share_is_asked_for_again(
    home: Path, owner: OwnerSecret, sheets: list[Path], fingerprint: str
) -> None:
    first, second, third = map(words, sheets[:3])
    typed = [first, "zebra " + second, second[: second.rindex(" ")], second, first, third]
    told = ["--name", "x", "--fingerprint", fingerprint]
    done = recover(home, *told, input="\n".join(typed) + "\n")
    assert done.exit_code == 0, done.output
    assert done.output.count("Once more") == 2


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)])
def test_without_a_fingerprint_a_person_is_asked(home: Path, sheets: list[Path], answer: str, code: int) -> None:
    done = recover(home, "--name", "x", input="\n".join([*map(words, sheets[:3]), answer, ""]))
    assert (done.exit_code, (home / "again.key").exists()) == (code, code == 0)
    assert "the fingerprint on your papers?" in done.output


def spoiled(sheet: Path, change: Callable[[list[str]], Any]) -> Path:
    """The words of a sheet with a mistake, labels and all."""
    found = list(parse_share(sheet.read_bytes()).words)
    change(found)
    head = sheet.read_text().split("\n\n")[0]
    path = sheet.with_name(f"spoiled-{uuid4()}")
    path.write_text(f"{head}\n\n{' '.join(found)}\n")
    return path


def test_every_set_that_does_not_fit_is_refused_with_a_sentence(home: Path, sheets: list[Path]) -> None:
    made(home, "somebody", "other.key")
    later, others = split(home, out="later"), split(home, file="other.key", out="others")
    first, second, third = sheets[:3]
    cases: dict[str, list[Path]] = {
        "3 different ones of one set are needed, 2 are here": [first, second],
        "3 different ones of one set are needed, 1 are here": [first, first],
        "different sets": [first, second, later[2]],
        "Share 3 is of another owner": [first, second, others[2]],
        "checksum of a recovery share does not hold": [first, second, spoiled(third, lambda words: words.reverse())],
        "Word 9 of a recovery share is not one": [first, second, spoiled(third, lambda w: w.__setitem__(8, "zebra"))],
        "this one has 32": [first, second, spoiled(third, list.pop)],
        "not text": [first, second, home / "noise"],
    }
    (home / "noise").write_bytes(b"\xff\x00")
    for sentence, chosen in cases.items():
        done = recover(home, *given(*chosen))
        assert (done.exit_code, sentence in done.output, "Error:" in done.output) == (1, True, True), done.output
        assert not (home / "again.key").exists()


def test_the_file_with_the_mistake_is_named(home: Path, sheets: list[Path]) -> None:
    bad = spoiled(sheets[0], list.pop)
    assert str(bad) in recover(home, *given(bad, *sheets[1:])).output


def test_good_shares_of_another_owner_than_told_are_refused(home: Path, sheets: list[Path]) -> None:
    done = recover(home, *given(*sheets), "--fingerprint", STRANGER.guardian.fingerprint)
    assert (done.exit_code, "of another owner" in done.output) == (1, True)


def test_an_existing_file_is_not_replaced(home: Path, sheets: list[Path]) -> None:
    (home / "again.key").write_text("something")
    assert recover(home, *given(*sheets)).exit_code == 1
    assert (home / "again.key").read_text() == "something"


def test_a_short_passphrase_recovers_nothing(home: Path, sheets: list[Path]) -> None:
    (home / "passphrase").write_text("short")
    assert recover(home, *given(*sheets)).exit_code == 1
    assert not (home / "again.key").exists()


def test_words_without_a_name_need_one(home: Path, sheets: list[Path], fingerprint: str) -> None:
    (home / "bare").write_text(words(sheets[0]))
    done = recover(home, *given(home / "bare"), "--fingerprint", fingerprint)
    assert (done.exit_code, "--name" in done.output) == (2, True)


# --- drill -------------------------------------------------------------------------------------------------------


def record_of(home: Path, fingerprint: str) -> Path:
    return home / "config" / "guardhouse" / "owners" / f"{fingerprint}.json"


def test_a_drill_opens_a_vm_and_is_remembered(home: Path, bundle: Path, sheets: list[Path], fingerprint: str) -> None:
    (home / "protector.json").write_text(json.dumps(json.loads((bundle / "state.0.json").read_text())["protector"]))
    assert shown(home).count("WARNING") == 1
    vms = [word for vm in (bundle, bundle / "state.0.json", home / "protector.json") for word in ("--vm", vm)]
    done = drill(home, *given(*sheets[1:4]), *vms)
    assert done.exit_code == 0, done.output
    assert done.output.count("Opened ") == 3
    assert fingerprint in done.output
    assert f"its disk {bundle / 'disk.qcow2'}, 1 MiB" in done.output
    assert done.output.count("No disk was there") == 2
    what = r"last drill that succeeded: 20\d\d-\d\d-\d\d, shares 2, 3, 4 of “.*”, VMs opened: 3, disks: 1\n"
    assert re.search(what, shown(home))
    assert "WARNING" not in shown(home)


def test_a_drill_leaves_no_key_behind(home: Path, bundle: Path, sheets: list[Path], owner: OwnerSecret) -> None:
    before = {path: path.read_bytes() for path in files(home)}
    assert drill(home, *given(*sheets[:3]), "--vm", bundle).exit_code == 0
    changed = [path for path in files(home) if before.get(path) != path.read_bytes()]
    record = record_of(home, owner.keys.guardian.fingerprint)
    assert changed == [record]
    assert not [secret for secret in secrets_of(owner) if secret in record.read_bytes()]


@pytest.mark.parametrize("told", ["nothing", "file", "fingerprint"])
def test_a_drill_compares_with_what_it_is_told(home: Path, sheets: list[Path], fingerprint: str, told: str) -> None:
    how: dict[str, list[object]] = {
        "nothing": [],
        "file": ["--owner", home / "owner.key"],
        "fingerprint": ["--fingerprint", fingerprint.upper()],
    }
    assert drill(home, *given(*sheets[:3]), *how[told]).exit_code == 0


def test_a_drill_that_fails_is_remembered_with_its_reason(home: Path, sheets: list[Path], fingerprint: str) -> None:
    (home / "strange.json").write_text(json.dumps(protector(owner=STRANGER)))
    (home / "noise.json").write_text("{}")
    (home / "empty").mkdir()
    for refused, sentence in {
        (*given(*sheets[:2]),): "Too few",
        (*given(*sheets[:3]), "--vm", home / "strange.json"): "is of another owner",
        (*given(*sheets[:3]), "--vm", home / "noise.json"): "members",
        (*given(*sheets[:3]), "--vm", home / "empty"): "no state file",
        (*given(home / "noise.json"), "--owner", home / "owner.key"): "not one of the 1024 words",
    }.items():
        done = drill(home, *refused)
        assert (done.exit_code, sentence in done.output) == (1, True), done.output
        assert re.search(f"WARNING: the last drill failed, 20.*{sentence}", shown(home))
    assert "no drill on this machine has ever succeeded" in shown(home)
    [*_, last] = parse_care(record_of(home, fingerprint).read_bytes()).drills
    assert (last.set_name, last.shares, last.opened) == (None, (), 0)


def test_a_drill_with_another_owner_s_shares_fails_for_the_owner_it_was_for(home: Path, sheets: list[Path]) -> None:
    made(home, "somebody", "other.key")
    done = drill(home, *given(*sheets[:3]), "--owner", home / "other.key")
    assert (done.exit_code, "of another owner" in done.output) == (1, True)
    assert "the last drill failed" in run(home, "owner", "show", home / "other.key").output
    assert "recovery was never tried" in shown(home)


def test_a_failed_drill_of_nobody_known_says_that_it_is_not_on_record(home: Path, sheets: list[Path]) -> None:
    for sheet in sheets[:2]:
        sheet.write_text(words(sheet))
    done = drill(home, *given(*sheets[:2]))
    assert (done.exit_code, "not on record" in done.output, "Too few" in done.output) == (1, True, True)
    assert "recovery was never tried" in shown(home)


def test_after_a_failed_drill_the_last_good_one_is_said_too(home: Path, sheets: list[Path]) -> None:
    assert drill(home, *given(*sheets[:3])).exit_code == 0
    assert drill(home, *given(*sheets[:2])).exit_code == 1
    said = shown(home)
    assert "the last drill failed" in said
    assert "last drill that succeeded" in said
    assert drill(home, *given(*sheets[:3])).exit_code == 0
    assert "WARNING" not in shown(home)


def test_a_disk_that_does_not_open_with_the_vm_s_secrets_fails_the_drill(
    home: Path, kept: Kept, bundle: Path, sheets: list[Path]
) -> None:
    kept.copy("other", into=home)
    other = home / "other"
    (bundle / "disk.qcow2").rename(home / "moved.qcow2")
    given_to = [*given(*sheets[:3]), "--vm", bundle]
    assert drill(home, *given_to, "--disk", home / "moved.qcow2").exit_code == 0
    assert "disks: 1\n" in shown(home)
    for strange in (other / "disk.qcow2", home / "passphrase"):
        done = drill(home, *given_to, "--disk", strange)
        assert (done.exit_code, f"Error: {strange}" in done.output) == (1, True), done.output
    (other / "disk.qcow2").rename(bundle / "disk.qcow2")
    assert drill(home, *given_to).exit_code == 1
    assert "the last drill failed" in shown(home)


def test_a_disk_is_not_passed_over_in_silence(home: Path, bundle: Path, sheets: list[Path]) -> None:
    (home / "protector.json").write_text(json.dumps(json.loads((bundle / "state.0.json").read_text())["protector"]))
    disk = ["--disk", bundle / "disk.qcow2"]
    done = drill(home, *given(*sheets[:3]), "--vm", home / "protector.json", *disk)
    assert (done.exit_code, "bare key protector" in done.output) == (1, True)
    assert drill(home, *given(*sheets[:3]), *disk).exit_code == 2
    assert drill(home, *given(*sheets[:3]), "--vm", bundle, "--vm", bundle, *disk).exit_code == 2


def test_no_key_is_on_the_command_line_of_what_a_drill_starts(
    home: Path, bundle: Path, sheets: list[Path], owner: OwnerSecret, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = home / "seen"
    seen.mkdir()
    for program in ("qemu-nbd", "qemu-img"):
        real = shutil.which(program)
        (seen / program).write_text(f'#!/bin/sh\ntr "\\0" "\\n" </proc/$$/cmdline >>{seen}/said\nexec {real} "$@"\n')
        (seen / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{seen}:{os.environ['PATH']}")
    assert drill(home, *given(*sheets[:3]), "--vm", bundle).exit_code == 0
    said = (seen / "said").read_text()
    assert "secret,id=disk,file=/dev/fd/" in said
    opened = open_state(bundle / "state.0.json", owner.keys).secrets
    assert opened is not None
    assert opened.disk_passphrase not in said


def test_a_copy_of_the_key_file_is_tried_instead_of_shares(home: Path, bundle: Path, sheets: list[Path]) -> None:
    copy = ["--copy", home / "owner.key", "--vm", bundle]
    done = drill(home, *copy)
    assert (done.exit_code, "owner.key opens the owner" in done.output) == (0, True), done.output
    said = shown(home)
    assert re.search("last drill that succeeded: .*, with a copy of the key file or the token, VMs opened: 1", said)
    assert "the shares made last were never tried" in said
    assert drill(home, *copy, *given(*sheets[:3])).exit_code == 2
    (home / "passphrase").write_text(NEW_PASSPHRASE)
    assert drill(home, *copy).exit_code == 1
    assert "the last drill failed" in shown(home)


def test_a_copy_of_another_owner_s_key_file_fails_the_drill(home: Path, owner: OwnerSecret) -> None:
    made(home, "somebody", "other.key")
    done = drill(home, "--copy", home / "other.key", "--owner", home / "owner.key")
    assert (done.exit_code, "another owner" in done.output) == (1, True)
    assert "the last drill failed" in shown(home)


@pytest.mark.parametrize("written", ["../../elsewhere", "f" * 63, "g" * 64, ""])
def test_what_is_no_fingerprint_is_refused(home: Path, sheets: list[Path], written: str) -> None:
    assert drill(home, *given(*sheets[:2]), "--fingerprint", written).exit_code == 2


def test_a_vm_whose_secrets_were_altered_fails_the_drill(home: Path, bundle: Path, sheets: list[Path]) -> None:
    state = json.loads((bundle / "state.0.json").read_text())
    head, key, iv, secrets, tag = state["secrets"].split(".")
    state["secrets"] = ".".join((head, key, iv, secrets[::-1], tag))
    (home / "altered.json").write_text(json.dumps(state))
    done = drill(home, *given(*sheets[:3]), "--vm", home / "altered.json")
    assert (done.exit_code, "do not open" in done.output) == (1, True)


def test_the_newest_state_of_a_bundle_is_the_one_that_is_opened(home: Path, bundle: Path, sheets: list[Path]) -> None:
    (bundle / "state.10.json").write_text("{}")
    (bundle / "state.9.json").write_bytes((bundle / "state.0.json").read_bytes())
    assert drill(home, *given(*sheets[:3]), "--vm", bundle).exit_code == 1
    (bundle / "state.10.json").unlink()
    assert drill(home, *given(*sheets[:3]), "--vm", bundle).exit_code == 0


# --- what show says ----------------------------------------------------------------------------------------------


def test_an_owner_without_shares_and_drill_is_warned_of_both(home: Path, owner: OwnerSecret) -> None:
    said = shown(home)
    assert "no recovery shares were made" in said
    assert "recovery was never tried" in said


def test_new_shares_that_were_never_tried_are_said(home: Path, sheets: list[Path]) -> None:
    assert drill(home, *given(*sheets[:3])).exit_code == 0
    assert "WARNING" not in shown(home)
    split(home, out="later")
    assert "the shares made last were never tried" in shown(home)


def test_one_owner_s_drill_is_not_another_s(home: Path, sheets: list[Path]) -> None:
    assert drill(home, *given(*sheets[:3])).exit_code == 0
    made(home, "somebody", "other.key")
    assert "recovery was never tried" in run(home, "owner", "show", home / "other.key").output


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version":2,"splits":[],"drills":[]}', b"\xff"])
def test_a_damaged_record_is_said_and_never_written_over(home: Path, sheets: list[Path], content: bytes) -> None:
    [record] = (home / "config" / "guardhouse" / "owners").glob("*.json")
    record.write_bytes(content)
    assert "is damaged" in shown(home)
    assert drill(home, *given(*sheets[:3])).exit_code == 1
    assert record.read_bytes() == content


def test_the_record_keeps_the_newest(home: Path, sheets: list[Path], fingerprint: str) -> None:
    record = record_of(home, fingerprint)
    for _ in range(2):
        old = json.loads(record.read_text())
        old["splits"] *= 32
        record.write_text(json.dumps(old | {"splits": old["splits"][:32]}))
        split(home, out=f"sheets-{len(list(home.iterdir()))}")
    care = parse_care(record.read_bytes())
    assert len(care.splits) == 32
    assert care.splits[-1] != care.splits[0]


# --- passphrase --------------------------------------------------------------------------------------------------


def change(home: Path, **how: Any) -> Result:
    return run(home, "owner", "passphrase", home / "owner.key", "--new-passphrase-file", home / "new", **how)


def test_another_passphrase_opens_the_same_owner(home: Path, owner: OwnerSecret) -> None:
    done = change(home)
    assert done.exit_code == 0, done.output
    assert read_owner_secret(home / "owner.key", NEW_PASSPHRASE) == owner
    with pytest.raises(SecretsRefused):
        read_owner(home / "owner.key", PASSPHRASE)
    assert stat.S_IMODE((home / "owner.key").stat().st_mode) == 0o600
    assert not list(home.glob(".owner*"))


@pytest.mark.parametrize(
    ("old", "new"), [("a wrong passphrase", NEW_PASSPHRASE), (PASSPHRASE, "short"), (PASSPHRASE, "")]
)
def test_a_passphrase_that_is_wrong_or_short_changes_nothing(
    home: Path, owner: OwnerSecret, old: str, new: str
) -> None:
    before = (home / "owner.key").read_bytes()
    (home / "passphrase").write_text(old)
    (home / "new").write_text(new)
    assert change(home).exit_code == 1
    assert (home / "owner.key").read_bytes() == before


def test_the_new_passphrase_is_asked_for_twice_and_shown_never(home: Path, owner: OwnerSecret) -> None:
    answers = f"{PASSPHRASE}\n{NEW_PASSPHRASE}\n{NEW_PASSPHRASE}\n"
    done = run(home, "owner", "passphrase", home / "owner.key", env={"GUARDHOUSE_PASSPHRASE_FILE": ""}, input=answers)
    assert done.exit_code == 0, done.output
    assert read_owner_secret(home / "owner.key", NEW_PASSPHRASE) == owner
    assert not {PASSPHRASE, NEW_PASSPHRASE} & set(done.output.split("\n"))
    assert "horse" not in done.output


def test_a_link_to_the_file_stays_a_link(home: Path, owner: OwnerSecret) -> None:
    (home / "owner.key").rename(home / "stick.key")
    (home / "owner.key").symlink_to(home / "stick.key")
    assert change(home).exit_code == 0
    assert (home / "owner.key").is_symlink()
    assert read_owner_secret(home / "stick.key", NEW_PASSPHRASE) == owner


# --- on a terminal -----------------------------------------------------------------------------------------------


class Terminal:
    """The real command on a real terminal."""

    def __init__(self, home: Path, *words: object) -> None:
        environment = {**os.environ, "XDG_CONFIG_HOME": str(home / "config"), "TERM": "xterm"}
        environment |= {"GUARDHOUSE_PASSPHRASE_FILE": str(home / "passphrase")}
        arguments = [sys.executable, "-c", "from cli.main import main; main()", "tenant", *map(str, words)]
        self.output, self._seen = "", 0
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:  # pragma: no cover
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background has it ignored, and hands that on
            os.execve(sys.executable, arguments, environment)  # noqa: S606  (no shell is wanted)

    def until(self, pattern: str) -> re.Match[str]:
        """Read on until this comes; what comes after it is for the next call."""
        while (found := re.search(pattern, self.output[self._seen :])) is None:
            assert self._read(), f"{pattern} did not come: {self.output}"
        self._seen += found.end()
        return found

    def type(self, line: str) -> None:
        os.write(self._descriptor, f"{line}\n".encode())

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._descriptor)  # who still waits for its terminal is hung up on
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def _read(self) -> str:
        """What comes next; nothing when the other side has closed, or says nothing more."""
        if not select.select([self._descriptor], [], [], PATIENCE)[0]:
            return ""
        try:
            part = os.read(self._descriptor, 4096).decode()
        except OSError:
            return ""
        self.output += part
        return part


SHEET = r"(?s)Write this on paper.*?Made: \S+\s+(.*?)Then press Enter"


def copied(terminal: Terminal) -> Share:
    """Copy the sheet that is shown, and answer the question about it."""
    share = parse_share(terminal.until(SHEET)[1].encode())
    terminal.type("")
    asked = terminal.until(r"Word (\d+) of share (\d+), from your paper: ")
    assert int(asked[2]) == share.number
    terminal.type(share.words[int(asked[1]) - 1])
    return share


def test_shares_are_shown_one_at_a_time_and_not_left_on_the_screen(home: Path, owner: OwnerSecret) -> None:
    terminal = Terminal(home, "owner", "split", home / "owner.key", "--shares", 3, "--threshold", 2)
    shares = [copied(terminal) for _ in range(3)]
    terminal.until("recover Kontor Nord")
    assert terminal.end() == 0
    assert terminal.output.index("\x1b[?1049h") < terminal.output.index("Write this")
    after = terminal.output.partition("\x1b[?1049l")[2]
    assert after
    assert " ".join(shares[0].words[4:6]) not in after
    assert [share.number for share in shares] == [1, 2, 3]
    (home / "bare").mkdir()
    for share in shares:
        (home / "bare" / f"{share.number}").write_text(" ".join(share.words))
    some = re.compile(" +[0-9]* *".join(shares[0].words[5:8]))
    assert not [path for path in files(home) if path.parent.name != "bare" and some.search(path.read_text())]
    told = ["--name", "x", "--fingerprint", owner.keys.guardian.fingerprint]
    assert recover(home, *given(home / "bare" / "1", home / "bare" / "3"), *told).exit_code == 0


def test_a_sheet_is_shown_again_until_it_was_copied(home: Path, owner: OwnerSecret) -> None:
    terminal = Terminal(home, "owner", "split", home / "owner.key", "--shares", 2, "--threshold", 2)
    terminal.until(SHEET)
    terminal.type("")
    terminal.until("from your paper: ")
    terminal.type("zebra")
    terminal.until("Look again")
    assert [copied(terminal).number, copied(terminal).number] == [1, 2]
    assert terminal.end() == 0


def test_shares_that_were_not_all_copied_are_not_on_record(home: Path, owner: OwnerSecret) -> None:
    terminal = Terminal(home, "owner", "split", home / "owner.key", "--shares", 2, "--threshold", 2)
    terminal.until(SHEET)
    terminal.type("\x03")
    assert terminal.end() != 0
    assert terminal.output.rstrip().endswith("Aborted!")
    assert "no recovery shares were made" in shown(home)


def test_a_drill_takes_the_papers_on_a_terminal(home: Path, sheets: list[Path]) -> None:
    terminal = Terminal(home, "owner", "drill", "--owner", home / "owner.key")
    for sheet in sheets[1:4]:
        terminal.until("words on one line: ")
        terminal.type(words(sheet))
    terminal.until("The shares 2, 3, 4 recover the owner")
    assert terminal.end() == 0
    assert "last drill" in shown(home)


@pytest.mark.parametrize("option", ["--words", "--passphrase", "--secret", "--pin"])
def test_no_option_takes_a_secret(home: Path, owner: OwnerSecret, option: str) -> None:
    for command in ("new", "split", "recover", "drill", "passphrase"):
        assert run(home, "owner", command, option, "x").exit_code == 2
