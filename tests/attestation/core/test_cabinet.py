"""Cabinets are read as real tools write them, and never unpack to more than they may."""

import contextlib
import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.cabinet import PackedFile, read_cabinet
from attestation.errors import ParseError, TooLarge
from tests.boot_logs import COLLECTION
from tests.cabinets import LZX, MSZIP, NONE, QUANTUM, Cabinet
from tests.tpm_forge import mutated

MEBIBYTE = 1 << 20
TRUSTED_TPM = COLLECTION / "certs" / "microsoft" / "TrustedTpm.cab"
noise = random.Random(7).randbytes  # noqa: S311  (test data)
FILES = {
    "AMD\\RootCA\\a.crt": b"a" * 1000,
    "Infineon\\IntermediateCA\\ü.cer": noise(50_000),
    "version.txt": b"one line of many\n" * 6000,
    "empty": b"",
}


def read(data: bytes, *, most_files: int = 100, unpacked_limit: int = MEBIBYTE) -> dict[str, bytes]:
    return {
        file.path: file.content for file in read_cabinet(data, most_files=most_files, unpacked_limit=unpacked_limit)
    }


@pytest.mark.parametrize("packing", [NONE, MSZIP])
@pytest.mark.parametrize("reserve", [b"", bytes(20)], ids=["plain", "with room for a signature"])
def test_a_cabinet_gives_its_files(packing: int, reserve: bytes) -> None:
    cabinet = Cabinet(FILES, packing, flags=4 if reserve else 0, reserve=reserve)
    assert read(cabinet.made()) == FILES
    assert read(replace(cabinet, checksums=False).made()) == FILES
    assert read(cabinet.made() + noise(5000)) == FILES  # a signature lies behind


@pytest.mark.parametrize("zipped", [False, True], ids=["stored", "MSZIP"])
def test_what_gcab_makes_is_read(zipped: bool, tmp_path: Path) -> None:
    made = {
        "RootCA/small.crt": noise(700),
        "RootCA/large.txt": b"0123456789abcdef" * 9000,
        "RootCA/noise": noise(70_000),
    }
    (tmp_path / "RootCA").mkdir()
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    flags = ["--zip"] if zipped else []
    subprocess.run(["gcab", "--create", *flags, "made.cab", *made], cwd=tmp_path, check=True)
    found = read((tmp_path / "made.cab").read_bytes())
    assert {path.replace("\\", "/"): content for path, content in found.items()} == made


@pytest.mark.parametrize(
    ("cabinet", "said"),
    [
        pytest.param(Cabinet(FILES, LZX), "LZX, which is not read. Unpack it", id="LZX"),
        pytest.param(Cabinet(FILES, QUANTUM), "Quantum", id="Quantum"),
        pytest.param(Cabinet(FILES, 9), "unknown method", id="an unknown packing"),
        pytest.param(Cabinet(FILES, version=(1, 1)), "another version", id="version"),
        pytest.param(Cabinet(FILES, flags=1), "a set of cabinets", id="goes on from another"),
        pytest.param(Cabinet(FILES, flags=2), "a set of cabinets", id="goes on in another"),
        pytest.param(Cabinet(FILES, folder_of_file=1), "outside its folder", id="no such folder"),
        pytest.param(Cabinet(FILES, folder_of_file=0xFFFD), "goes on in another", id="a file of a set"),
        pytest.param(Cabinet(FILES, sizes={"version.txt": 1 << 30}), "outside its folder", id="a file too long"),
        pytest.param(Cabinet(FILES, blocks=60), "needs 4 bytes, 0 are left", id="blocks that are not there"),
        pytest.param(Cabinet({"x" * 300: b"a"}), "a name of more than 256", id="a long name"),
    ],
)
def test_a_wrong_cabinet_is_refused(cabinet: Cabinet, said: str) -> None:
    with pytest.raises(ParseError, match=said):
        read(cabinet.made())


def test_a_block_that_was_damaged_is_refused() -> None:
    data = bytearray(Cabinet(FILES, NONE).made())
    data[-1] ^= 1
    with pytest.raises(ParseError, match="checksum is wrong"):
        read(bytes(data))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param(b"CK", b"KC", "not MSZIP", id="no signature"),
        pytest.param(b"CK\x9b", b"CK\xff", "does not unpack", id="no deflate"),
    ],
)
def test_a_block_that_is_not_mszip_is_refused(old: bytes, new: bytes, said: str) -> None:
    data = Cabinet({"a": noise(100)}, checksums=False).made()
    data = data.replace(b"CK" + data[data.index(b"CK") + 2 :][:1], b"CK\x9b")  # whatever the packer began with
    with pytest.raises(ParseError, match=said):
        read(data.replace(old, new))


def test_a_block_that_unpacks_to_more_than_it_says_is_refused() -> None:
    data = Cabinet({"a": b"a" * 30_000}, checksums=False, sizes={"a": 10}).made()
    assert data.count((30_000).to_bytes(2, "little")) == 1
    with pytest.raises(ParseError, match="does not end where it says"):
        read(data.replace((30_000).to_bytes(2, "little"), (10).to_bytes(2, "little")))


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    data = Cabinet({"zeros": bytes(4 * MEBIBYTE)}).made()
    assert len(data) < 8000
    with pytest.raises(TooLarge):
        read(data)
    assert read(data, unpacked_limit=4 * MEBIBYTE) == {"zeros": bytes(4 * MEBIBYTE)}


def test_files_that_name_the_same_bytes_again_and_again_are_counted() -> None:
    names = {f"{n}.crt": b"" for n in range(40)}
    sizes = dict.fromkeys(names, 60_000)
    with pytest.raises(TooLarge):
        read(Cabinet({**names, "last": noise(60_000)}, sizes=sizes).made())


def test_more_files_or_blocks_than_the_bounds_are_refused() -> None:
    with pytest.raises(TooLarge, match="3 files; at most 2"):
        read(Cabinet({"a": b"1", "b": b"2", "c": b"3"}).made(), most_files=2)
    with pytest.raises(TooLarge, match="8192 blocks"):
        read(Cabinet({"a": b"1"}, blocks=8193).made())


def test_folders_that_overlap_are_refused() -> None:
    data = bytearray(Cabinet({"a": b"1" * 100}, NONE).made())
    data[26:28] = (2).to_bytes(2, "little")  # another folder, which takes the first file's header for its own
    data[44:52] = data[36:44]
    with pytest.raises(ParseError, match="needs -"):
        read(bytes(data))


def test_what_is_cut_or_no_cabinet_is_refused() -> None:
    data = Cabinet(FILES).made()
    for wrong in (b"", b"MSCF", b"PK\x03\x04" + data[4:], *(data[:cut] for cut in range(0, len(data) - 1, 997))):
        with pytest.raises(ParseError):
            read(wrong)


SMALL = {"AMD\\RootCA\\a.crt": b"abc" * 30, "b": b"x" * 40_000}


@given(st.binary() | mutated(Cabinet(SMALL).made()) | mutated(Cabinet(SMALL, NONE, checksums=False).made()))
def test_any_bytes_give_files_or_a_parse_error(data: bytes) -> None:
    with contextlib.suppress(ParseError):
        files = read_cabinet(data, most_files=100, unpacked_limit=MEBIBYTE)
        assert all(isinstance(file, PackedFile) for file in files)
        assert sum(len(file.content) for file in files) <= MEBIBYTE


@pytest.mark.skipif(not TRUSTED_TPM.exists(), reason="Microsoft's TrustedTpm.cab is not in the collection")
def test_the_real_trusted_tpm_cabinet_is_read() -> None:
    files = read(TRUSTED_TPM.read_bytes(), most_files=8192, unpacked_limit=32 * MEBIBYTE)
    assert len(files) == 2193
    assert files["setup.cmd"].startswith(b"powershell")
    assert files["STMicro\\RootCA\\STM TPM ECC Root CA 01.crt"].startswith(b"\x30\x82")
