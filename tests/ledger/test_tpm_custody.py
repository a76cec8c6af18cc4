"""The root key in a TPM: what opens it, what does not, and how it comes back after the machine was serviced."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag

from ledger.custody import InsecureFileCustody, TpmCustody
from ledger.custody.errors import (
    CustodyMissing,
    CustodyUnavailable,
    MalformedCustody,
    OtherTpm,
    ShareRefused,
    WrongBootState,
)
from ledger.custody.recovery import new_share, unwrap_root, wrap_root
from ledger.custody.tpm import Tpm, parse_sealed, read_sealed, seal, unseal, write_sealed
from tests import tpm_lab

ROOT = bytes(range(32))
SHARE = new_share()
PCRS = [0, 2, 7]


@pytest.fixture
def power_on(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Start a node's TPM, or start it again: the same seeds, all PCRs at zero."""
    running: dict[str, ExitStack] = {}

    def start(node: str) -> str:
        if node in running:
            running[node].close()
        for left in (tmp_path / node).glob("cmd*"):
            left.unlink()
        (tmp_path / node).mkdir(exist_ok=True)
        running[node] = ExitStack()
        return running[node].enter_context(tpm_lab.running(tmp_path / node))

    yield start
    for each in running.values():
        each.close()


@pytest.fixture
def tcti(power_on: Callable[[str], str]) -> str:
    return power_on("node")


def sealed_to(tcti: str, path: Path) -> Path:
    write_sealed(path, seal(ROOT, tcti=tcti, pcrs=PCRS, recovery=wrap_root(ROOT, SHARE)))
    return path


def update_firmware(tcti: str, pcr: int = 0) -> None:
    with Tpm(tcti) as tpm:
        tpm.extend(pcr, b"\x11" * 32)


# --- what opens it, and what does not ----------------------------------------------------------------------------


def test_the_root_opens_in_the_boot_state_that_it_was_sealed_to(
    tcti: str, power_on: Callable[[str], str], tmp_path: Path
) -> None:
    path = sealed_to(tcti, tmp_path / "custody.tpm")
    sealed, public = TpmCustody(path, tcti).generate("signing")
    again = TpmCustody(path, power_on("node"))
    assert again.open(sealed, "signing").public_key() == public
    with pytest.raises(InvalidTag):
        again.open(sealed, "encryption")


@pytest.mark.parametrize("pcr", PCRS)
def test_changed_firmware_does_not_open_it(tcti: str, tmp_path: Path, pcr: int) -> None:
    path = sealed_to(tcti, tmp_path / "custody.tpm")
    update_firmware(tcti, pcr)
    with pytest.raises(WrongBootState, match="custody recover"):
        TpmCustody(path, tcti)


def test_what_it_is_not_bound_to_may_change(tcti: str, tmp_path: Path) -> None:
    path = sealed_to(tcti, tmp_path / "custody.tpm")
    update_firmware(tcti, 4)
    assert TpmCustody(path, tcti).derive("x", b"") == _file(tmp_path).derive("x", b"")


def test_another_tpm_does_not_open_it(tcti: str, power_on: Callable[[str], str], tmp_path: Path) -> None:
    path = sealed_to(tcti, tmp_path / "custody.tpm")
    with pytest.raises(OtherTpm, match="custody recover"):
        TpmCustody(path, power_on("stranger"))


def test_another_tpm_does_not_open_it_under_its_own_name_either(
    tcti: str, power_on: Callable[[str], str], tmp_path: Path
) -> None:
    mine = seal(ROOT, tcti=tcti, pcrs=PCRS, recovery="x")
    theirs = power_on("stranger")
    other = seal(ROOT, tcti=theirs, pcrs=PCRS, recovery="x")
    write_sealed(tmp_path / "mixed", type(mine)(mine.pcrs, other.parent, mine.public, mine.private, "x"))
    with pytest.raises((CustodyUnavailable, MalformedCustody)):
        TpmCustody(tmp_path / "mixed", theirs)


def test_looser_pcrs_in_the_file_do_not_open_it(tcti: str, tmp_path: Path) -> None:
    path = sealed_to(tcti, tmp_path / "custody.tpm")
    update_firmware(tcti)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pcrs": [7]}))
    with pytest.raises(WrongBootState):
        TpmCustody(path, tcti)


def test_a_tpm_that_is_not_there_is_a_sentence(tcti: str, tmp_path: Path) -> None:
    path = sealed_to(tcti, tmp_path / "custody.tpm")
    with pytest.raises(CustodyUnavailable, match="There is no TPM at"):
        TpmCustody(path, "device:/dev/null-tpm")


def test_nothing_is_made_where_nothing_was(tcti: str, tmp_path: Path) -> None:
    with pytest.raises(CustodyMissing, match="custody create"):
        TpmCustody(tmp_path / "custody.tpm", tcti)
    assert not (tmp_path / "custody.tpm").exists()


@pytest.mark.parametrize("pcrs", [[], [10], [16], [23], [0, 24]])
def test_it_is_bound_to_something_that_means_something(tcti: str, pcrs: list[int]) -> None:
    with pytest.raises(ValueError, match="PCRs"):
        seal(ROOT, tcti=tcti, pcrs=pcrs, recovery="x")


def test_the_sealed_file_is_for_its_owner_and_shows_nothing(tcti: str, tmp_path: Path) -> None:
    path = sealed_to(tcti, tmp_path / "custody.tpm")
    content = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert ROOT not in content
    assert ROOT.hex() not in content.decode()
    assert SHARE not in content.decode()
    assert "root" not in repr(TpmCustody(path, tcti)).lower().replace("object", "")


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 1, 40, 200, -2])
def test_a_file_that_was_cut_short_is_refused(tcti: str, tmp_path: Path, keep: int) -> None:
    path = sealed_to(tcti, tmp_path / "custody.tpm")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MalformedCustody):
        TpmCustody(path, tcti)


@pytest.mark.parametrize("name", ["public", "private"])
@pytest.mark.parametrize("position", [0, 5, 60, -1])
def test_a_flipped_bit_in_a_blob_opens_nothing(tcti: str, tmp_path: Path, name: str, position: int) -> None:
    path = sealed_to(tcti, tmp_path / "custody.tpm")
    fields = json.loads(path.read_text())
    blob = bytearray.fromhex(fields[name])
    blob[position] ^= 1
    path.write_text(json.dumps(fields | {name: blob.hex()}))
    with pytest.raises((CustodyUnavailable, MalformedCustody)):
        TpmCustody(path, tcti)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"more": 1},
        {"pcrs": []},
        {"pcrs": [7, 0]},
        {"pcrs": [True]},
        {"pcrs": ["0"]},
        {"pcrs": [10]},
        {"pcrs": 7},
        {"public": ""},
        {"public": "zz"},
        {"private": 1},
        {"parent": "00" * 2000},
        {"recovery": None},
    ],
)
def test_a_file_of_another_form_is_malformed(change: dict[str, object]) -> None:
    good: dict[str, object] = {"version": 1, "pcrs": [0], "parent": "0000", "public": "0000", "private": "0000"}
    assert parse_sealed(json.dumps(good | {"recovery": "x"}).encode()).pcrs == (0,)
    with pytest.raises(MalformedCustody):
        parse_sealed(json.dumps(good | {"recovery": "x"} | change).encode())


# --- recovery ----------------------------------------------------------------------------------------------------


def recover(path: Path, tcti: str, share: str) -> None:
    sealed = read_sealed(path)
    root = unwrap_root(sealed.recovery, share)
    write_sealed(path, seal(root, tcti=tcti, pcrs=sealed.pcrs, recovery=sealed.recovery))


def test_after_a_firmware_update_the_share_seals_the_same_root_anew(
    tcti: str, power_on: Callable[[str], str], tmp_path: Path
) -> None:
    path = sealed_to(tcti, tmp_path / "custody.tpm")
    sealed, public = TpmCustody(path, tcti).generate("signing")
    update_firmware(tcti)
    recover(path, tcti, SHARE)
    assert TpmCustody(path, tcti).open(sealed, "signing").public_key() == public
    with pytest.raises(WrongBootState):  # the firmware of before opens it no more
        TpmCustody(path, power_on("node"))


def test_a_share_that_was_not_this_root_s_changes_nothing(tcti: str, tmp_path: Path) -> None:
    path = sealed_to(tcti, tmp_path / "custody.tpm")
    before = path.read_bytes()
    with pytest.raises(ShareRefused):
        recover(path, tcti, new_share())
    assert path.read_bytes() == before


def test_two_nodes_have_one_root(tcti: str, power_on: Callable[[str], str], tmp_path: Path) -> None:
    mine = sealed_to(tcti, tmp_path / "one.tpm")
    second = power_on("second")
    (tmp_path / "two.tpm").write_bytes(mine.read_bytes())
    recover(tmp_path / "two.tpm", second, SHARE)
    one, two = TpmCustody(mine, tcti), TpmCustody(tmp_path / "two.tpm", second)
    sealed, public = one.generate("signing")
    assert two.open(sealed, "signing").public_key() == public
    assert one.derive("release", b"1") == two.derive("release", b"1")
    with pytest.raises(OtherTpm):
        TpmCustody(mine, second)


def test_what_a_file_has_sealed_and_derived_is_the_same_under_a_tpm(tcti: str, tmp_path: Path) -> None:
    before, after = _file(tmp_path), TpmCustody(sealed_to(tcti, tmp_path / "custody.tpm"), tcti)
    sealed, public = before.generate("signing")
    assert after.open(sealed, "signing").public_key() == public
    assert before.derive("release", b"1") == after.derive("release", b"1")


def test_a_process_that_starts_anew_opens_it_by_its_settings(tcti: str, tmp_path: Path) -> None:
    sealed_to(tcti, tmp_path / "custody.tpm")
    script = (
        "import django; django.setup(); from ledger.custody import custody; print(custody().derive('x', b'').hex())"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "fabric.settings",
        "GUARDHOUSE_CUSTODY": "tpm",
        "GUARDHOUSE_CUSTODY_SEALED_FILE": str(tmp_path / "custody.tpm"),
        "GUARDHOUSE_CUSTODY_TCTI": tcti,
    }
    printed = [
        subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert printed == [_file(tmp_path).derive("x", b"").hex() + "\n"] * 2


def test_only_the_tpm_s_own_answer_counts(tcti: str) -> None:
    sealed = seal(ROOT, tcti=tcti, pcrs=[7], recovery="x")
    assert unseal(sealed, tcti) == ROOT


def _file(folder: Path) -> InsecureFileCustody:
    (folder / "custody.key").write_bytes(ROOT)
    return InsecureFileCustody(folder / "custody.key")
