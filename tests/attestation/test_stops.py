"""Stops: no key for a host, a group or anybody, at once, by one person; lifted by two."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction

from attestation import service
from attestation.errors import AlreadyDecided, CannotStop, FourEyes, NotAllowed, NotFound, ReleasesStopped
from attestation.models import HealthCertificate, Proposal, Stop
from ledger import service as ledger
from tests.attestation.conftest import Portal
from tests.machines import Machine, decoded

LATER = timedelta(seconds=2)


def by(user: User) -> dict[str, Any]:
    return {"by": user, "reason": "a key has leaked", "now": datetime.now(UTC) + LATER}


@pytest.fixture
def certificate(fabric: Portal, healthy: Machine) -> bytes:
    return decoded(fabric.attest(healthy).json(), "certificate")


def counts(certificate: bytes) -> bool:
    try:
        service.verify_certificate(certificate, now=datetime.now(UTC) + LATER)
    except ReleasesStopped:
        return False
    return True


def begin(scope: str, healthy: Machine, user: User) -> Stop:
    if scope == "fabric":
        return service.stop_fabric(**by(user))
    if scope == "group":
        return service.stop_group("default", **by(user))
    return service.stop_host(UUID(healthy.attester), **by(user))


SAID = {
    "fabric": ("the whole fabric", "on this fabric"),
    "group": ("the group Default", "to hosts of the group default"),
    "host": ("host nbg-a01", "to nbg-a01"),
}


@pytest.mark.parametrize("scope", SAID)
def test_a_stop_holds_until_two_persons_lift_it(
    fabric: Portal, certificate: bytes, healthy: Machine, admin: User, approver: User, scope: str
) -> None:
    assert counts(certificate)
    stop = begin(scope, healthy, admin)
    name, words = SAID[scope]
    with pytest.raises(ReleasesStopped, match=words):
        service.verify_certificate(certificate, now=datetime.now(UTC) + LATER)
    found = service.stop_of(HealthCertificate.objects.latest("issued_at").attester)
    assert (found, stop.name) == (stop, name)
    assert fabric.attest(healthy).json()["certificate"], "it goes on attesting"

    proposal = service.propose_lift(stop.pk, **by(admin))
    assert (proposal.kind, proposal.about) == ("lift", stop)
    assert not counts(certificate)
    with pytest.raises(FourEyes):
        service.decide(proposal.pk, approve=True, **by(admin))
    service.decide(proposal.pk, approve=True, **by(approver))
    assert counts(certificate)
    assert not service.stops_in_force()
    assert service.stops().get().lifted_by == "ben"
    acts = [leaf.act for leaf in ledger.leaves(subject=stop.subject) if not leaf.act.startswith("attestation.")]
    assert acts[:3] == ["lift.approved", "lift.proposed", "stop.begun"]


def test_a_lift_that_is_refused_changes_nothing(
    certificate: bytes, healthy: Machine, admin: User, approver: User
) -> None:
    stop = service.stop_fabric(**by(admin))
    proposal = service.propose_lift(stop.pk, **by(admin))
    with pytest.raises(AlreadyDecided):
        service.propose_lift(stop.pk, **by(admin))
    service.decide(proposal.pk, approve=False, **by(approver))
    assert not counts(certificate)
    assert service.propose_lift(stop.pk, **by(admin)).state == "open"


def test_one_stop_does_not_lift_another(certificate: bytes, healthy: Machine, admin: User, approver: User) -> None:
    wide, narrow = service.stop_fabric(**by(admin)), service.stop_host(UUID(healthy.attester), **by(admin))
    service.decide(service.propose_lift(wide.pk, **by(admin)).pk, approve=True, **by(approver))
    assert not counts(certificate)
    with pytest.raises(NotFound):
        service.propose_lift(wide.pk, **by(admin))
    service.decide(service.propose_lift(narrow.pk, **by(admin)).pk, approve=True, **by(approver))
    assert counts(certificate)


def test_another_group_s_hosts_are_not_concerned(certificate: bytes, admin: User) -> None:
    service.add_group("vault", "Vault", description="", canary_of=None, by=admin, now=datetime.now(UTC))
    service.stop_group("vault", **by(admin))
    assert counts(certificate)


@pytest.mark.parametrize("scope", SAID)
def test_what_is_stopped_is_not_stopped_again(certificate: bytes, healthy: Machine, admin: User, scope: str) -> None:
    begin(scope, healthy, admin)
    leaves = ledger.leaves().count()
    with pytest.raises(CannotStop, match="stopped already"):
        begin(scope, healthy, admin)
    assert (Stop.objects.count(), ledger.leaves().count()) == (1, leaves)


def test_who_may_not_stop_does_not(certificate: bytes, healthy: Machine, admin: User, approver: User) -> None:
    for scope in SAID:
        with pytest.raises(NotAllowed):
            begin(scope, healthy, approver)
    stop = service.stop_fabric(**by(admin))
    with pytest.raises(NotAllowed):
        service.propose_lift(stop.pk, **by(approver))
    assert not Proposal.objects.filter(stop=stop)


def test_what_is_not_there_is_not_stopped(db: None, admin: User) -> None:
    for act in (
        lambda: service.stop_group("nowhere", **by(admin)),
        lambda: service.stop_host(UUID(int=9), **by(admin)),
        lambda: service.propose_lift(9, **by(admin)),
    ):
        with pytest.raises(NotFound):
            act()
    assert not ledger.leaves(act_prefix="stop")


def test_a_stop_about_two_things_cannot_be_kept(db: None) -> None:
    now = datetime.now(UTC)
    for wrong in ({"scope": "fabric", "group_id": "default"}, {"scope": "group"}, {"scope": "host"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Stop.objects.create(at=now, by="ada", reason="x", **wrong)


def test_a_release_reads_the_stops_with_what_it_reads_anyway(db: None, django_assert_num_queries: Any) -> None:
    """Nothing is asked more than before there were stops: the lock, where there is one, and one statement."""
    with django_assert_num_queries(2 if connection.vendor == "postgresql" else 1):
        assert service.held_certificate("ab" * 16, now=datetime.now(UTC)) is None
