"""The state folder after crashes, damage and reboots."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.core.finding import Finding
from guardedhost.errors import StoreDamaged
from guardedhost.esys import SavedKey
from guardedhost.files import write_atomically
from guardedhost.store import Config, Credential, LastAttestation, Store

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEY = SavedKey(b"public", b"private")


def certificate(*, until: datetime) -> bytes:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 0xABC, until - timedelta(hours=8), until)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def credential(*, until: datetime = NOW + timedelta(hours=1)) -> Credential:
    return Credential(certificate(until=until), "a.b.c.d.e", KEY, (0, 7), reset_count=3)


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


def filled(store: Store) -> Store:
    store.save_config(Config(server="https://portal", attester="id", name="nbg-a01"))
    store.save_transport_key(KEY, 3)
    store.save_credential(credential())
    finding = Finding("pcr_mismatch", "CodeIntegrityPolicy", "what", "why", "remedy", (8, 9))
    store.save_last_attestation(LastAttestation(NOW, "Passed", ("NoInformation",), (finding,), NOW, NOW))
    return store


def test_everything_comes_back_as_it_was(empty: Store) -> None:
    store, again = filled(empty), Store(empty.folder)
    assert again.config() == store.enrolled()
    assert again.transport_key() == (KEY, 3)
    saved = again.credential()
    assert saved is not None
    assert (saved.key, saved.boot_pcrs, saved.serial) == (KEY, (0, 7), "abc")
    last = again.last_attestation()
    assert last is not None
    assert last.findings[0].pcrs == (8, 9)


def test_only_the_owner_may_read(empty: Store) -> None:
    filled(empty)
    assert empty.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in empty.folder.iterdir()} == {0o600}


def test_an_empty_folder_is_a_host_that_is_not_enrolled(empty: Store) -> None:
    assert (empty.transport_key(), empty.credential(), empty.last_attestation()) == (None, None, None)
    with pytest.raises(StoreDamaged, match="guardhouse host enrol"):
        empty.enrolled()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"public": 1}', b"\xff\xfe", b'{"public": "!"}'])
def test_damaged_files_count_as_absent(empty: Store, damage: bytes) -> None:
    filled(empty)
    for name in ("transport.json", "credential.json", "status.json", "machines.json"):
        (empty.folder / name).write_bytes(damage)
    assert (empty.transport_key(), empty.credential(), empty.last_attestation()) == (None, None, None)
    assert empty.machines() == []


def test_every_truncation_of_a_credential_counts_as_absent(empty: Store) -> None:
    path = filled(empty).folder / "credential.json"
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        assert empty.credential() is None


def test_a_certificate_that_cannot_be_read_counts_as_absent(empty: Store) -> None:
    path = filled(empty).folder / "credential.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "certificate": "AAAA"}))
    assert empty.credential() is None


@pytest.mark.parametrize("damage", ["{", '{"unknown": 1}', "[]"])
def test_a_damaged_configuration_asks_for_a_new_enrolment(empty: Store, damage: str) -> None:
    filled(empty)
    (empty.folder / "config.json").write_text(damage)
    with pytest.raises(StoreDamaged, match="enrol this host again"):
        empty.config()


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from guardedhost.files import write_atomically\n"
        "while True:\n for byte in (b'a', b'b'):\n  write_atomically(Path(sys.argv[1]), byte * 4096); print(flush=True)"
    )
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "file")], stdout=subprocess.PIPE)
        with writer:
            assert writer.stdout
            writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        assert (tmp_path / "file").read_bytes() in (b"a" * 4096, b"b" * 4096)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    (tmp_path / f".file.{os.getpid()}").mkdir()
    with pytest.raises(OSError, match=r"\.file"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("until", "reset_count", "valid"),
    [
        pytest.param(NOW + timedelta(hours=1), 3, True, id="valid"),
        pytest.param(NOW, 3, False, id="lapsed"),
        pytest.param(NOW + timedelta(seconds=2), 3, False, id="about to lapse"),
        pytest.param(NOW + timedelta(hours=1), 4, False, id="of another boot"),
    ],
)
def test_a_certificate_is_used_in_its_time_and_its_boot(until: datetime, reset_count: int, valid: bool) -> None:
    assert credential(until=until).valid(now=NOW, reset_count=reset_count) is valid


def test_secrets_are_not_in_the_representation() -> None:
    shown = repr(replace(credential(), release_secret="e30.secret"))
    assert "e30" not in shown
    assert "private" not in shown
