"""Lab hosts: their identity, and captures that cannot be replayed."""

import hashlib
import shutil
from pathlib import Path

import pytest
from cryptography import x509

from attestation.core.certificate_reader import parse_certificate
from attestation.core.ima import replay_ima
from guardedhost import lab
from guardedhost.errors import AgentError, TpmFailure
from guardedhost.store import Store
from guardedhost.tpm import Tpm
from tests.guardedhost.conftest import ON


def ima_entry(path: bytes) -> bytes:
    """A record of the kernel's list, template ima-ng."""

    def sized(data: bytes) -> bytes:
        return len(data).to_bytes(4, "little") + data

    template = sized(b"sha256:\0" + hashlib.sha256(path).digest()) + sized(path + b"\0")
    head = (10).to_bytes(4, "little") + hashlib.sha1(template, usedforsecurity=False).digest()
    return head + sized(b"ima-ng") + sized(template)


def test_two_hosts_of_one_maker_have_certificates_of_one_authority(manufactured: Path, tmp_path: Path) -> None:
    maker = manufactured.parent / "maker"
    other = tmp_path / "other"
    lab.make_host(other, name="nbg-a02", boot_log=ON, ima_log=None, authority=maker)
    try:
        with Tpm(Store(other).config().tcti) as tpm:
            certificate = tpm.endorsement().certificate
    finally:
        lab.stop(other)
    assert certificate is not None
    issuer = x509.load_pem_x509_certificate((maker / "issuercert.pem").read_bytes())
    parse_certificate(certificate).verify_directly_issued_by(issuer)
    assert (maker / "swtpm-localca-rootca-cert.pem").exists()


def test_the_ima_list_is_in_pcr_10(lab_host: Path, tmp_path: Path) -> None:
    listed = b"".join(ima_entry(name) for name in (b"boot_aggregate", b"/sbin/init"))
    violation = bytearray(ima_entry(b"/changed"))
    violation[4:24] = bytes(20)
    (tmp_path / "ima").write_bytes(listed + bytes(violation))
    lab.reboot(lab_host, boot_log=ON, ima_log=tmp_path / "ima")
    store = Store(lab_host)
    with Tpm(store.config().tcti) as tpm:
        quoted = tpm.read_pcrs([10])[10]
    replayed = replay_ima(Path(store.config().ima_log).read_bytes(), quoted=quoted, bank="sha256")
    assert (replayed.entries, replayed.violations) == (3, 1)


def test_switching_on_again_keeps_the_enrolment_and_the_identity(lab_host: Path) -> None:
    store = Store(lab_host)
    with Tpm(store.config().tcti) as tpm:
        before = tpm.endorsement()
    lab.stop(lab_host)
    with pytest.raises(TpmFailure):
        Tpm(store.config().tcti)
    lab.make_host(lab_host, name="nbg-a01", boot_log=ON, ima_log=None, authority=None)
    with Tpm(store.config().tcti) as tpm:
        assert tpm.endorsement() == before


def test_stopping_twice_is_no_error(lab_host: Path) -> None:
    lab.stop(lab_host)
    lab.stop(lab_host)


@pytest.mark.parametrize("log", [b"", b"no log", ON.read_bytes()[:-1]])
def test_a_log_that_cannot_be_read_makes_no_boot(lab_host: Path, tmp_path: Path, log: bytes) -> None:
    (tmp_path / "log").write_bytes(log)
    with pytest.raises(AgentError):
        lab.reboot(lab_host, boot_log=tmp_path / "log", ima_log=None)


def test_a_truncated_ima_list_is_a_sentence(lab_host: Path, tmp_path: Path) -> None:
    (tmp_path / "ima").write_bytes(ima_entry(b"/sbin/init")[:25])
    with pytest.raises(AgentError, match="IMA list does not begin with an entry"):
        lab.reboot(lab_host, boot_log=ON, ima_log=tmp_path / "ima")


def test_another_folder_is_no_lab_host(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="not the folder of a lab host"):
        lab.stop(tmp_path)


def test_a_lab_host_may_lie_deep(manufactured: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "host"
    shutil.copytree(manufactured, deep, ignore=shutil.ignore_patterns("socket*"))
    lab.make_host(deep, name="nbg-a01", boot_log=ON, ima_log=None, authority=None)
    sockets = (deep / "lab" / "sockets").readlink()
    with Tpm(Store(deep).config().tcti) as tpm:
        assert tpm.ak_public()
    lab.stop(deep)
    assert not sockets.exists()
