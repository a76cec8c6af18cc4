"""The TPM class against a real software TPM, and against our own verifier as the other side."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from attestation.core.credential import make_credential
from attestation.core.eventlog import parse_event_log
from attestation.core.handover import wrap_to_transport_key
from attestation.core.quote import BOOT_PCRS, QUOTED_PCRS, verify_quote
from attestation.core.replay import replay_values
from attestation.core.tpm import parse_public, require_ak
from attestation.core.transport import verify_transport_key
from guardedhost import lab
from guardedhost.errors import TpmFailure
from guardedhost.esys import SavedKey
from guardedhost.jwe import NotOpened, open_jwe
from guardedhost.store import Store
from guardedhost.tpm import Tpm
from tests.guardedhost.conftest import DRIFT, ON

NONCE = bytes(range(32))
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


@pytest.fixture
def tcti(store: Store) -> str:
    return store.config().tcti


def wrapped(key: SavedKey, secret: bytes) -> bytes:
    public = parse_public(key.public).key
    assert isinstance(public, rsa.RSAPublicKey)
    return public.encrypt(secret, OAEP)


def test_the_lab_host_has_the_pcrs_of_the_captured_boot(tcti: str) -> None:
    with Tpm(tcti) as tpm:
        assert tpm.read_pcrs(BOOT_PCRS).items() >= replay_values(parse_event_log(ON.read_bytes()), "sha256").items()


def test_the_same_tpm_has_the_same_keys_after_a_reboot(lab_host: Path, tcti: str) -> None:
    with Tpm(tcti) as tpm:
        before = (tpm.endorsement(), tpm.ak_public(), tpm.reset_count())
    lab.reboot(lab_host, boot_log=DRIFT, ima_log=None)
    with Tpm(tcti) as tpm:
        after = (tpm.endorsement(), tpm.ak_public(), tpm.reset_count())
    assert before[:2] == after[:2]
    assert before[2] < after[2]
    assert before[0].certificate


def test_the_credential_of_the_portal_opens(tcti: str) -> None:
    with Tpm(tcti) as tpm:
        ek, ak = parse_public(tpm.endorsement().public), parse_public(tpm.ak_public())
        require_ak(ak)
        sealed = make_credential(ek, ak.name, NONCE, seed=bytes(64), ephemeral=None)
        assert tpm.activate(*sealed) == NONCE


def test_a_credential_for_another_ak_does_not_open(tcti: str) -> None:
    with Tpm(tcti) as tpm:
        ek, ak = parse_public(tpm.endorsement().public), parse_public(tpm.ak_public())
        sealed = make_credential(ek, ak.name[:-1] + b"?", NONCE, seed=bytes(64), ephemeral=None)
        with pytest.raises(TpmFailure, match="credential"):
            tpm.activate(*sealed)
        assert tpm.ak_public() == ak.raw, "no session or handle is left behind"


@pytest.mark.parametrize("sealed", [(b"", b""), (b"\xff\xff", b"\0\x01"), (bytes(64), bytes(258))])
def test_a_credential_of_another_form_is_a_sentence(tcti: str, sealed: tuple[bytes, bytes]) -> None:
    with Tpm(tcti) as tpm, pytest.raises(TpmFailure):
        tpm.activate(*sealed)


def test_the_portal_verifies_the_quote_and_the_transport_key(tcti: str) -> None:
    with Tpm(tcti) as tpm:
        ak = parse_public(tpm.ak_public())
        quoted = tpm.quote(QUOTED_PCRS, NONCE)
        key = tpm.create_transport_key(BOOT_PCRS)
        certified = tpm.certify(key, NONCE)
    selection = ("sha256", QUOTED_PCRS)
    signed = quoted.signed
    quote = verify_quote(
        signed.attest, signed.signature, ak=ak, nonce=NONCE, selection=selection, pcr_values=quoted.values
    )
    verify_transport_key(key.public, certified.attest, certified.signature, ak=ak, nonce=NONCE, pcrs=quote.pcrs)


def test_the_transport_key_opens_after_pcr_10_moved_and_not_after_pcr_4_did(tcti: str) -> None:
    with Tpm(tcti) as tpm:
        key = tpm.create_transport_key(BOOT_PCRS)
        ciphertext = wrapped(key, b"content key")
        tpm.extend(10, bytes(32))
        assert tpm.decrypt(key, BOOT_PCRS, ciphertext) == b"content key"
        tpm.extend(4, bytes(32))
        assert not tpm.usable_now(key, BOOT_PCRS)
        with pytest.raises(TpmFailure, match="boot state"):
            tpm.decrypt(key, BOOT_PCRS, ciphertext)


def test_a_transport_key_does_not_open_under_a_policy_over_other_pcrs(tcti: str) -> None:
    with Tpm(tcti) as tpm:
        key = tpm.create_transport_key(BOOT_PCRS)
        with pytest.raises(TpmFailure, match="boot state"):
            tpm.decrypt(key, (0, 1), wrapped(key, b"content key"))


def test_a_transport_key_survives_a_reboot_into_the_same_state_only(lab_host: Path, tcti: str) -> None:
    with Tpm(tcti) as tpm:
        key = tpm.create_transport_key(BOOT_PCRS)
    ciphertext = wrapped(key, b"content key")
    lab.reboot(lab_host, boot_log=ON, ima_log=None)
    with Tpm(tcti) as tpm:
        assert tpm.decrypt(key, BOOT_PCRS, ciphertext) == b"content key"
    lab.reboot(lab_host, boot_log=DRIFT, ima_log=None)
    with Tpm(tcti) as tpm, pytest.raises(TpmFailure, match="boot state"):
        tpm.decrypt(key, BOOT_PCRS, ciphertext)


def test_a_damaged_transport_key_is_a_sentence(tcti: str) -> None:
    with Tpm(tcti) as tpm:
        key = tpm.create_transport_key(BOOT_PCRS)
        damaged = SavedKey(key.public, key.private[:-1] + bytes([key.private[-1] ^ 1]))
        with pytest.raises(TpmFailure, match="load a key"):
            tpm.certify(damaged, NONCE)


def test_a_jwe_opens_by_the_tpm_and_an_altered_one_does_not(tcti: str) -> None:
    with Tpm(tcti) as tpm:
        key = tpm.create_transport_key(BOOT_PCRS)
        token = wrap_to_transport_key(b"a key", parse_public(key.public).spki)

        def unwrap(ciphertext: bytes) -> bytes:
            return tpm.decrypt(key, BOOT_PCRS, ciphertext)

        assert open_jwe(token, unwrap) == b"a key"
        head, body, tag = token.rsplit(".", 2)
        flipped = ("A" if body[0] != "A" else "B") + body[1:]
        with pytest.raises(NotOpened, match="altered"):
            open_jwe(f"{head}.{flipped}.{tag}", unwrap)


def test_the_content_key_does_not_cross_the_bus_in_clear(tcti: str, tmp_path: Path) -> None:
    secret = os.urandom(32)
    with Tpm(tcti) as tpm:
        key = tpm.create_transport_key(BOOT_PCRS)
    heard = bytearray()
    with (
        Listening(tcti.removeprefix("swtpm:path="), tmp_path / "bus", heard.extend),
        Tpm(f"swtpm:path={tmp_path}/bus") as tpm,
    ):
        assert tpm.decrypt(key, BOOT_PCRS, wrapped(key, secret)) == secret
    assert len(heard) > 1000
    assert secret not in heard


def test_killed_agents_leave_room_in_the_tpm(tcti: str) -> None:
    program = (
        "import os, sys; from guardedhost.tpm import Tpm; tpm = Tpm(sys.argv[1]);"
        "tpm._ak().__enter__(); held = tpm._srk(); held.__enter__(); os.kill(os.getpid(), 9)"
    )
    for _ in range(4):
        died = subprocess.run([sys.executable, "-c", program, tcti], check=False)
        assert died.returncode == -signal.SIGKILL
    with Tpm(tcti) as tpm:
        assert tpm.quote(QUOTED_PCRS, NONCE).values


@pytest.mark.parametrize("tcti", ["swtpm:path=/nowhere/tpm", "device:/nowhere/tpmrm0", "nonsense:x"])
def test_an_absent_tpm_is_a_sentence(tcti: str) -> None:
    with pytest.raises(TpmFailure, match="There is no TPM at"):
        Tpm(tcti)


class Listening:
    """A socket in front of the TPM's, which hears both directions."""

    def __init__(self, tpm: str, path: Path, hear: Callable[[bytes], object]) -> None:
        self._pairs = [(tpm, str(path)), (f"{tpm}.ctrl", f"{path}.ctrl")]
        self._hear = hear
        self._servers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> None:
        for tpm, path in self._pairs:
            server = socket.socket(socket.AF_UNIX)
            server.bind(path)
            server.listen()
            self._servers.append(server)
            self._spawn(self._serve, server, tpm)

    def __exit__(self, *args: object) -> None:
        for server in self._servers:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        for thread in self._threads:
            thread.join(5)

    def _spawn(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _serve(self, server: socket.socket, tpm: str) -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                behind = socket.socket(socket.AF_UNIX)
                behind.connect(tpm)
                self._spawn(self._copy, client, behind)
                self._spawn(self._copy, behind, client)

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with source, suppress(OSError):
            while data := source.recv(65536):
                self._hear(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)
