"""Baselines as people make them: captured, uploaded, amended, retired, and everything that is refused on the way."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User

from attestation import service
from attestation.core.amendment import Amendment, needed
from attestation.core.document import BaselineEntry, to_json
from attestation.core.eventlog import EVENT_LOG_LIMIT
from attestation.core.quote import BOOT_PCRS
from attestation.core.reference import ByEvents, ByValue
from attestation.errors import CannotApprove, FourEyes, NotAllowed, NotFound, ParseError, Refusal, ReplayMismatch
from attestation.models import Attestation, Attester, Baseline, HostGroup, PolicyDraft, Proposal
from attestation.policy import base_document, policy_in_force, reference_values
from attestation.stored import boot_of
from ledger import service as ledger
from tests.attestation.conftest import Portal, approve_host, person
from tests.boot_logs import boot
from tests.machines import Machine

pytestmark = pytest.mark.django_db
REASON = "The kernel that our repository has since this morning."
EVENTFUL = (4, 8, 9)
PCRS = "\n".join(f"{pcr} {value.hex()}" for pcr, value in boot("secureboot-on").pcrs.items()).encode()
LOG = boot("secureboot-on").log


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def nobody(db: None) -> User:
    return person("nemo")


@pytest.fixture
def decider(db: None) -> User:
    """Somebody who decides and puts nothing forward."""
    return person("dora", "decide")


@pytest.fixture
def both(fabric: Portal, healthy: Machine, updated: Machine, admin: User, approver: User) -> Portal:
    """The fabric, with the host that has the new kernel approved and attested."""
    approve_host(fabric, updated, admin, approver)
    assert status(fabric, updated) == "InsecureHostConfiguration"
    return fabric


def status(portal: Portal, machine: Machine) -> str:
    return str(portal.attest(machine).json()["status"])


def newest(machine: Machine) -> Attestation:
    found = Attestation.objects.filter(attester_id=machine.attester, code="").first()
    assert found is not None
    return found


def in_force(name: str = "trixie") -> Baseline:
    return Baseline.objects.get(name=name, state="approved")


def by_events(healthy: Machine, admin: User, approver: User) -> Baseline:
    """Capture the healthy host's boot by events, in place of the baseline by value."""
    proposal = service.capture_baseline(
        newest(healthy).pk, name="trixie", by=admin, reason=REASON, now=now(), by_events=EVENTFUL
    )
    service.decide(proposal.pk, by=approver, approve=True, reason="compared", now=now())
    return in_force()


def change_of(machine: Machine, baseline: Baseline) -> dict[int, Amendment]:
    """What a baseline has to accept more, for a machine's newest boot to be as it asks."""
    latest = newest(machine)
    return needed(reference_values(baseline), latest.pcr_bytes(), boot_of(latest).events)


def amend(machine: Machine, baseline: Baseline, by: User) -> Proposal:
    return service.amend_baseline(
        baseline.pk, change_of(machine, baseline), by=by, reason=REASON, now=now(), source=newest(machine).pk
    )


# --- captured ----------------------------------------------------------------------------------------------------


def test_a_baseline_of_several_hosts_accepts_each(
    both: Portal, healthy: Machine, updated: Machine, admin: User, approver: User
) -> None:
    first, second = newest(healthy), newest(updated)
    proposal = service.capture_baseline(
        first.pk, name="trixie", by=admin, reason=REASON, now=now(), others=[second.pk, first.pk]
    )
    service.decide(proposal.pk, by=approver, approve=True, reason="compared", now=now())
    baseline = in_force()
    assert baseline.sources == [first.pk, second.pk]
    rules = baseline.rules()
    assert [len(rule.values) for pcr, rule in rules.items() if isinstance(rule, ByValue) and pcr in (4, 7, 9)] == [
        2,
        1,
        2,
    ]
    assert (status(both, healthy), status(both, updated)) == ("Passed", "Passed")
    leaf = ledger.leaves(act_prefix="baseline.captured").first()
    assert leaf is not None
    assert leaf.detail["host"] == f"{healthy.name}, {updated.name}"


def test_by_events_a_new_kernel_is_refused_before_the_amendment_and_accepted_after(
    both: Portal, healthy: Machine, updated: Machine, admin: User, approver: User
) -> None:
    baseline = by_events(healthy, admin, approver)
    assert {pcr for pcr, rule in baseline.rules().items() if isinstance(rule, ByEvents)} == set(EVENTFUL)
    assert (status(both, healthy), status(both, updated)) == ("Passed", "InsecureHostConfiguration")
    shown = newest(updated).pk
    proposal = amend(updated, baseline, admin)
    assert status(both, updated) == "InsecureHostConfiguration"
    service.decide(proposal.pk, by=approver, approve=True, reason="the digests of the package", now=now())
    amended = in_force()
    assert (amended.amends_id, amended.source, amended.sources[-1]) == (baseline.pk, "amended", shown)
    assert (status(both, healthy), status(both, updated)) == ("Passed", "Passed")
    assert Baseline.objects.get(pk=baseline.pk).state == "retired"


def test_the_change_of_a_kernel_is_said_event_by_event(both: Portal, healthy: Machine, updated: Machine) -> None:
    by_value = change_of(updated, in_force())
    assert by_value == {pcr: Amendment(accept=(newest(updated).pcr_bytes()[pcr],)) for pcr in (4, 9)}


def test_by_events_the_change_names_what_takes_whose_place(
    both: Portal, healthy: Machine, updated: Machine, admin: User, approver: User
) -> None:
    changes = change_of(updated, by_events(healthy, admin, approver))
    assert {pcr: len(change.instead) for pcr, change in changes.items()} == {4: 1, 9: 2}
    assert not any(change.accept or change.absent for change in changes.values())


@pytest.mark.parametrize("others", [[0], [10**6]])
def test_a_baseline_is_not_captured_from_what_is_not_there(
    fabric: Portal, healthy: Machine, admin: User, others: list[int]
) -> None:
    with pytest.raises(NotFound):
        service.capture_baseline(newest(healthy).pk, name="x", by=admin, reason=REASON, now=now(), others=others)
    with pytest.raises(ParseError, match="at most 20 hosts"):
        service.capture_baseline(1, name="x", by=admin, reason=REASON, now=now(), others=range(2, 30))
    assert not Proposal.objects.filter(state="open").exists()


def test_refused_evidence_is_no_model(fabric: Portal, healthy: Machine, drifted: Machine, admin: User) -> None:
    assert fabric.attest(healthy, log=drifted.log).status_code == 422
    refused = Attestation.objects.filter(status="TpmError").first()
    assert refused is not None
    with pytest.raises(NotFound):
        service.capture_baseline(refused.pk, name="x", by=admin, reason=REASON, now=now())


def test_a_revoked_hosts_measurements_are_no_model(
    both: Portal, healthy: Machine, updated: Machine, admin: User, approver: User
) -> None:
    """Neither when captured, nor as the second of two hosts when decided."""
    first, second = newest(healthy).pk, newest(updated).pk
    waiting = service.capture_baseline(first, name="two", by=admin, reason=REASON, now=now(), others=[second])
    change = amend(updated, in_force(), admin)
    service.revoke_host(UUID(updated.attester), by=admin, reason="stolen", now=now())
    with pytest.raises(CannotApprove, match=f"{updated.name}, whose measurements these are, is revoked"):
        service.capture_baseline(first, name="three", by=admin, reason=REASON, now=now(), others=[second])
    for proposal in (waiting, change):
        with pytest.raises(CannotApprove, match="is revoked by now"):
            service.decide(proposal.pk, by=approver, approve=True, reason="compared", now=now())
    assert set(Baseline.objects.values_list("name", "state")) == {
        ("trixie", "approved"),
        ("trixie", "proposed"),
        ("two", "proposed"),
    }


def test_a_baseline_can_be_amended_when_its_first_host_is_gone(
    both: Portal, healthy: Machine, updated: Machine, admin: User, approver: User
) -> None:
    service.revoke_host(UUID(healthy.attester), by=admin, reason="scrapped", now=now())
    proposal = amend(updated, in_force(), admin)
    service.decide(proposal.pk, by=approver, approve=True, reason="compared", now=now())
    assert status(both, updated) == "Passed"


def test_keys_are_not_pinned_by_events(fabric: Portal, healthy: Machine, admin: User) -> None:
    with pytest.raises(ParseError, match="can be pinned by events"):
        service.capture_baseline(newest(healthy).pk, name="x", by=admin, reason=REASON, now=now(), by_events=[7])


def test_another_groups_baseline_accepts_nobody_here(
    both: Portal, healthy: Machine, updated: Machine, admin: User, approver: User
) -> None:
    service.add_group("canary", "Canaries", description="", canary_of="default", by=admin, now=now())
    latest = newest(updated).pk
    proposal = service.capture_baseline(latest, name="new", by=admin, reason=REASON, now=now(), group="canary")
    service.decide(proposal.pk, by=approver, approve=True, reason="compared", now=now())
    assert status(both, updated) == "InsecureHostConfiguration"
    move = service.propose_host(UUID(updated.attester), by=admin, reason=REASON, now=now(), group="canary")
    service.decide(move.pk, by=approver, approve=True, reason="a canary", now=now())
    assert (status(both, updated), status(both, healthy)) == ("Passed", "Passed")
    with pytest.raises(NotFound):
        service.capture_baseline(latest, name="x", by=admin, reason=REASON, now=now(), group="nowhere")


# --- uploaded ----------------------------------------------------------------------------------------------------


def upload(
    by: User, *, log: bytes = LOG, pcrs: bytes = PCRS, group: str = "default", platform: str = "linux"
) -> Baseline:
    return service.upload_baseline(
        log, pcrs, name="uploaded", group=group, platform=platform, by=by, now=now(), by_events=EVENTFUL
    )


def test_an_uploaded_baseline_counts_once_somebody_else_approved_it(
    portal: Portal, healthy: Machine, admin: User, approver: User
) -> None:
    approve_host(portal, healthy, admin, approver)
    baseline = upload(admin)
    assert (baseline.state, baseline.captured_from_id, Proposal.objects.filter(state="open").count()) == (
        "drafted",
        None,
        0,
    )
    assert status(portal, healthy) == "InsecureHostConfiguration"
    proposal = service.propose_baseline(baseline.pk, by=admin, reason=REASON, now=now())
    with pytest.raises(FourEyes):
        service.decide(proposal.pk, by=admin, approve=True, reason="mine", now=now())
    service.decide(proposal.pk, by=approver, approve=True, reason="compared", now=now())
    assert status(portal, healthy) == "Passed"
    acts = [leaf.act for leaf in ledger.leaves(subject=baseline.subject)]
    assert sorted(acts) == ["baseline.approved", "baseline.proposed", "baseline.uploaded"]


def test_a_dropped_upload_is_not_put_forward_any_more(portal: Portal, admin: User) -> None:
    baseline = upload(admin)
    service.drop_baseline(baseline.pk, by=admin, now=now())
    with pytest.raises(NotFound):
        service.propose_baseline(baseline.pk, by=admin, reason=REASON, now=now())
    with pytest.raises(NotFound):
        service.drop_baseline(baseline.pk, by=admin, now=now())
    assert Baseline.objects.get(pk=baseline.pk).state == "rejected"


def test_a_baseline_is_put_forward_once(portal: Portal, admin: User) -> None:
    baseline = upload(admin)
    service.propose_baseline(baseline.pk, by=admin, reason=REASON, now=now())
    with pytest.raises(NotFound):
        service.propose_baseline(baseline.pk, by=admin, reason=REASON, now=now())
    with pytest.raises(NotFound):
        service.drop_baseline(baseline.pk, by=admin, now=now())


OTHER = "\n".join(f"{pcr} {value.hex()}" for pcr, value in boot("cmdline-drift").pcrs.items()).encode()
FEWER = b"\n".join(line for line in PCRS.splitlines() if not line.startswith(b"7 "))


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        pytest.param({"pcrs": OTHER}, ReplayMismatch, "PCR 8", id="values of another boot"),
        pytest.param({"pcrs": FEWER}, ParseError, "lack the sha256 PCRs 7", id="a PCR too few"),
        pytest.param({"pcrs": b""}, ParseError, "no PCR value", id="no values"),
        pytest.param({"pcrs": b"\xff\0"}, ParseError, "PCR values", id="values that are none"),
        pytest.param({"log": b""}, Refusal, "event log", id="no log"),
        pytest.param({"log": LOG[:-7]}, Refusal, "event log", id="a log cut short"),
        pytest.param({"log": bytes(EVENT_LOG_LIMIT + 1)}, ParseError, "is the limit", id="too large"),
        pytest.param({"group": "nowhere"}, NotFound, "no such group", id="no such group"),
        pytest.param({"platform": "beos"}, ParseError, "none of linux, windows", id="no such platform"),
    ],
)
def test_an_upload_that_proves_nothing_is_refused(
    portal: Portal, admin: User, how: dict[str, bytes | str], error: type[Refusal], said: str
) -> None:
    with pytest.raises(error, match=said):
        upload(admin, **how)  # type: ignore[arg-type]
    assert not Baseline.objects.exists()
    assert not ledger.leaves(act_prefix="baseline.").exists()


# --- amended -----------------------------------------------------------------------------------------------------

KNOWN = next(event.digest for event in boot("secureboot-on").events if event.pcr == 9)


@pytest.mark.parametrize(
    ("amendments", "said"),
    [
        pytest.param({}, "accepts all of this already", id="nothing"),
        pytest.param({12: Amendment(accept=(bytes(32),))}, "does not pin PCR 12", id="a PCR that is not pinned"),
        pytest.param({9: Amendment(accept=(bytes(20),))}, "64 hexadecimal digits", id="a digest of another bank"),
        pytest.param({9: Amendment(accept=(KNOWN,))}, "accepts all of this already", id="accepted already"),
        pytest.param({7: Amendment(absent=(bytes(32),))}, "pinned by value", id="an absence by value"),
        pytest.param({7: Amendment(instead=((KNOWN, bytes(32)),))}, "pinned by value", id="a place by value"),
        pytest.param({9: Amendment(absent=(bytes(32),))}, "no event that the baseline accepts", id="absent stranger"),
        pytest.param({9: Amendment(instead=((bytes(32), KNOWN),))}, "nothing can take its place", id="no such place"),
    ],
)
def test_an_amendment_that_says_nothing_is_refused(
    fabric: Portal, healthy: Machine, admin: User, approver: User, amendments: dict[int, Amendment], said: str
) -> None:
    baseline = by_events(healthy, admin, approver)
    with pytest.raises(ParseError, match=said):
        service.amend_baseline(baseline.pk, amendments, by=admin, reason=REASON, now=now())
    assert not Proposal.objects.filter(state="open").exists()


def test_only_a_baseline_in_force_is_amended(fabric: Portal, healthy: Machine, admin: User, approver: User) -> None:
    old = in_force()
    by_events(healthy, admin, approver)
    for unknown in (old.pk, uuid4()):
        with pytest.raises(NotFound, match="no such baseline in force"):
            service.amend_baseline(unknown, {7: Amendment((bytes(32),))}, by=admin, reason=REASON, now=now())


def test_of_two_amendments_the_second_does_not_take_the_first_one_back(
    fabric: Portal, healthy: Machine, admin: User, approver: User
) -> None:
    old = in_force()
    first, second = (
        service.amend_baseline(old.pk, {pcr: Amendment((bytes(32),))}, by=admin, reason=REASON, now=now())
        for pcr in (7, 9)
    )
    service.decide(first.pk, by=approver, approve=True, reason="compared", now=now())
    with pytest.raises(CannotApprove, match="replaced or retired meanwhile"):
        service.decide(second.pk, by=approver, approve=True, reason="compared", now=now())
    assert in_force().pk == first.baseline_id
    service.decide(second.pk, by=approver, approve=False, reason="too late", now=now())


def test_an_amended_baseline_keeps_the_time_of_the_one_before(
    fabric: Portal, healthy: Machine, admin: User, approver: User
) -> None:
    old, ends = in_force(), datetime.now(UTC) + timedelta(days=9)
    policy(admin, approver, BaselineEntry(str(old.pk), None, ends))
    proposal = service.amend_baseline(old.pk, {7: Amendment((bytes(32),))}, by=admin, reason=REASON, now=now())
    service.decide(proposal.pk, by=approver, approve=True, reason="compared", now=now())
    assert base_document("default")[1].baselines == (BaselineEntry(str(proposal.baseline_id), None, ends),)


def policy(admin: User, approver: User, *entries: BaselineEntry) -> None:
    """Let two persons give the default group's policy these baselines."""
    draft = draft_with(admin, *entries)
    run = service.start_dry_run(draft.pk, by=admin, now=now())
    assert service.go_on_dry_run(run.pk, now=now()).finished_at is not None
    proposal = service.propose_draft(draft.pk, by=admin, reason=REASON, now=now())
    service.decide(proposal.pk, by=approver, approve=True, reason="tried", now=now())


def draft_with(admin: User, *entries: BaselineEntry) -> PolicyDraft:
    draft = service.start_draft("default", title="Kernel 6.12.60", by=admin, now=now())
    document = to_json(draft.content()) | {"baselines": [entry_json(each) for each in entries]}
    return service.change_draft(draft.pk, document, revision=draft.revision, by=admin, now=now())


def entry_json(entry: BaselineEntry) -> dict[str, str | None]:
    begins, ends = (moment.isoformat() if moment else None for moment in (entry.accepted_from, entry.accepted_until))
    return {"id": entry.id, "from": begins, "until": ends}


def test_a_drafted_baseline_is_decided_with_the_policy_that_names_it(
    portal: Portal, healthy: Machine, admin: User, approver: User
) -> None:
    approve_host(portal, healthy, admin, approver)
    baseline, ends = upload(admin), datetime.now(UTC) + timedelta(hours=1)
    policy(admin, approver, BaselineEntry(str(baseline.pk), None, ends))
    assert Baseline.objects.get(pk=baseline.pk).state == "approved"
    answer = portal.attest(healthy).json()
    assert answer["status"] == "Passed"
    certificate = service.certificates(UUID(healthy.attester)).first()
    assert certificate is not None
    assert abs(certificate.not_after - ends) < timedelta(seconds=1)


def test_what_was_put_forward_by_itself_is_in_no_policy_before_it_is_approved(
    portal: Portal, admin: User, approver: User
) -> None:
    baseline = upload(admin)
    draft = draft_with(admin, BaselineEntry(str(baseline.pk)))
    run = service.start_dry_run(draft.pk, by=admin, now=now())
    service.go_on_dry_run(run.pk, now=now())
    waiting = service.propose_draft(draft.pk, by=admin, reason=REASON, now=now())
    alone = service.propose_baseline(baseline.pk, by=admin, reason=REASON, now=now())
    with pytest.raises(CannotApprove, match="that nobody approved"):
        service.decide(waiting.pk, by=approver, approve=True, reason="tried", now=now())
    service.decide(alone.pk, by=approver, approve=False, reason="no", now=now())
    with pytest.raises(CannotApprove, match="that nobody approved"):
        service.decide(waiting.pk, by=approver, approve=True, reason="tried", now=now())
    assert policy_in_force("default", now=datetime.now(UTC)).baselines == ()


# --- retired, and by whom ----------------------------------------------------------------------------------------


def test_a_retired_baseline_accepts_nobody(fabric: Portal, healthy: Machine, admin: User) -> None:
    service.retire_baseline(in_force().pk, by=admin, reason=REASON, now=now())
    assert status(fabric, healthy) == "InsecureHostConfiguration"
    with pytest.raises(NotFound):
        service.retire_baseline(Baseline.objects.get().pk, by=admin, reason=REASON, now=now())


@pytest.mark.parametrize("role", ["nobody", "decider"])
def test_the_wrong_role_makes_no_baseline(
    role: str, fabric: Portal, healthy: Machine, admin: User, request: pytest.FixtureRequest
) -> None:
    by, drafted, old = request.getfixturevalue(role), upload(admin), in_force()
    before = set(Baseline.objects.values_list("pk", "state"))
    number = newest(healthy).pk
    with pytest.raises(NotAllowed):
        service.capture_baseline(number, name="x", by=by, reason=REASON, now=now())
    with pytest.raises(NotAllowed):
        upload(by)
    with pytest.raises(NotAllowed):
        service.amend_baseline(old.pk, {7: Amendment((bytes(32),))}, by=by, reason=REASON, now=now())
    with pytest.raises(NotAllowed):
        service.propose_baseline(drafted.pk, by=by, reason=REASON, now=now())
    with pytest.raises(NotAllowed):
        service.drop_baseline(drafted.pk, by=by, now=now())
    with pytest.raises(NotAllowed):
        service.retire_baseline(old.pk, by=by, reason=REASON, now=now())
    assert set(Baseline.objects.values_list("pk", "state")) == before


def test_the_boot_pcrs_are_pinned_and_no_other(fabric: Portal, healthy: Machine) -> None:
    assert set(in_force().rules()) == set(BOOT_PCRS)
    assert HostGroup.objects.get(pk="default").baselines.count() == 1
    assert Attester.objects.get(pk=healthy.attester).group_id == "default"
