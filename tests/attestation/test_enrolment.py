"""A host becomes known by proving that its keys live in one TPM, and by nothing else."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from django.contrib.auth.models import User

from attestation import service
from attestation.core.base64url import to_b64u
from attestation.errors import CannotApprove, FourEyes, NotAllowed
from attestation.models import Attester, Enrolment
from ledger import service as ledger
from tests.attestation.conftest import Portal, approve_host
from tests.machines import Machine, decoded

pytestmark = pytest.mark.django_db


def test_a_host_that_opens_its_credential_is_pending_and_its_maker_is_named(portal: Portal, healthy: Machine) -> None:
    answer = portal.enrol(healthy)
    assert answer.json()["state"] == "pending"
    attester = Attester.objects.get(pk=healthy.attester)
    assert (attester.ek_verdict, attester.status) == ("trusted", "UnauthorizedHost")
    assert ledger.leaves(act_prefix="host.enrolled", subject=attester.subject).count() == 1


def test_the_same_tpm_gets_its_old_place_back(portal: Portal, healthy: Machine) -> None:
    first = portal.enrol(healthy).json()["attester"]
    assert portal.enrol(healthy).json()["attester"] == first
    assert Attester.objects.count() == 1


def test_a_name_that_another_tpm_holds_goes_to_pending_and_says_so(
    portal: Portal, healthy: Machine, drifted: Machine, admin: User, approver: User
) -> None:
    approve_host(portal, healthy, admin, approver)
    answer = portal.enrol(drifted, name=healthy.name)
    assert answer.json()["state"] == "pending"
    assert "belongs to another TPM" in answer.json()["detail"]
    assert Attester.objects.get(pk=healthy.attester).state == "approved"
    assert ledger.leaves(act_prefix="host.identity_changed").count() == 1


def test_a_tpm_does_not_change_its_name(portal: Portal, healthy: Machine) -> None:
    portal.enrol(healthy)
    answer = portal.enrol(healthy, name="other")
    assert (answer.status_code, answer.json()["code"]) == (409, "identity_known")


def test_the_ek_certificate_of_another_tpm_is_refused(portal: Portal, healthy: Machine, drifted: Machine) -> None:
    assert drifted.ek_certificate is not None
    answer = portal.enrol(healthy, ek_certificate=to_b64u(drifted.ek_certificate))
    assert (answer.status_code, answer.json()["code"]) == (422, "ek_certificate_mismatch")
    assert not Enrolment.objects.exists()
    assert ledger.leaves(act_prefix="host.enrolment_refused").count() == 1


def test_an_attestation_key_that_is_not_restricted_is_refused(portal: Portal, healthy: Machine) -> None:
    free = healthy.tpm.primary("ecc256:ecdsa-sha256:null", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign")
    answer = portal.enrol(healthy, ak_public=to_b64u(free.public))
    healthy.tpm.forget(free)
    assert (answer.status_code, answer.json()["code"]) == (422, "ak_not_restricted")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        pytest.param({"ek_public": "!!!"}, 400, "malformed_request", id="not base64"),
        pytest.param({"ek_public": "++//"}, 400, "malformed_request", id="base64 of the other alphabet"),
        pytest.param({"ek_public": "AAAA"}, 400, "malformed", id="not a key"),
        pytest.param({"ek_public": "A" * 10_000}, 400, "too_large", id="oversize"),
        pytest.param({"ak_public": None}, 400, "malformed_request", id="no attestation key"),
        pytest.param({"name": "UPPER case"}, 400, "malformed_request", id="not a host name"),
        pytest.param({"name": "a" * 65}, 400, "malformed_request", id="name too long"),
        pytest.param({"ek_certificate": "AAAA"}, 400, "malformed", id="not a certificate"),
    ],
)
def test_a_malformed_enrolment_changes_nothing(
    portal: Portal, healthy: Machine, change: dict[str, object], status: int, code: str
) -> None:
    answer = portal.post("enrolments", healthy.enrolment(**change))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not Enrolment.objects.exists()


def test_a_wrong_secret_burns_the_enrolment(portal: Portal, healthy: Machine) -> None:
    offer = portal.post("enrolments", healthy.enrolment()).json()
    path = f"enrolments/{offer['id']}/activation"
    assert portal.post(path, {"secret": to_b64u(bytes(32))}).json()["code"] == "activation_refused"
    right = healthy.activate(decoded(offer, "credential_blob"), decoded(offer, "secret"))
    assert portal.post(path, {"secret": to_b64u(right)}).json()["code"] == "activation_refused"
    assert not Attester.objects.exists()


def test_an_activation_that_comes_too_late_is_refused(portal: Portal, healthy: Machine) -> None:
    offer = portal.post("enrolments", healthy.enrolment()).json()
    right = healthy.activate(decoded(offer, "credential_blob"), decoded(offer, "secret"))
    Enrolment.objects.update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    answer = portal.post(f"enrolments/{offer['id']}/activation", {"secret": to_b64u(right)})
    assert answer.json()["code"] == "activation_refused"


def test_an_unknown_enrolment_is_refused(portal: Portal) -> None:
    answer = portal.post(f"enrolments/{uuid4()}/activation", {"secret": to_b64u(bytes(32))})
    assert (answer.status_code, answer.json()["code"]) == (403, "activation_refused")


def test_a_tpm_of_an_unknown_maker_waits_and_cannot_be_approved(
    portal: Portal, foreign: Machine, admin: User, approver: User
) -> None:
    portal.enrol(foreign)
    assert Attester.objects.get(pk=foreign.attester).ek_verdict == "untrusted"
    now = datetime.now(UTC)
    proposal = service.propose_host(UUID(foreign.attester), by=admin, reason="", now=now)
    with pytest.raises(CannotApprove, match="maker of this TPM is not trusted"):
        service.decide(proposal.id, by=approver, approve=True, reason="", now=now)
    assert Attester.objects.get(pk=foreign.attester).state == "pending"


def test_trusting_a_maker_counts_for_the_hosts_that_wait(portal: Portal, foreign: Machine) -> None:
    portal.enrol(foreign)
    now = datetime.now(UTC)
    for authority in foreign.maker.authorities():
        pem = authority.public_bytes(Encoding.PEM)
        service.trust_authority(pem, provenance="their site", by="system", now=now)
    assert Attester.objects.get(pk=foreign.attester).ek_verdict == "trusted"


def test_a_tpm_without_certificate_is_approved_only_by_saying_so(
    portal: Portal, foreign: Machine, admin: User, approver: User
) -> None:
    portal.enrol(foreign, ek_certificate=None)
    now = datetime.now(UTC)
    proposal = service.propose_host(UUID(foreign.attester), by=admin, reason="", now=now)
    with pytest.raises(CannotApprove, match="no EK certificate"):
        service.decide(proposal.id, by=approver, approve=True, reason="", now=now)
    service.decide(proposal.id, by=approver, approve=True, reason="lab", now=now, accept_without_certificate=True)
    assert Attester.objects.get(pk=foreign.attester).state == "approved"


def test_whoever_put_a_host_forward_cannot_approve_it(portal: Portal, healthy: Machine, admin: User) -> None:
    portal.enrol(healthy)
    now = datetime.now(UTC)
    proposal = service.propose_host(UUID(healthy.attester), by=admin, reason="", now=now)
    with pytest.raises(FourEyes):
        service.decide(proposal.id, by=admin, approve=True, reason="", now=now)


def test_an_auditor_can_neither_propose_nor_decide(portal: Portal, healthy: Machine, admin: User) -> None:
    portal.enrol(healthy)
    now = datetime.now(UTC)
    auditor = User.objects.create_user("eve")
    with pytest.raises(NotAllowed):
        service.propose_host(UUID(healthy.attester), by=auditor, reason="", now=now)
    proposal = service.propose_host(UUID(healthy.attester), by=admin, reason="", now=now)
    with pytest.raises(NotAllowed):
        service.decide(proposal.id, by=auditor, approve=True, reason="", now=now)
