"""What a tenant does on a machine of its own: keys, guardians, bundles; and what it is kept from."""

import json
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.owner_file import new_keys, read_owner
from cli.tenant import tenant
from guardedhost.process import by_pipe
from kps.core.bundle import parse_state, parse_vm
from kps.core.guardian import GuardianKeys, build_metadata, sign_succession
from kps.core.protector import open_protector, verify_protector
from kps.core.secrets import VmSecrets, open_secrets
from tests.kps.parties import FABRIC, OTHER_FABRIC, STRANGER

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PASSPHRASE = "correct horse battery"
MARK = b"GUARDHOUSE-PLAIN-TEXT-MARK"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return furnished(tmp_path)


def furnished(folder: Path) -> Path:
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    (folder / "metadata.json").write_text(json.dumps({"metadata": build_metadata(FABRIC, now=NOW)}))
    (folder / "disk.raw").write_bytes((MARK * 1000).ljust(64 * 1024, b"\0"))
    return folder


def run(home: Path, *words: object, **how: Any) -> Result:
    how.setdefault("env", {"GUARDHOUSE_PASSPHRASE_FILE": str(home / "passphrase")})
    return CliRunner().invoke(tenant, [str(word) for word in words], **how)


@pytest.fixture
def owner(home: Path) -> GuardianKeys:
    return new_owner(home)


def new_owner(home: Path) -> GuardianKeys:
    made = run(home, "owner", "new", "--name", "Kontor Nord", "--out", home / "owner.key")
    assert made.exit_code == 0, made.output
    return read_owner(home / "owner.key", PASSPHRASE)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tenant that protected a machine for two fabrics; an encrypted disk takes two seconds to make."""
    home = furnished(tmp_path_factory.mktemp("made"))
    new_owner(home)
    (home / "second.json").write_text(json.dumps({"metadata": build_metadata(OTHER_FABRIC, now=NOW)}))
    done = protect(home, "--disk", home / "disk.raw", "--guardian", home / "second.json")
    assert done.exit_code == 0, done.output
    return home


@pytest.fixture
def protected(made_once: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return Path(shutil.copytree(made_once, tmp_path / "home"))


def protect(home: Path, *more: object, **how: Any) -> Result:
    words = ["protect", "--owner", home / "owner.key", "--guardian", home / "metadata.json", "--name", "payroll"]
    return run(home, *words, "--level", "shielded", "--memory", 64, "--out", home / "payroll", *more, **how)


# --- the owner ---------------------------------------------------------------------------------------------------


def test_an_owner_s_keys_are_readable_by_the_owner_with_the_passphrase(home: Path, owner: GuardianKeys) -> None:
    path = home / "owner.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert '"d"' not in path.read_text()
    assert f"fingerprint {owner.guardian.fingerprint}\n" in run(home, "owner", "show", path).output


def test_an_owner_s_keys_are_never_overwritten(home: Path, owner: GuardianKeys) -> None:
    before = (home / "owner.key").read_bytes()
    assert run(home, "owner", "new", "--name", "x", "--out", home / "owner.key").exit_code == 1
    assert (home / "owner.key").read_bytes() == before


def test_a_short_passphrase_is_refused(home: Path) -> None:
    (home / "passphrase").write_text("short\n")
    done = run(home, "owner", "new", "--name", "x", "--out", home / "new.key")
    assert done.exit_code == 1
    assert not (home / "new.key").exists()


def test_a_passphrase_is_asked_for_twice(home: Path) -> None:
    words = ("owner", "new", "--name", "x", "--out", home / "new.key")
    assert run(home, *words, env={}, input=f"{PASSPHRASE}\n{PASSPHRASE}\n").exit_code == 0
    assert PASSPHRASE not in run(home, *words, env={}, input=f"{PASSPHRASE}\n{PASSPHRASE}\n").output


def test_a_wrong_passphrase_opens_nothing(home: Path, owner: GuardianKeys) -> None:
    (home / "passphrase").write_text("another passphrase\n")
    done = protect(home, "--demo-disk")
    assert done.exit_code == 1
    assert "does not open" in done.output
    assert not (home / "payroll").exists()


def test_a_key_file_with_another_s_card_is_refused(home: Path, owner: GuardianKeys) -> None:
    document = json.loads((home / "owner.key").read_text())
    document["owner"] = STRANGER.guardian.card
    (home / "owner.key").write_text(json.dumps(document))
    assert "not that of the keys" in protect(home, "--demo-disk").output


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 1, "owner": {}, "keys": 3}'])
def test_a_damaged_key_file_is_a_sentence(home: Path, content: str) -> None:
    (home / "owner.key").write_text(content)
    for done in (run(home, "owner", "show", home / "owner.key"), protect(home, "--demo-disk")):
        assert (done.exit_code, "Error:" in done.output) == (1, True)


# --- guardians ---------------------------------------------------------------------------------------------------


def kept(home: Path) -> list[str]:
    return [path.stem for path in (home / "guardians").glob("*")]


def imported(home: Path, *more: object, path: str = "metadata.json", **how: Any) -> Result:
    return run(home, "guardian", "import", home / path, "--folder", home / "guardians", *more, **how)


def test_a_guardian_is_kept_when_its_fingerprint_is_the_expected_one(home: Path) -> None:
    fingerprint = FABRIC.guardian.fingerprint
    spoken = ":".join(re.findall("....", fingerprint.upper()))
    assert imported(home, "--fingerprint", spoken).exit_code == 0
    assert kept(home) == [fingerprint]


@pytest.mark.parametrize(
    "fingerprint",
    [STRANGER.guardian.fingerprint, FABRIC.guardian.fingerprint[:16], ""],
    ids=["another", "cut short", "empty"],
)
def test_a_guardian_with_another_fingerprint_is_not_kept(home: Path, fingerprint: str) -> None:
    assert imported(home, "--fingerprint", fingerprint).exit_code == 1
    assert kept(home) == []


@pytest.mark.parametrize(("answer", "number"), [("y\n", 1), ("n\n", 0), ("", 0)])
def test_a_person_is_asked_when_no_fingerprint_is_given(home: Path, answer: str, number: int) -> None:
    assert FABRIC.guardian.fingerprint in imported(home, input=answer).output
    assert len(kept(home)) == number


def test_forged_metadata_is_refused(home: Path) -> None:
    head, payload, _ = build_metadata(FABRIC, now=NOW).split(".")
    signature = build_metadata(STRANGER, now=NOW).split(".")[2]
    (home / "forged").write_text(f"{head}.{payload}.{signature}")
    done = imported(home, "--fingerprint", FABRIC.guardian.fingerprint, path="forged")
    assert (done.exit_code, kept(home)) == (1, [])


# --- a guardian that has changed its keys ---


SUCCESSOR, HEIR = new_keys("fabric, again"), new_keys("fabric, a third time")


def offer(home: Path, keys: GuardianKeys, *successions: str) -> None:
    token = build_metadata(keys, now=NOW, others=[FABRIC.guardian], successions=successions)
    (home / "next.json").write_text(json.dumps({"metadata": token}))


def test_a_successor_that_a_kept_guardian_has_signed_is_kept_without_a_question(home: Path) -> None:
    imported(home, "--fingerprint", FABRIC.guardian.fingerprint)
    offer(home, SUCCESSOR, sign_succession(FABRIC, SUCCESSOR.guardian, now=NOW))
    done = imported(home, path="next.json")
    assert "its keys before have signed them" in done.output
    assert FABRIC.guardian.fingerprint in done.output
    assert sorted(kept(home)) == sorted([FABRIC.guardian.fingerprint, SUCCESSOR.guardian.fingerprint])


def test_a_successor_over_several_steps_is_kept_too(home: Path) -> None:
    imported(home, "--fingerprint", FABRIC.guardian.fingerprint)
    first, second = (
        sign_succession(FABRIC, SUCCESSOR.guardian, now=NOW),
        sign_succession(SUCCESSOR, HEIR.guardian, now=NOW),
    )
    offer(home, HEIR, first, second)
    assert imported(home, path="next.json").exit_code == 0
    assert HEIR.guardian.fingerprint in kept(home)


@pytest.mark.parametrize("signer", [None, STRANGER, SUCCESSOR], ids=["nobody", "a stranger", "itself"])
def test_a_successor_that_no_kept_guardian_has_signed_is_asked_about(home: Path, signer: GuardianKeys | None) -> None:
    imported(home, "--fingerprint", FABRIC.guardian.fingerprint)
    offer(home, HEIR, *([sign_succession(signer, HEIR.guardian, now=NOW)] if signer else []))
    done = imported(home, path="next.json", input="n\n")
    assert (done.exit_code, "Is this the fingerprint" in done.output) == (1, True)
    assert kept(home) == [FABRIC.guardian.fingerprint]


def test_a_successor_whose_predecessor_was_never_compared_is_asked_about(home: Path) -> None:
    offer(home, SUCCESSOR, sign_succession(FABRIC, SUCCESSOR.guardian, now=NOW))
    assert imported(home, path="next.json", input="n\n").exit_code == 1
    assert kept(home) == []


def test_a_fingerprint_that_is_given_counts_for_a_successor_too(home: Path) -> None:
    imported(home, "--fingerprint", FABRIC.guardian.fingerprint)
    offer(home, SUCCESSOR, sign_succession(FABRIC, SUCCESSOR.guardian, now=NOW))
    done = imported(home, "--fingerprint", STRANGER.guardian.fingerprint, path="next.json")
    assert (done.exit_code, kept(home)) == (1, [FABRIC.guardian.fingerprint])


def test_a_guardian_that_is_kept_already_needs_no_second_comparing(home: Path) -> None:
    imported(home, "--fingerprint", FABRIC.guardian.fingerprint)
    assert "compared this fingerprint before" in imported(home).output


@pytest.fixture
def fabric() -> Iterator[str]:
    """A fabric that answers, on a port of its own."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/kps/v1/metadata"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"metadata": build_metadata(FABRIC, now=NOW)}).encode() if found else b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_metadata_is_fetched_from_the_fabric(home: Path, fabric: str) -> None:
    words = ["--folder", home / "guardians", "--fingerprint", FABRIC.guardian.fingerprint]
    assert run(home, "guardian", "fetch", fabric, *words).exit_code == 0
    assert kept(home) == [FABRIC.guardian.fingerprint]
    assert "404" in run(home, "guardian", "fetch", f"{fabric}/elsewhere", *words).output


@pytest.mark.parametrize("url", ["http://fabric.example/", "ftp://fabric.example/", "fabric", "http://127.0.0.1:1/"])
def test_metadata_does_not_come_from_anywhere(home: Path, url: str) -> None:
    assert run(home, "guardian", "fetch", url, "--folder", home / "guardians").exit_code == 1
    assert kept(home) == []


# --- bundles -----------------------------------------------------------------------------------------------------


def opened(folder: Path, keys: GuardianKeys) -> VmSecrets:
    state = parse_state((folder / "state.0.json").read_bytes())
    verified = verify_protector(state.protector)
    return open_secrets(
        state.secrets, open_protector(verified, keys.encryption), protector_id=verified.id, roll=verified.roll
    )


def read_disk(folder: Path, passphrase: str, target: Path) -> bytes:
    """Decrypt the disk as the host would."""
    with by_pipe(passphrase.encode()) as descriptor:
        options = f"driver=qcow2,encrypt.key-secret=k,file.filename={folder / 'disk.qcow2'}"
        command = ["qemu-img", "convert", "--object", f"secret,id=k,file=/dev/fd/{descriptor}"]
        command += ["--image-opts", options, "-O", "raw", str(target)]
        subprocess.run(command, pass_fds=(descriptor,), check=True, capture_output=True)
    return target.read_bytes()


def test_a_bundle_holds_an_encrypted_disk_that_owner_and_guardian_can_open(home: Path, owner: GuardianKeys) -> None:
    done = protect(home, "--disk", home / "disk.raw")
    assert done.exit_code == 0, done.output
    folder = home / "payroll"
    description = parse_vm((folder / "vm.json").read_bytes())
    assert (description.name, description.level, description.memory) == ("payroll", "shielded", 64)
    secrets = opened(folder, FABRIC)
    assert secrets == opened(folder, owner)
    assert read_disk(folder, secrets.disk_passphrase, home / "plain") == (home / "disk.raw").read_bytes()
    assert FABRIC.guardian.fingerprint in done.output


def test_a_bundle_shows_nothing_to_who_has_only_the_bundle(protected: Path) -> None:
    folder = protected / "payroll"
    secrets = opened(folder, FABRIC)
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    for secret in (MARK, secrets.disk_passphrase.encode(), secrets.vtpm_key.encode(), bytes.fromhex(secrets.vtpm_key)):
        assert secret not in content
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert sorted(path.name for path in folder.iterdir()) == ["disk.qcow2", "state.0.json", "vm.json"]


def test_the_demonstration_disk_is_a_boot_sector(home: Path, owner: GuardianKeys) -> None:
    done = protect(home, "--demo-disk")
    assert done.exit_code == 0, done.output
    disk = read_disk(home / "payroll", opened(home / "payroll", FABRIC).disk_passphrase, home / "plain")
    assert disk[510:512] == b"\x55\xaa"
    assert len(disk) == 1024 * 1024


def test_two_bundles_share_no_secret(protected: Path) -> None:
    protect(protected, "--demo-disk", "--out", protected / "second")
    first, second = opened(protected / "payroll", FABRIC), opened(protected / "second", FABRIC)
    assert {first.vtpm_key, first.disk_passphrase}.isdisjoint({second.vtpm_key, second.disk_passphrase})


def test_a_bundle_is_made_whole_or_not_at_all(home: Path, owner: GuardianKeys) -> None:
    (home / "odd.raw").write_bytes(b"x" * 700)
    assert "whole sectors" in protect(home, "--disk", home / "odd.raw").output
    assert not [path for path in home.iterdir() if path.is_dir()]


def test_an_existing_folder_is_not_touched(home: Path, owner: GuardianKeys) -> None:
    (home / "payroll").mkdir()
    assert "exists already" in protect(home, "--demo-disk").output
    assert not list((home / "payroll").iterdir())


@pytest.mark.parametrize(
    "more", [[], ["--demo-disk", "--name", "../x"], ["--demo-disk", "--level", "open"], ["--demo-disk", "--memory", 1]]
)
def test_a_wish_that_makes_no_sense_is_refused(home: Path, owner: GuardianKeys, more: list[object]) -> None:
    assert protect(home, *more).exit_code == 2
    assert not (home / "payroll").exists()


def test_both_kinds_of_disk_at_once_are_refused(home: Path, owner: GuardianKeys) -> None:
    assert protect(home, "--demo-disk", "--disk", home / "disk.raw").exit_code == 2


def test_a_protector_is_shown_as_its_owner_signed_it(protected: Path) -> None:
    shown = run(protected, "inspect", "protector", protected / "payroll" / "state.0.json").output
    for name in ("Kontor Nord", "fabric", "other fabric", "shielded, roll 0"):
        assert name in shown


def test_an_altered_protector_is_not_shown(protected: Path) -> None:
    state = json.loads((protected / "payroll" / "state.0.json").read_text())
    state["protector"]["wrapped"]["recipients"].pop()
    (protected / "altered.json").write_text(json.dumps(state))
    done = run(protected, "inspect", "protector", protected / "altered.json")
    assert done.exit_code == 1
    assert "others than exactly" in done.output
