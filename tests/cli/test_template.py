"""Template disks are signed and checked as their publisher and a tenant do it."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli.template import catalog_in, template
from kps.core import jose
from tests.disks import MIB, content, converted, raw
from tests.kps.parties import OWNER, said, signed

PASSPHRASE = "correct horse battery"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    raw(tmp_path / "disk.raw", content())
    assert run(tmp_path, "signer", "new", "--name", "Images", "--out", tmp_path / "signer.key").exit_code == 0
    return tmp_path


@pytest.fixture
def signed_home(home: Path) -> Path:
    done = sign(home)
    assert done.exit_code == 0, done.output
    return home


def run(home: Path, *words: object, **how: Any) -> Result:
    how.setdefault("env", {"GUARDHOUSE_PASSPHRASE_FILE": str(home / "passphrase")})
    return CliRunner().invoke(template, [str(word) for word in words], **how)


def sign(home: Path, disk: str = "disk.raw", version: str = "12.1", name: str = "debian-12") -> Result:
    words = ("--signer", home / "signer.key", "--name", name, "--version", version, "--out", home / "disk.catalog")
    return run(home, "sign", home / disk, *words)


def verify(home: Path, disk: str, *more: object) -> Result:
    return run(home, "verify", home / disk, home / "disk.catalog", *more)


def test_a_disk_that_was_signed_as_raw_is_verified_as_qcow2(signed_home: Path) -> None:
    converted(signed_home / "disk.raw", signed_home / "disk.qcow2", "-c")
    for disk in ("disk.raw", "disk.qcow2"):
        done = verify(signed_home, disk)
        assert done.exit_code == 0, done.output
        assert "byte for byte" in done.output
        assert "partition 2: bytes 5242880 to 8388607 root" in done.output


def test_signing_twice_says_the_same_of_the_disk(signed_home: Path) -> None:
    before = catalog_in(signed_home / "disk.catalog")
    (signed_home / "disk.catalog").unlink()
    converted(signed_home / "disk.raw", signed_home / "disk.qcow2")
    assert sign(signed_home, "disk.qcow2").exit_code == 0
    assert catalog_in(signed_home / "disk.catalog").volume == before.volume


def test_a_catalog_is_for_everybody_and_never_overwritten(signed_home: Path) -> None:
    before = (signed_home / "disk.catalog").read_bytes()
    assert sign(signed_home).exit_code == 1
    assert (signed_home / "disk.catalog").read_bytes() == before
    assert stat.S_IMODE((signed_home / "signer.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (600, "bytes 0 to 1048575, the partition table"),
        (MIB + 7, "bytes 1048576 to 2097151, partition 1 boot"),
        (3 * MIB, "bytes 3145728 to 4194303\n"),
        (6 * MIB, "bytes 6291456 to 7340031, partition 2 root"),
    ],
)
def test_it_is_said_where_a_disk_differs(at: int, said: str, signed_home: Path) -> None:
    raw(signed_home / "other.raw", content(changed=at))
    done = verify(signed_home, "other.raw")
    assert done.exit_code == 1
    assert said in done.output
    assert "is not what the catalog of debian-12 12.1 describes" in done.output


def test_a_disk_that_differs_everywhere_is_not_listed_without_end(signed_home: Path) -> None:
    data = bytearray(60 * MIB)
    raw(signed_home / "disk.raw", bytes(data))
    (signed_home / "disk.catalog").unlink()
    sign(signed_home)
    for at in range(0, len(data), 2 * MIB):
        data[at] = 1
    raw(signed_home / "other.raw", bytes(data))
    done = verify(signed_home, "other.raw")
    assert done.output.count("Differs: ") == 20
    assert "and in 10 further places" in done.output


def test_a_disk_of_another_size_is_not_even_read(signed_home: Path) -> None:
    raw(signed_home / "other.raw", content() + bytes(512))
    done = verify(signed_home, "other.raw")
    assert (done.exit_code, "is another disk" in done.output) == (1, True)


def test_the_signer_is_compared_by_its_thumbprint(signed_home: Path) -> None:
    thumbprint = run(signed_home, "signer", "show", signed_home / "signer.key").output.split()[-1]
    assert verify(signed_home, "disk.raw", "--signer", thumbprint).exit_code == 0
    other = jose.thumbprint(OWNER.signing.public_key())
    done = verify(signed_home, "disk.raw", "--signer", other)
    assert (done.exit_code, "not by the expected signer" in done.output) == (1, True)


def test_a_catalog_is_shown(signed_home: Path) -> None:
    shown = run(signed_home, "catalog", signed_home / "disk.catalog").output
    for text in ("debian-12 12.1, 8389120 bytes", "signed by Images", "thumbprint "):
        assert text in shown


def test_an_altered_catalog_is_refused_before_the_disk_is_read(signed_home: Path) -> None:
    path = signed_home / "disk.catalog"
    altered = signed(said(path.read_text().strip()) | {"version": "99"}, OWNER, kid_of=OWNER)
    path.write_text(altered)
    raw(signed_home / "other.raw", content(changed=0))
    for done in (run(signed_home, "catalog", path), *(verify(signed_home, name) for name in ("disk.raw", "other.raw"))):
        assert (done.exit_code, "another key" in done.output) == (1, True)


@pytest.mark.parametrize("text", ["", "a.b.c", "é" * 50_000, json.dumps({"a": 1}), "x" * (1 << 20)])
def test_a_file_that_is_no_catalog_is_refused(text: str, signed_home: Path) -> None:
    (signed_home / "disk.catalog").write_text(text)
    assert run(signed_home, "catalog", signed_home / "disk.catalog").exit_code == 1


@pytest.mark.parametrize(
    "wrong", [{"version": "latest"}, {"version": ""}, {"name": ""}, {"name": "x" * 65}, {"name": "a\nb"}]
)
def test_a_wish_that_makes_no_sense_is_refused(wrong: dict[str, str], home: Path) -> None:
    assert sign(home, **wrong).exit_code == 1
    assert not (home / "disk.catalog").exists()


def test_a_wrong_passphrase_signs_nothing(home: Path) -> None:
    (home / "passphrase").write_text("another passphrase\n")
    assert sign(home).exit_code == 1
    assert not (home / "disk.catalog").exists()
