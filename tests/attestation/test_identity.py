"""What people decided about a TPM, a name or a source stays decided, whatever comes back and in whichever order."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User

from attestation import service
from attestation.core.base64url import to_b64u
from attestation.errors import CannotApprove
from attestation.models import Attester, Proposal
from ledger import service as ledger
from tests.attestation.conftest import Portal, approve_host
from tests.machines import Machine, bound_transport_key, decoded
from tests.tpm_lab import Key

pytestmark = pytest.mark.django_db


def now() -> datetime:
    return datetime.now(UTC)


def propose(machine: Machine, by: User) -> Proposal:
    return service.propose_host(UUID(machine.attester), by=by, reason="new rack", now=now())


def approve(proposal: Proposal, by: User) -> Proposal:
    return service.decide(proposal.id, by=by, approve=True, reason="seen the rack", now=now())


def newest(machine: Machine) -> int:
    found = service.attestations(attester_id=UUID(machine.attester)).filter(code="").first()
    assert found is not None
    return found.pk


@pytest.fixture
def another_ak(healthy: Machine) -> Iterator[Key]:
    """The transport key makes room for it: a TPM holds three keys at a time."""
    healthy.tpm.forget(healthy.transport)
    key = healthy.tpm.primary("ecc384:ecdsa-sha256:null")
    yield key
    healthy.tpm.forget(key)
    healthy.transport = bound_transport_key(healthy.tpm)


def enrol_again(portal: Portal, machine: Machine, ak: Key, **changes: object) -> Any:
    """Enrol the same TPM with another attestation key."""
    offer = portal.post("enrolments", machine.enrolment(ak_public=to_b64u(ak.public), **changes)).json()
    opened = machine.tpm.activate(ak, machine.ek, decoded(offer, "credential_blob"), decoded(offer, "secret"))
    return portal.post(f"enrolments/{offer['id']}/activation", {"secret": to_b64u(opened)})


@pytest.mark.parametrize("ended", ["revoked", "rejected"])
def test_a_tpm_that_was_turned_away_does_not_come_back_with_another_attestation_key(
    portal: Portal, healthy: Machine, admin: User, approver: User, another_ak: Key, ended: str
) -> None:
    if ended == "revoked":
        approve_host(portal, healthy, admin, approver)
        service.revoke_host(UUID(healthy.attester), by=admin, reason="stolen", now=now())
    else:
        portal.enrol(healthy)
        service.decide(propose(healthy, admin).id, by=approver, approve=False, reason="not ours", now=now())
    answer = enrol_again(portal, healthy, another_ak)
    assert (answer.status_code, answer.json()["code"]) == (409, "identity_known")
    assert ended in answer.json()["detail"]
    assert Attester.objects.count() == 1
    assert ledger.leaves(act_prefix="host.activation_refused").count() == 1


def test_another_attestation_key_does_not_give_a_tpm_a_second_name(
    portal: Portal, healthy: Machine, another_ak: Key
) -> None:
    portal.enrol(healthy)
    answer = enrol_again(portal, healthy, another_ak, name="nbg-b99")
    assert (answer.status_code, answer.json()["code"]) == (409, "identity_known")


def test_another_attestation_key_under_the_same_name_waits_and_says_what_it_replaces(
    portal: Portal, healthy: Machine, admin: User, approver: User, another_ak: Key
) -> None:
    approve_host(portal, healthy, admin, approver)
    answer = enrol_again(portal, healthy, another_ak)
    assert answer.json()["state"] == "pending"
    assert "belongs to another TPM" in answer.json()["detail"]


def test_a_proposal_does_not_bring_a_revoked_host_back(
    portal: Portal, healthy: Machine, admin: User, approver: User
) -> None:
    """Two proposals for one host cannot be open together; should they ever be, the second changes nothing."""
    approve_host(portal, healthy, admin, approver)
    late = Proposal.objects.create(
        attester_id=healthy.attester, proposed_by=admin, proposed_at=now(), reason="sent twice"
    )
    service.revoke_host(UUID(healthy.attester), by=admin, reason="stolen", now=now())
    with pytest.raises(CannotApprove, match="does not wait"):
        approve(late, approver)
    assert Attester.objects.get(pk=healthy.attester).state == "revoked"
    service.decide(late.id, by=approver, approve=False, reason="stolen", now=now())
    assert Attester.objects.get(pk=healthy.attester).state == "revoked"


def test_the_approver_is_told_which_host_goes_even_if_it_came_later(
    portal: Portal, healthy: Machine, drifted: Machine, admin: User, approver: User
) -> None:
    portal.enrol(drifted, name=healthy.name)
    waiting = propose(drifted, admin)
    assert service.effect_of(waiting).replaces is None
    approve_host(portal, healthy, admin, approver)
    told = service.effect_of(service.proposal(waiting.id)).replaces
    assert told is not None
    assert str(told.id) == healthy.attester


def test_no_baseline_is_captured_from_a_host_that_was_revoked(fabric: Portal, healthy: Machine, admin: User) -> None:
    attestation = newest(healthy)
    service.revoke_host(UUID(healthy.attester), by=admin, reason="stolen", now=now())
    with pytest.raises(CannotApprove, match="revoked"):
        service.capture_baseline(attestation, name="mine", by=admin, reason="looks good", now=now())


def test_no_baseline_is_approved_whose_source_was_turned_away_since(
    fabric: Portal, drifted: Machine, admin: User, approver: User
) -> None:
    fabric.enrol(drifted)
    fabric.attest(drifted)
    baseline = service.capture_baseline(newest(drifted), name="mine", by=admin, reason="looks good", now=now())
    service.decide(propose(drifted, admin).id, by=approver, approve=False, reason="not ours", now=now())
    with pytest.raises(CannotApprove, match="rejected"):
        approve(baseline, approver)
    assert service.policy_version() == 1
