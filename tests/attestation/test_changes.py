"""One change on many hosts is one thing to look at and one to accept; anything else is another change."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from attestation import changes, service
from attestation.core.reference import ByEvents
from attestation.errors import CannotApprove, ChangeGone, NotAllowed
from attestation.models import Attester, Baseline, Component, PolicyDraft, Proposal
from tests.attestation.conftest import Portal, approve_baseline, approve_host, person
from tests.machines import Machine, booted_from
from tests.tpm_lab import Maker
from tests.updates import with_new_kernel

pytestmark = pytest.mark.django_db
REASON = "The kernel that our repository has since this morning."
EVENTFUL = (4, 8, 9)


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture(scope="module")
def twin(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Another host with the same new kernel."""
    log = with_new_kernel("secureboot-on")
    with booted_from(maker, tmp_path_factory.mktemp("tpm"), name="nbg-a05", log=log) as machine:
        yield machine


@pytest.fixture(scope="module")
def other(maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A host whose kernel is yet another one."""
    log = with_new_kernel("secureboot-on", "6.12.61-evil")
    with booted_from(maker, tmp_path_factory.mktemp("tpm"), name="nbg-a06", log=log) as machine:
        yield machine


def status(portal: Portal, machine: Machine) -> str:
    return str(portal.attest(machine).json()["status"])


def by_events(healthy: Machine, admin: User, approver: User) -> Baseline:
    newest = service.attestations().filter(attester_id=healthy.attester, code="").first()
    assert newest is not None
    proposal = service.capture_baseline(
        newest.pk, name="trixie", by=admin, reason=REASON, now=now(), by_events=EVENTFUL
    )
    service.decide(proposal.pk, by=approver, approve=True, reason="compared", now=now())
    return Baseline.objects.get(name="trixie", state="approved")


@pytest.fixture
def patched(
    fabric: Portal, healthy: Machine, updated: Machine, twin: Machine, drifted: Machine, admin: User, approver: User
) -> Portal:
    """By events: two hosts with one new kernel, and one with another command line."""
    by_events(healthy, admin, approver)
    assert status(fabric, healthy) == "Passed"
    for machine in (updated, twin, drifted):
        approve_host(fabric, machine, admin, approver)
        assert status(fabric, machine) == "InsecureHostConfiguration"
    return fabric


def shown() -> dict[frozenset[str], changes.Change]:
    return {frozenset(host.name for host in change.hosts): change for change in service.changes()}


def of(*machines: Machine) -> changes.Change:
    return shown()[frozenset(machine.name for machine in machines)]


# --- shown -------------------------------------------------------------------------------------------------------


def test_hosts_with_one_change_are_one_line(patched: Portal, updated: Machine, twin: Machine, drifted: Machine) -> None:
    found = shown()
    assert set(found) == {frozenset((updated.name, twin.name)), frozenset((drifted.name,))}
    assert [len(change.hosts) for change in service.changes()] == [2, 1]
    change = of(updated, twin)
    assert sorted({each["pcr"] for each in change.differences}) == [4, 9]
    assert all(each["expected"] and each["seen"] and each["name"] for each in change.differences)
    assert {"/boot/vmlinuz", "/boot/initrd.img"} <= {each["text"] for each in change.differences}


def test_a_change_is_as_old_as_the_youngest_of_its_events(patched: Portal, updated: Machine, twin: Machine) -> None:
    change = of(updated, twin)
    first = Attester.objects.get(pk=updated.attester).latest
    assert first is not None
    assert change.since == first.at
    later = first.at + timedelta(hours=1)
    Component.objects.filter(pk=change.differences[0]["seen"]).update(first_seen_at=later)
    assert of(updated, twin).since == later


def test_another_kernel_is_another_change(
    patched: Portal, updated: Machine, twin: Machine, other: Machine, admin: User, approver: User
) -> None:
    before = of(updated, twin).signature
    approve_host(patched, other, admin, approver)
    assert status(patched, other) == "InsecureHostConfiguration"
    assert of(updated, twin).signature == before
    assert of(other).signature != before
    whats = [[finding["what"] for finding in change.findings] for change in (of(other), of(updated, twin))]
    assert whats[0] == whats[1]  # in words they are the same


def test_the_same_change_in_another_group_is_another_one(
    patched: Portal, updated: Machine, twin: Machine, admin: User, approver: User
) -> None:
    together = of(updated, twin).signature
    service.add_group("canary", "Canaries", description="", canary_of="default", by=admin, now=now())
    canary = service.start_draft("canary", title="none", by=admin, now=now())
    assert canary.group_id == "canary"
    move = service.propose_host(UUID(twin.attester), by=admin, reason=REASON, now=now(), group="canary")
    service.decide(move.pk, by=approver, approve=True, reason=REASON, now=now())
    signatures = {change.signature for names, change in shown().items() if names & {updated.name, twin.name}}
    assert len(signatures) == 2
    assert together in signatures


def test_who_fails_otherwise_is_counted_and_no_change(
    portal: Portal, healthy: Machine, admin: User, approver: User
) -> None:
    approve_host(portal, healthy, admin, approver)
    assert status(portal, healthy) == "InsecureHostConfiguration"  # no baseline at all
    assert (service.changes(), service.failing_otherwise()) == ([], 1)


def test_waiting_revoked_and_passing_hosts_show_no_change(
    patched: Portal, updated: Machine, twin: Machine, foreign: Machine, admin: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "ek_certificate", None)  # the machine is there for other tests too
    patched.enrol(foreign)
    patched.attest(foreign)
    service.revoke_host(UUID(twin.attester), by=admin, reason="stolen", now=now())
    names = {name for names in shown() for name in names}
    assert updated.name in names
    assert not {twin.name, foreign.name, "nbg-a01"} & names


def test_changes_cost_no_more_for_more_hosts(
    patched: Portal, twin: Machine, updated: Machine, admin: User, healthy: Machine
) -> None:
    with CaptureQueriesContext(connection) as many:
        service.changes()
    service.revoke_host(UUID(twin.attester), by=admin, reason="stolen", now=now())
    with CaptureQueriesContext(connection) as fewer:
        service.changes()
    assert len(many) == len(fewer) <= 4


# --- accepted ----------------------------------------------------------------------------------------------------


def test_accepting_a_change_turns_all_its_hosts_green(
    patched: Portal, healthy: Machine, updated: Machine, twin: Machine, drifted: Machine, admin: User, approver: User
) -> None:
    change = of(updated, twin)
    outlook = service.outlook(change, now=now())
    assert ({host.name for host in outlook.green}, outlook.still, outlook.beyond) == (
        {updated.name, twin.name},
        (),
        0,
    )
    assert {added.pcr: len(added.events) for added in outlook.brings} == {4: 1, 9: 2}
    proposal = service.accept_change(change.signature, by=admin, reason=REASON, now=now())
    assert isinstance(proposal, Proposal)
    assert status(patched, updated) == "InsecureHostConfiguration"
    effect = service.effect_of(proposal)
    assert {host.name for host in effect.gains} == {updated.name, twin.name}
    service.decide(proposal.pk, by=approver, approve=True, reason="the package's digests", now=now())
    assert [status(patched, each) for each in (healthy, updated, twin)] == ["Passed"] * 3
    assert status(patched, drifted) == "InsecureHostConfiguration"
    assert [len(each.hosts) for each in service.changes()] == [1]
    rule = Baseline.objects.get(name="trixie", state="approved").rules()[9]
    assert isinstance(rule, ByEvents)
    assert sorted(map(len, rule.required)) == [1, 2, 2]


def test_a_change_is_accepted_for_a_time(
    patched: Portal, healthy: Machine, updated: Machine, twin: Machine, admin: User, approver: User
) -> None:
    ends = now() + timedelta(hours=3)
    drafted = service.accept_change(of(updated, twin).signature, by=admin, reason=REASON, now=now(), time=(None, ends))
    assert isinstance(drafted, Baseline)
    (draft,) = service.drafts_naming(drafted)
    run = service.start_dry_run(draft.pk, by=admin, now=now())
    run = service.go_on_dry_run(run.pk, now=now())
    tally = service.tally_dry_run(service.dry_run_rows(run))
    assert (tally.gains, tally.loses) == (2, 0)
    proposal = service.propose_draft(draft.pk, by=admin, reason=REASON, now=now())
    service.decide(proposal.pk, by=approver, approve=True, reason="tried", now=now())
    assert [status(patched, each) for each in (healthy, updated)] == ["Passed"] * 2
    certificate = service.certificates(UUID(updated.attester)).first()
    assert certificate is not None
    assert abs(certificate.not_after - ends) < timedelta(seconds=1)


def test_what_is_announced_for_later_does_not_count_before(
    patched: Portal, updated: Machine, twin: Machine, admin: User, approver: User
) -> None:
    begins, ends = now() + timedelta(hours=1), now() + timedelta(hours=2)
    drafted = service.accept_change(
        of(updated, twin).signature, by=admin, reason=REASON, now=now(), time=(begins, ends)
    )
    assert isinstance(drafted, Baseline)
    (draft,) = service.drafts_naming(drafted)
    service.go_on_dry_run(service.start_dry_run(draft.pk, by=admin, now=now()).pk, now=now())
    proposal = service.propose_draft(draft.pk, by=admin, reason=REASON, now=now())
    service.decide(proposal.pk, by=approver, approve=True, reason="tried", now=now())
    answer = patched.attest(updated).json()
    assert [finding["code"] for finding in answer["findings"]] == ["baseline_not_in_time"]
    assert "before its time" in answer["findings"][0]["what"]
    assert updated.name not in {name for names in shown() for name in names}


def test_a_change_by_value_is_accepted_too(
    fabric: Portal, healthy: Machine, drifted: Machine, admin: User, approver: User
) -> None:
    approve_host(fabric, drifted, admin, approver)
    assert status(fabric, drifted) == "InsecureHostConfiguration"
    proposal = service.accept_change(of(drifted).signature, by=admin, reason=REASON, now=now())
    assert isinstance(proposal, Proposal)
    service.decide(proposal.pk, by=approver, approve=True, reason="looked at it", now=now())
    assert (status(fabric, drifted), status(fabric, healthy)) == ("Passed", "Passed")


def test_a_change_that_nobody_shows_any_more_is_not_accepted(
    patched: Portal, updated: Machine, twin: Machine, admin: User, approver: User
) -> None:
    """Its hosts attested again, by a baseline that was amended meanwhile."""
    change = of(updated, twin)
    first = service.accept_change(change.signature, by=admin, reason=REASON, now=now())
    assert isinstance(first, Proposal)
    service.decide(first.pk, by=approver, approve=True, reason="looked at it", now=now())
    assert (status(patched, updated), status(patched, twin)) == ("Passed", "Passed")
    before = Baseline.objects.count()
    with pytest.raises(ChangeGone):
        service.accept_change(change.signature, by=admin, reason=REASON, now=now())
    with pytest.raises(ChangeGone):
        service.change(change.signature)
    assert Baseline.objects.count() == before


def test_a_change_of_a_baseline_that_was_replaced_waits_for_the_next_attestation(
    patched: Portal, healthy: Machine, updated: Machine, twin: Machine, admin: User, approver: User
) -> None:
    change = of(updated, twin)
    assert change.acceptable
    by_events(healthy, admin, approver)
    again = of(updated, twin)
    assert (again.signature, again.acceptable) == (change.signature, False)
    with pytest.raises(CannotApprove, match="not in force any more"):
        service.accept_change(change.signature, by=admin, reason=REASON, now=now())
    assert (status(patched, updated), status(patched, twin)) == ("InsecureHostConfiguration",) * 2
    assert of(updated, twin).acceptable


def test_a_host_that_boots_something_else_meanwhile_is_not_accepted_with_the_others(
    patched: Portal, updated: Machine, twin: Machine, other: Machine, admin: User, approver: User
) -> None:
    change = of(updated, twin)
    approve_host(patched, other, admin, approver)
    assert status(patched, other) == "InsecureHostConfiguration"
    proposal = service.accept_change(change.signature, by=admin, reason=REASON, now=now())
    assert isinstance(proposal, Proposal)
    service.decide(proposal.pk, by=approver, approve=True, reason="looked at it", now=now())
    assert status(patched, other) == "InsecureHostConfiguration"


@pytest.mark.parametrize("signature", ["", "0" * 64, "x", "%00"])
def test_an_unknown_change_is_gone(signature: str, patched: Portal, admin: User) -> None:
    with pytest.raises(ChangeGone):
        service.accept_change(signature, by=admin, reason=REASON, now=now())


@pytest.mark.parametrize("permissions", [(), ("decide",), ("revoke",)], ids=str)
def test_who_does_not_propose_accepts_nothing(
    permissions: tuple[str, ...], patched: Portal, updated: Machine, twin: Machine
) -> None:
    by = person("mallory", *permissions)
    for time in (None, (None, now() + timedelta(hours=1))):
        with pytest.raises(NotAllowed):
            service.accept_change(of(updated, twin).signature, by=by, reason=REASON, now=now(), time=time)
    assert not PolicyDraft.objects.exists()
    assert not Proposal.objects.filter(state="open").exists()


@pytest.mark.parametrize(("begins", "ends"), [(None, -1), (None, 0), (2, 1), (1, 1)])
def test_a_time_that_is_over_before_it_begins_is_refused(
    begins: int | None, ends: int, patched: Portal, updated: Machine, twin: Machine, admin: User
) -> None:
    moment = now()
    time = (None if begins is None else moment + timedelta(hours=begins), moment + timedelta(hours=ends))
    with pytest.raises(CannotApprove, match="over before it begins"):
        service.accept_change(of(updated, twin).signature, by=admin, reason=REASON, now=moment, time=time)
    assert not PolicyDraft.objects.exists()
    assert not Baseline.objects.filter(state="drafted").exists()


def test_a_second_announcement_gets_a_name_of_its_own(
    patched: Portal, updated: Machine, twin: Machine, drifted: Machine, admin: User
) -> None:
    ends = now() + timedelta(hours=3)
    for change in (of(updated, twin), of(drifted)):
        service.accept_change(change.signature, by=admin, reason=REASON, now=now(), time=(None, ends))
    names = Baseline.objects.filter(state="drafted").order_by("name").values_list("name", flat=True)
    assert list(names) == ["trixie (2)", "trixie (3)"]


def test_no_amendment_helps_where_a_pcr_is_without_events(
    patched: Portal, updated: Machine, twin: Machine, admin: User, approver: User
) -> None:
    """What was measured is accepted, in another order: that takes a baseline of its own, and says so."""
    change = of(updated, twin)
    rules = change.baseline.pcrs
    first, *others = rules["9"]["required"]
    Baseline.objects.filter(pk=change.baseline.pk).update(
        pcrs=rules | {"9": rules["9"] | {"required": [*others, first]}}
    )
    outlook = service.outlook(of(updated, twin), now=now())
    assert "capture a baseline from it" in outlook.hindrance
    assert (outlook.green, outlook.brings) == ((), ())


def test_a_captured_baseline_ends_a_change(
    patched: Portal, updated: Machine, twin: Machine, admin: User, approver: User
) -> None:
    approve_baseline(patched, updated, admin, approver, name="new kernel")
    assert (status(patched, updated), status(patched, twin)) == ("Passed", "Passed")
    assert len(service.changes()) == 1
