"""A Windows host attests like any other: its own checks are asked, of the records that its boot manager measured."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User

from attestation import service
from attestation.core.document import to_json
from attestation.core.dossier import differences
from attestation.models import Attestation, Baseline
from attestation.policy import base_document
from tests.attestation.conftest import Portal, approve_baseline, approve_host
from tests.attestation.test_dossiers import judged
from tests.boot_logs import COLLECTION
from tests.machines import Machine, booted_from
from tests.tpm_lab import Maker

LOG = COLLECTION / "kgoldman_ibmtss" / "ideapad1.log"  # a Windows 10 with Secure Boot, without virtual secure mode

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(not LOG.exists(), reason="the collection of real boot logs is not beside this repository"),
]


@pytest.fixture(scope="module")
def laptop(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with booted_from(maker, tmp_path_factory.mktemp("tpm"), name="nbg-w01", log=LOG.read_bytes()) as machine:
        yield machine


@pytest.fixture
def windows(portal: Portal, laptop: Machine, admin: User, approver: User) -> Portal:
    approve_host(portal, laptop, admin, approver)
    approve_baseline(portal, laptop, admin, approver, name="windows")
    return portal


def require(admin: User, approver: User, *codes: str) -> None:
    now = datetime.now(UTC)
    draft = service.start_draft("default", title="Stricter", by=admin, now=now)
    wanted = to_json(replace(base_document("default")[1], required=frozenset(codes)))
    draft = service.change_draft(draft.id, wanted, revision=draft.revision, by=admin, now=now)
    run = service.start_dry_run(draft.id, by=admin, now=now)
    while service.go_on_dry_run(run.id, now=now).finished_at is None:
        pass
    proposal = service.propose_draft(draft.id, by=admin, reason="as HGS asks it", now=now)
    service.decide(proposal.id, by=approver, approve=True, reason="as agreed", now=now)


def test_its_baseline_knows_that_it_is_windows(windows: Portal, laptop: Machine) -> None:
    assert Baseline.objects.get().platform == "windows"
    assert windows.attest(laptop).json()["status"] == "Passed"
    newest = Attestation.objects.latest("id")
    assert newest.boot_count is not None
    assert {"12", "13"} <= newest.pcrs.keys()
    assert differences(*judged(newest)) == ()


def test_what_its_boot_manager_measured_passes(windows: Portal, laptop: Machine, admin: User, approver: User) -> None:
    require(admin, approver, "secure_boot", "debug_mode", "full_boot", "test_signing", "normal_start", "early_launch")
    assert windows.attest(laptop).json()["status"] == "Passed"


@pytest.mark.parametrize(
    ("code", "substatus", "said"),
    [
        ("virtual_secure_mode", "VirtualSecureMode", "Virtual secure mode was off."),
        ("encrypted_system", "BitLocker", "not protected by BitLocker"),
        ("no_dumps", "DumpsEnabled", "Crash dumps were possible."),
        ("no_hibernation", "HibernationEnabled", "Hibernation was possible."),
        ("pagefile_encryption", "PagefileEncryption", "The page file was not encrypted."),
        ("iommu", "Iommu", "does not say it"),
        ("code_integrity_policy", "CodeIntegrityPolicy", "No code integrity policy was measured."),
    ],
)
def test_what_hgs_would_refuse_is_refused_in_its_words(
    windows: Portal, laptop: Machine, admin: User, approver: User, code: str, substatus: str, said: str
) -> None:
    require(admin, approver, code)
    verdict = windows.attest(laptop).json()
    assert (verdict["status"], verdict["substatus"]) == ("InsecureHostConfiguration", [substatus])
    (finding,) = verdict["findings"]
    assert finding["code"] in (code, f"{code}_unproven")
    assert said in finding["what"]


def test_a_linux_host_is_not_asked_what_only_windows_has(
    windows: Portal, healthy: Machine, admin: User, approver: User
) -> None:
    approve_host(windows, healthy, admin, approver)
    approve_baseline(windows, healthy, admin, approver, name="trixie")
    require(admin, approver, "test_signing", "early_launch", "debug_mode")
    assert windows.attest(healthy).json()["status"] == "Passed"
