"""A group's policy is changed as a draft, tried on the fleet, decided by another person, and can be taken back."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from attestation import service
from attestation.models import DryRun, HostGroup, PolicyDraft, PolicyVersion
from ledger import service as ledger
from tests.attestation.conftest import Portal
from tests.fabric.conftest import PASSWORD, REASON
from tests.machines import Machine

Browse = Callable[[User | None], Client]


def text(answer: Any) -> str:
    return str(answer.content.decode())


def begin(client: Client, **data: str) -> PolicyDraft:
    answer = client.post("/policies/default/change/", data)
    assert answer.status_code == 302
    return PolicyDraft.objects.get(pk=answer["Location"].strip("/").rpartition("/")[2])


def fields(draft: PolicyDraft, **changes: Any) -> dict[str, Any]:
    """What the form of this draft sends when nothing is touched, with changes."""
    content = draft.content()
    return {
        "title": draft.title,
        "revision": draft.revision,
        "baselines": [each.id for each in content.baselines],
        "required": sorted(content.required),
        "runtime": content.runtime,
        "kept": [str(number) for number in range(len(content.exceptions))],
    } | changes


def keep(client: Client, draft: PolicyDraft, **changes: Any) -> Any:
    answer = client.post(f"/drafts/{draft.pk}/", fields(draft, **changes))
    draft.refresh_from_db()
    return answer


def try_out(client: Client, draft: PolicyDraft) -> DryRun:
    address = client.post(f"/drafts/{draft.pk}/try/")["Location"]
    run = DryRun.objects.get(pk=address.strip("/").rpartition("/")[2])
    while run.finished_at is None:
        assert client.post(address).status_code == 302
        run.refresh_from_db()
    return run


def put_forward(client: Client, draft: PolicyDraft) -> str:
    answer = client.post(f"/drafts/{draft.pk}/propose/", {"reason": REASON})
    assert answer.status_code == 302, text(answer)
    return str(answer["Location"])


def approve(client: Client, proposal: str, **changes: str) -> Any:
    return client.post(proposal, {"decision": "approve", "reason": REASON, "password": PASSWORD} | changes)


def change(admin: Client, approver: Client, **changes: Any) -> PolicyVersion:
    """Go the whole way with one change."""
    draft = begin(admin)
    assert keep(admin, draft, **changes).status_code == 302
    try_out(admin, draft)
    assert approve(approver, put_forward(admin, draft)).status_code == 302
    return PolicyVersion.objects.order_by("-version")[0]


@pytest.fixture
def ada(fleet: Portal, admin: User, browse: Browse) -> Client:
    return browse(admin)


@pytest.fixture
def ben(fleet: Portal, approver: User, browse: Browse) -> Client:
    return browse(approver)


def test_a_stricter_policy_is_tried_decided_and_in_force(
    fleet: Portal, healthy: Machine, ada: Client, ben: Client
) -> None:
    draft = begin(ada)
    keep(ada, draft, title="Lock the kernels down", required=["boot_log", "counters", "kernel_lockdown", "secure_boot"])
    page = text(ada.get(f"/drafts/{draft.pk}/"))
    assert "Required: The kernel is locked down." in page
    run = try_out(ada, draft)
    tried = text(ada.get(f"/dry-runs/{run.pk}/"))
    assert "All 2 hosts" in tried
    assert "Not proved: the kernel is locked down." in tried
    assert fleet.attest(healthy).json()["status"] == "Passed"
    proposal = put_forward(ada, draft)
    assert "1 host that passes now would not" in text(ben.get(proposal))
    assert approve(ben, proposal).status_code == 302
    verdict = fleet.attest(healthy).json()
    assert [finding["code"] for finding in verdict["findings"]] == ["kernel_lockdown_unproven"]
    assert "policy.approved" in {leaf.act for leaf in ledger.leaves()}


def test_a_version_can_be_restored(fleet: Portal, healthy: Machine, ada: Client, ben: Client) -> None:
    before = PolicyVersion.objects.order_by("-version")[0]
    change(ada, ben, required=["boot_log", "iommu", "secure_boot"])
    assert fleet.attest(healthy).json()["status"] == "InsecureHostConfiguration"
    draft = begin(ada, restores=str(before.version))
    assert draft.document == before.document
    try_out(ada, draft)
    approve(ben, put_forward(ada, draft))
    assert fleet.attest(healthy).json()["status"] == "Passed"
    page = text(ada.get("/policies/default/"))
    assert f"goes back to v{before.version}" in page
    assert "Not required any more: Devices cannot reach all memory." in page


def test_a_change_counts_from_its_moment_on(fleet: Portal, healthy: Machine, ada: Client, ben: Client) -> None:
    tomorrow = timezone.localtime() + timedelta(days=1)
    moment = tomorrow.strftime("%Y-%m-%dT%H:%M")
    version = change(ada, ben, required=["iommu", "secure_boot"], effective_at=moment)
    assert version.effective_at > timezone.now()
    assert fleet.attest(healthy).json()["status"] == "Passed"
    assert f"Version {version.version} comes into force" in text(ada.get("/policies/default/"))
    assert service.policy_now("default", now=version.effective_at + timedelta(minutes=1)) == version


def test_an_exception_lets_a_host_pass_and_its_certificate_ends_with_it(
    fleet: Portal, healthy: Machine, ada: Client, ben: Client
) -> None:
    draft = begin(ada)
    keep(ada, draft, required=["kernel_lockdown", "secure_boot"])
    until = timezone.localtime() + timedelta(hours=2)
    sent = {
        "check": "kernel_lockdown",
        "hosts": [healthy.attester],
        "until": until.strftime("%Y-%m-%dT%H:%M"),
        "why": "The kernel with lockdown comes on Friday.",
        "revision": draft.revision,
    }
    assert ada.post(f"/drafts/{draft.pk}/exception/", sent).status_code == 302
    draft.refresh_from_db()
    (made,) = draft.content().exceptions
    assert (made.owner, made.hosts) == ("ada", frozenset({healthy.attester}))
    try_out(ada, draft)
    approve(ben, put_forward(ada, draft))
    assert fleet.attest(healthy).json()["status"] == "Passed"
    certificate = service.live_certificate(UUID(healthy.attester), now=timezone.now())
    assert certificate is not None
    assert certificate.not_after <= until
    assert "The kernel with lockdown comes on Friday." in text(ada.get("/policies/default/"))
    assert "Accepted for now" in text(ada.get(f"/attestations/{certificate.attestation_id}/"))
    assert "The kernel with lockdown comes on Friday." in text(ada.get("/fleet/"))
    for at, shown in ((until, 1), (until + timedelta(days=6), 1), (until + timedelta(days=8), 0)):
        assert len(service.endings(now=at)) == shown
    assert not service.endings(now=until - timedelta(days=15))


def test_a_fleet_without_anything_accepted_for_a_time_says_nothing_of_it(fleet: Portal, ada: Client) -> None:
    panel = text(ada.get("/fleet/")).partition('id="policy-endings"')[2].partition("</section>")[0]
    assert panel.partition(">")[0].rstrip().endswith("hidden")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"why": "short"}, "Write a reason of at least a sentence"),
        ({"until": ""}, "Say until when the exception holds"),
        ({"until": "2020-01-01T00:00"}, "The moment has passed"),
        ({"until": "tomorrow"}, "give a date and a time"),
        ({"check": "baseline"}, "Name the PCRs that may differ"),
        ({"check": "baseline", "pcrs": "99"}, "Name PCRs by their numbers"),
        ({"check": "no such check"}, "Select a valid choice"),
        ({"hosts": ["no such host"]}, "Select a valid choice"),
    ],
)
def test_an_exception_that_cannot_be_is_refused(ada: Client, changes: dict[str, Any], said: str) -> None:
    draft = begin(ada)
    good = {"check": "iommu", "until": "2099-01-01T00:00", "why": "A reason that is long enough.", "revision": 1}
    answer = ada.post(f"/drafts/{draft.pk}/exception/", good | changes)
    assert answer.status_code == 200
    assert said in text(answer)
    draft.refresh_from_db()
    assert draft.content().exceptions == ()


def test_what_was_not_tried_cannot_be_put_forward(ada: Client) -> None:
    draft = begin(ada)
    answer = ada.post(f"/drafts/{draft.pk}/propose/", {"reason": REASON})
    assert (answer.status_code, "Try the draft" in text(answer)) == (409, True)
    try_out(ada, draft)
    keep(ada, draft, required=["iommu"])
    answer = ada.post(f"/drafts/{draft.pk}/propose/", {"reason": REASON})
    assert answer.status_code == 409


def test_nobody_overwrites_the_words_of_another(ada: Client) -> None:
    draft = begin(ada)
    stale = fields(draft, required=["iommu"])
    keep(ada, draft, required=["secure_boot"])
    answer = ada.post(f"/drafts/{draft.pk}/", stale)
    assert (answer.status_code, "Somebody else changed this draft" in text(answer)) == (409, True)
    draft.refresh_from_db()
    assert draft.content().required == frozenset({"secure_boot"})


def test_a_draft_whose_ground_has_moved_cannot_be_approved(ada: Client, ben: Client) -> None:
    slow = begin(ada)
    try_out(ada, slow)
    proposal = put_forward(ada, slow)
    change(ada, ben, required=["secure_boot"])
    versions = PolicyVersion.objects.count()
    answer = approve(ben, proposal)
    assert (answer.status_code, "went on to" in text(answer)) == (409, True)
    assert PolicyVersion.objects.count() == versions


def test_nobody_decides_what_they_put_forward(fleet: Portal, both: User, browse: Browse) -> None:
    bob = browse(both)
    draft = begin(bob)
    try_out(bob, draft)
    assert approve(bob, put_forward(bob, draft)).status_code == 403


def test_a_rejected_draft_changes_nothing(ada: Client, ben: Client) -> None:
    draft = begin(ada)
    keep(ada, draft, required=[])
    try_out(ada, draft)
    versions = PolicyVersion.objects.count()
    approve(ben, put_forward(ada, draft), decision="reject")
    draft.refresh_from_db()
    assert (draft.state, PolicyVersion.objects.count()) == ("rejected", versions)


def test_a_dropped_draft_is_over(ada: Client) -> None:
    draft = begin(ada)
    ada.post(f"/drafts/{draft.pk}/drop/")
    assert ada.post(f"/drafts/{draft.pk}/drop/").status_code == 404
    assert keep(ada, draft, required=[]).status_code == 404


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"baselines": ["11111111-1111-4111-8111-111111111111"]}, id="a baseline that is not there"),
        pytest.param({"required": ["no such check"]}, id="a check that is not there"),
        pytest.param({"runtime": "11111111-1111-4111-8111-111111111111"}, id="a runtime policy that is not there"),
        pytest.param({"code_policies": ["x"]}, id="a code policy that is no id"),
        pytest.param({"dump_keys": "xyz"}, id="a dump key that is none"),
        pytest.param({"least_dbx_entries": "-1"}, id="a negative number"),
        pytest.param({"effective_at": "yesterday"}, id="a moment that is none"),
        pytest.param({"title": ""}, id="no title"),
        pytest.param({"revision": "x"}, id="no revision"),
        pytest.param({"kept": ["99"]}, id="an exception that is not there"),
        pytest.param({"firmware_versions": "a\0b"}, id="a NUL"),
    ],
)
def test_whatever_is_sent_a_draft_names_only_what_is_there(ada: Client, changes: Mapping[str, Any]) -> None:
    draft = begin(ada)
    known = {each.id for each in draft.content().baselines}
    answer = keep(ada, draft, **changes)
    assert answer.status_code in (200, 302, 400, 409)
    content = draft.content()
    assert {each.id for each in content.baselines} <= known
    assert content.required <= service.CHECKS.keys()
    assert (content.runtime, content.code_policies, content.exceptions) == ("", (), ())


@pytest.mark.parametrize("role", ["approver", "auditor"])
def test_who_may_only_read_changes_no_draft(
    role: str, ada: Client, browse: Browse, request: pytest.FixtureRequest
) -> None:
    draft = begin(ada)
    client = browse(request.getfixturevalue(role))
    assert "Keep this draft" not in text(client.get(f"/drafts/{draft.pk}/"))
    assert keep(client, draft, required=[]).status_code == 403
    assert draft.content().required


def test_a_host_moves_to_another_group_by_two_persons(
    fleet: Portal, healthy: Machine, ada: Client, ben: Client
) -> None:
    ada.post("/policies/add/", {"name": "Canary", "slug": "canary", "canary_of": "default"})
    answer = ada.post(f"/hosts/{healthy.attester}/propose/", {"group": "canary", "reason": REASON})
    proposal = answer["Location"]
    assert "Move host" in text(ben.get(proposal))
    assert approve(ben, proposal).status_code == 302
    assert [finding["code"] for finding in fleet.attest(healthy).json()["findings"]] == ["policy_empty"]
    assert healthy.name in text(ada.get("/hosts/?group=canary"))
    assert healthy.name not in text(ada.get("/hosts/?group=default"))


def test_a_group_is_added_once(ada: Client) -> None:
    sent = {"name": "Edge", "slug": "edge"}
    assert ada.post("/policies/add/", sent).status_code == 302
    assert ada.post("/policies/add/", sent).status_code == 409
    assert HostGroup.objects.filter(pk="edge").count() == 1
    assert "None: nothing is trusted" in text(ada.get("/policies/"))


def test_a_canary_gives_its_policy_on(ada: Client) -> None:
    ada.post("/policies/add/", {"name": "Canary", "slug": "canary", "canary_of": "default"})
    assert ada.post("/policies/canary/promote/").status_code == 404
    assert ada.post("/policies/default/promote/").status_code == 404


def test_the_page_of_an_attestation_answers_every_check(fleet: Portal, healthy: Machine, ada: Client) -> None:
    newest = service.attestations(attester_id=UUID(healthy.attester)).first()
    assert newest is not None
    page = text(ada.get(f"/attestations/{newest.pk}/"))
    for title in ("Secure Boot is on", "The kernel is locked down", "No counter went back"):
        assert title in page
    assert "Unproven" in page


def test_lists_ask_the_database_no_more_for_more_groups(
    ada: Client, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    for number in range(8):
        ada.post("/policies/add/", {"name": f"Group {number}", "slug": f"g{number}"})
        begin(ada)
    with django_assert_max_num_queries(22):
        ada.get("/policies/")
