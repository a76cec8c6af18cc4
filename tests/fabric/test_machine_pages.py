"""A VM's page and its owner's acts on it: seen by its tenant alone, and nothing holds before the owner has seen it."""

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from fabric.models import Membership, Tenant, VirtualMachine
from kps import service as kps
from kps.core import jose
from kps.core.chain import VerifiedChain, parse_chain, sign_statement, verify_chain, verify_links
from kps.core.guardian import Guardian
from kps.core.release_policy import Offline, ReleasePolicy
from kps.models import KeyProtectorRecord, ReleaseApproval
from ledger import service as ledger
from tests.fabric.conftest import PASSWORD, REASON, asks, known, person
from tests.kps.conftest import Host, guardian, host, lifted, protect
from tests.kps.parties import ID, OTHER_FABRIC, OTHER_ID, OWNER, OWNERS, STRANGER, changed
from tests.kps.parties import protector as made_by

__all__ = ["guardian", "host", "protect"]
pytestmark = pytest.mark.django_db

Browse = Callable[[User | None], Client]
Protect = Callable[..., dict[str, Any]]
ANSWER = {"decision": "approve", "reason": REASON, "password": PASSWORD}


@pytest.fixture
def document(protect: Protect) -> dict[str, Any]:
    return protect(policy=ReleasePolicy(approval="portal"))


@pytest.fixture
def record(document: dict[str, Any], machine: VirtualMachine, owner: User) -> KeyProtectorRecord:
    return known(document, by=owner)


def shown(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, answer.status_code
    return unescape(answer.content.decode())


def bring(client: Client, machine: VirtualMachine, content: bytes | VerifiedChain) -> Any:
    if isinstance(content, VerifiedChain):
        content = jose.canonical(content.document)
    return client.post(reverse("bring-statement", args=[machine.pk]), {"file": SimpleUploadedFile("a.json", content)})


def confirm(client: Client, machine: VirtualMachine, chain: VerifiedChain, *, seen: int = 0) -> Any:
    content = b64encode(jose.canonical(chain.document)).decode()
    return client.post(reverse("bring-statement", args=[machine.pk]), {"content": content, "seen": seen})


def serial(machine: VirtualMachine) -> int:
    return kps.newest_chain(*machine.key).statement.serial


# --- the page ----------------------------------------------------------------------------------------------------


def test_the_page_says_in_words_who_may_run_it_and_when(
    record: KeyProtectorRecord, machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    page = shown(browse(owner), machine.get_absolute_url())
    assert "This fabric" in page
    assert "Each start is approved by the owner, in the portal" in page
    assert OWNERS in page
    assert "by tim" in page
    assert "statement 0" in page


def test_a_protector_that_this_fabric_has_not_seen_is_called_that(
    machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    page = shown(browse(owner), machine.get_absolute_url())
    assert "has not seen its key protector yet" in page
    assert "Bring a newer one" not in page
    assert browse(owner).get(reverse("machine-statement", args=[machine.pk])).status_code == 404


def test_the_newest_statement_is_given_as_it_was_signed(
    record: KeyProtectorRecord, machine: VirtualMachine, operator: User, browse: Browse
) -> None:
    answer = browse(operator).get(reverse("machine-statement", args=[machine.pk]))
    chain = verify_links(parse_chain(answer.content))
    assert chain.subject == machine.subject
    assert "payroll.statement-0.json" in answer["Content-Disposition"]


def test_the_page_says_what_a_host_may_do_while_the_fabric_is_away_and_what_it_did(
    host: Host, protect: Protect, machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    host.posts(host.asks(protect(policy=ReleasePolicy(offline=Offline(starts=2, hours=4)))))
    before = shown(browse(owner), machine.get_absolute_url())
    assert "may start it 2 times while this fabric is away" in before
    assert "Started while this fabric was away" not in before
    started = int(timezone.now().timestamp()) - 60
    host.tells(started, started + 5, counted=3)
    after = shown(browse(owner), machine.get_absolute_url())
    assert "Started while this fabric was away" in after
    assert "more often, or later, than the owner allows" in after
    assert "and 1 more that its TPM has counted" in after


def test_another_tenant_and_people_without_a_role_find_no_page_and_no_act(
    record: KeyProtectorRecord, machine: VirtualMachine, stranger_tenant: User, nobody: User, browse: Browse
) -> None:
    asked = asks(record)
    for user in (stranger_tenant, nobody):
        client = browse(user)
        for name in ("machine", "machine-statement", "bring-statement", "deny-machine", "allow-machine"):
            assert client.get(reverse(name, args=[machine.pk])).status_code == 404, name
        for name in ("tenant-machines", "key-queue", "tenant-log"):
            assert client.get(reverse(name, args=["brandt"])).status_code == 404, name
        assert client.get(reverse("evidence", args=["brandt", 1])).status_code == 404
        assert bring(client, machine, b"{}").status_code == 404
        assert client.post(reverse("deny-machine", args=[machine.pk]), DENY).status_code == 404
        assert client.post(reverse("answer-host", args=[machine.pk, asked.pk]), ANSWER).status_code == 404
    assert kps.pending(owner_fingerprint=OWNERS, now=timezone.now()).count() == 1


@pytest.mark.parametrize("role", ["operator", "admin", "approver", "auditor"])
def test_who_only_may_look_does_not_act(
    role: str,
    record: KeyProtectorRecord,
    document: dict[str, Any],
    machine: VirtualMachine,
    browse: Browse,
    request: pytest.FixtureRequest,
) -> None:
    client, asked = browse(request.getfixturevalue(role)), asks(record)
    page = shown(client, machine.get_absolute_url())
    assert "Bring a newer one" not in page
    assert "Approve or decline" not in page
    assert bring(client, machine, changed(document)).status_code == 403
    assert confirm(client, machine, changed(document)).status_code == 403
    for name in ("deny-machine", "allow-machine"):
        assert client.post(reverse(name, args=[machine.pk]), DENY).status_code == 403, name
    assert client.post(reverse("answer-host", args=[machine.pk, asked.pk]), ANSWER).status_code == 403
    assert serial(machine) == 0


def test_an_owner_of_two_tenants_finds_each_machine_once(
    machine: VirtualMachine, other_tenant: Tenant, owner: User, browse: Browse
) -> None:
    Membership.objects.create(tenant=other_tenant, user=owner, role=Membership.Role.OWNER)
    assert shown(browse(owner), reverse("tenant-machines", args=["brandt"])).count(str(ID)) == 1
    assert str(ID) not in shown(browse(owner), reverse("tenant-machines", args=["halske"]))


# --- a newer statement -------------------------------------------------------------------------------------------


def test_what_a_newer_statement_changes_is_shown_before_it_holds(
    record: KeyProtectorRecord, document: dict[str, Any], machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    client = browse(owner)
    chain = changed(document, level="encryption-supported", policy=ReleasePolicy(hours="08:00-18:00"))
    page = unescape(bring(client, machine, chain).content.decode())
    assert "<del>shielded</del>" in page
    assert "<ins>encryption-supported</ins>" in page
    assert "Starts only at 08:00-18:00 UTC." in page
    assert "Not asked for any more" in page  # the approval
    assert serial(machine) == 0
    assert confirm(client, machine, chain).status_code == 302
    assert serial(machine) == 1
    assert [leaf.actor for leaf in ledger.leaves(act_prefix="chain.taken")] == ["user:tim"]
    page = shown(client, machine.get_absolute_url())
    assert "Statement 1" in page
    assert "Encryption-supported" in page


def test_a_key_protector_with_the_newer_statement_will_do(
    record: KeyProtectorRecord, protect: Protect, machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    newer = protect(serial=3)
    for content in (newer, {"protector": newer, "secrets": "sealed"}):
        answer = bring(browse(owner), machine, json.dumps(content).encode())
        assert (answer.status_code, b"Let statement 3 hold" in answer.content) == (200, True)


def test_one_that_takes_the_vm_from_this_fabric_says_so_first(
    record: KeyProtectorRecord, document: dict[str, Any], machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    chain = changed(document, guardians=(OTHER_FABRIC.guardian,))
    assert "no host here gets the key" in bring(browse(owner), machine, chain).content.decode()
    assert confirm(browse(owner), machine, chain).status_code == 302
    assert "has not named this fabric" in shown(browse(owner), machine.get_absolute_url())


def test_a_statement_that_is_not_newer_is_refused_and_leaves_a_trace(
    record: KeyProtectorRecord, document: dict[str, Any], machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    client = browse(owner)
    confirm(client, machine, changed(document, serial=2))
    old = changed(document, serial=1)
    for act in (bring, confirm):
        answer = act(client, machine, old)
        assert (answer.status_code, b"chain_not_newer" in answer.content) == (409, True), act
    assert serial(machine) == 2
    assert [leaf.actor for leaf in ledger.leaves(act_prefix="chain.refused")] == ["user:tim"]


def test_what_others_have_signed_or_changed_is_refused(
    record: KeyProtectorRecord, document: dict[str, Any], machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    strangers, other = made_by(owner=STRANGER), changed(document, id=OTHER_ID)
    forged = changed(document).document["chain"][0]
    for content, code in (
        (jose.canonical(strangers), b"other_protector"),
        (jose.canonical(other.document), b"other_protector"),
        (json.dumps({"chain": [forged[:-4] + "AAAA"]}).encode(), b"protector_signature"),
        (b'{"chain": "x"}', b"malformed_protector"),
        (b"[]", b"malformed_document"),
        (b"\xff", b"malformed_document"),
    ):
        answer = bring(browse(owner), machine, content)
        assert (answer.status_code >= 400, code in answer.content) == (True, True), code
        assert b"Newer statement" in answer.content  # the form again, to choose another file
    assert serial(machine) == 0


def test_a_file_that_is_too_large_is_not_read(
    record: KeyProtectorRecord, machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    answer = bring(browse(owner), machine, b" " * (64 * 1024 + 1))
    assert (answer.status_code, "larger than 64 KiB" in answer.content.decode()) == (200, True)


def test_what_was_overtaken_between_the_look_and_the_act_is_shown_anew(
    record: KeyProtectorRecord, document: dict[str, Any], machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    kps.take_chain(changed(document, level="encryption-supported").document, now=timezone.now())
    answer = confirm(browse(owner), machine, changed(document, serial=2), seen=0)
    page = unescape(answer.content.decode())
    assert (answer.status_code, serial(machine)) == (409, 1)
    assert "statement_overtaken" in page
    assert "<ins>shielded</ins>" in page
    assert 'name="seen" value="1"' in page


@pytest.mark.parametrize("fields", [{"content": "%%%", "seen": "0"}, {"content": "e30="}, {"content": "", "seen": "0"}])
def test_a_page_that_came_back_broken_is_refused(
    fields: dict[str, str], record: KeyProtectorRecord, machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    assert browse(owner).post(reverse("bring-statement", args=[machine.pk]), fields).status_code == 400
    assert serial(machine) == 0


# --- approvals ---------------------------------------------------------------------------------------------------


def test_a_start_is_approved_in_the_portal_once_and_its_key_is_released(
    host: Host,
    document: dict[str, Any],
    record: KeyProtectorRecord,
    machine: VirtualMachine,
    owner: User,
    browse: Browse,
) -> None:
    client = browse(owner)
    assert host.posts(host.asks(document)).json()["code"] == "approval_required"
    overview = shown(client, "/tenants/brandt/")
    assert "Approve or decline" in overview
    assert "It waits for your yes" in overview
    asked = kps.pending(owner_fingerprint=OWNERS, now=timezone.now()).get()
    address = reverse("answer-host", args=[machine.pk, asked.pk])
    assert host.machine.name in shown(client, address)
    assert client.post(address, ANSWER).status_code == 302
    assert client.post(address, ANSWER).status_code == 409
    assert host.posts(host.asks(document)).status_code == 200
    page = shown(client, machine.get_absolute_url())
    assert "Until the host says that the VM has stopped" in page
    assert "Approve or decline" not in page
    evidence = reverse("evidence", args=["brandt", kps.releases()[0].attestation_id])
    assert evidence in page
    proved = shown(client, evidence)
    assert host.machine.name in proved
    assert "Secure Boot" in proved
    assert "/attestations/" not in proved


@pytest.mark.parametrize(
    "change", [{"decision": ""}, {"decision": "release"}, {"reason": "ok"}, {"password": "wrong"}, {"password": ""}]
)
def test_an_answer_needs_a_decision_a_reason_and_the_persons_password(
    change: dict[str, str], record: KeyProtectorRecord, machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    asked = asks(record)
    answer = browse(owner).post(reverse("answer-host", args=[machine.pk, asked.pk]), ANSWER | change)
    assert answer.status_code == 200
    asked.refresh_from_db()
    assert asked.state == ReleaseApproval.State.PENDING


def test_where_the_policy_wants_the_owners_key_a_click_only_declines(
    record: KeyProtectorRecord, machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    asked, client = asks(record, needs_key=True), browse(owner)
    assert "guardhouse tenant approve" in shown(client, machine.get_absolute_url())
    address = reverse("answer-host", args=[machine.pk, asked.pk])
    assert 'value="approve"' not in shown(client, address)
    assert client.post(address, ANSWER).status_code == 200
    asked.refresh_from_db()
    assert asked.state == ReleaseApproval.State.PENDING
    assert client.post(address, ANSWER | {"decision": "decline"}).status_code == 302
    asked.refresh_from_db()
    assert (asked.state, asked.by_key) == (ReleaseApproval.State.DECLINED, False)
    assert [leaf.actor for leaf in ledger.leaves(act_prefix="approval.")] == ["user:tim"]


def test_a_newer_statement_takes_open_questions_off_the_list_until_a_host_asks_again(
    record: KeyProtectorRecord, document: dict[str, Any], machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    asked, client = asks(record), browse(owner)
    kps.take_chain(changed(document, policy=ReleasePolicy(hours="08:00-18:00")).document, now=timezone.now())
    assert "Approve or decline" not in shown(client, machine.get_absolute_url())
    assert client.post(reverse("answer-host", args=[machine.pk, asked.pk]), ANSWER).status_code == 409
    assert kps.waiting_numbers([OWNERS], now=timezone.now()) == 0
    ReleaseApproval.objects.update(asked_last=timezone.now())
    assert kps.waiting_numbers([OWNERS], now=timezone.now()) == 1


def test_a_start_of_another_vm_is_not_answered_on_this_ones_page(
    record: KeyProtectorRecord, tenant: Tenant, owner: User, browse: Browse
) -> None:
    other = VirtualMachine.objects.create(
        tenant=tenant, name="web", protector_id=OTHER_ID, level="shielded", added_at=timezone.now()
    )
    asked = asks(record)
    for pk in (asked.pk, UUID(int=1)):
        assert browse(owner).post(reverse("answer-host", args=[other.pk, pk]), ANSWER).status_code == 409
    asked.refresh_from_db()
    assert asked.state == ReleaseApproval.State.PENDING


# --- denials by the owner's people -------------------------------------------------------------------------------

DENY = {"reason": REASON, "name": "payroll", "password": PASSWORD}


def test_an_owner_denies_a_key_after_seeing_whom_that_reaches_and_allows_it_again(
    host: Host, protect: Protect, machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    document, client = protect(policy=ReleasePolicy(offline=Offline(2, 12))), browse(owner)
    known(document, by=owner)
    rolled = host.starts(document)["key_protector"]
    page = shown(client, reverse("deny-machine", args=[machine.pk]))
    assert f"It goes on running where it runs, as far as this fabric knows on {host.machine.name}" in page
    assert "2 times within 12 hours" in page
    assert client.post(reverse("deny-machine", args=[machine.pk]), DENY).status_code == 302
    refused = host.posts(host.asks(rolled))
    assert (refused.status_code, refused.json()["code"]) == (403, "protector_denied_by_owner")
    assert kps.releases()[0].code == "protector_denied_by_owner"
    page = shown(client, machine.get_absolute_url())
    assert "Brandt denies this key to every host" in page
    assert "Deny its key" not in page
    assert "Your own people have denied this key" in shown(client, "/tenants/brandt/")
    assert client.post(reverse("allow-machine", args=[machine.pk]), DENY).status_code == 302
    assert host.posts(host.asks(rolled)).status_code == 200
    assert [leaf.act for leaf in ledger.leaves(act_prefix="protector.")] == [
        "protector.allowed_by_owner",
        "protector.denied_by_owner",
    ]
    assert {leaf.detail["owner"] for leaf in ledger.leaves(act_prefix="protector.")} == {OWNERS}


def test_owner_and_fabric_deny_beside_each_other_and_neither_takes_the_others_back(
    record: KeyProtectorRecord, machine: VirtualMachine, owner: User, admin: User, browse: Browse
) -> None:
    client = browse(owner)
    kps.deny_protector(*machine.key, by=admin, reason=REASON, now=timezone.now())
    assert client.post(reverse("allow-machine", args=[machine.pk]), DENY).status_code == 409
    assert client.post(reverse("deny-machine", args=[machine.pk]), DENY).status_code == 302
    assert client.post(reverse("deny-machine", args=[machine.pk]), DENY).status_code == 409
    assert "Nothing yet: the fabric’s people deny it too" in shown(client, reverse("allow-machine", args=[machine.pk]))
    lifted(*machine.key, by=admin)
    record.refresh_from_db()
    assert (record.denied_at, record.owner_denied_by) == (None, "tim")


@pytest.mark.parametrize("change", [{"name": "web"}, {"reason": "ok"}, {"password": "wrong"}, {"password": ""}])
def test_a_denial_needs_a_reason_the_vms_name_and_the_persons_password(
    change: dict[str, str], record: KeyProtectorRecord, machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    assert browse(owner).post(reverse("deny-machine", args=[machine.pk]), DENY | change).status_code == 200
    record.refresh_from_db()
    assert record.owner_denied_at is None


def test_a_key_protector_that_is_not_known_here_is_not_denied(
    machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    assert browse(owner).post(reverse("deny-machine", args=[machine.pk]), DENY).status_code == 409
    assert not ledger.leaves(act_prefix="protector.").exists()


# --- newer keys of this fabric -----------------------------------------------------------------------------------


def rotated(admin: User, approver: User) -> Guardian:
    """Take newer guardian keys into use, and return their card."""
    pair = kps.prepare(by=admin, reason=REASON, now=timezone.now())
    proposal = kps.propose(pair.number, "promote", by=admin, reason=REASON, now=timezone.now())
    kps.decide(proposal.pk, by=approver, approve=True, reason=REASON, now=timezone.now())
    return kps.our_guardian(now=timezone.now())


def test_protectors_that_name_earlier_keys_are_a_queue_until_the_owner_has_named_the_new_ones(
    record: KeyProtectorRecord,
    document: dict[str, Any],
    machine: VirtualMachine,
    owner: User,
    admin: User,
    approver: User,
    browse: Browse,
) -> None:
    client = browse(owner)
    assert "None." in shown(client, "/tenants/brandt/keys/")
    assert "This fabric has newer keys" not in shown(client, "/tenants/brandt/")
    newer = rotated(admin, approver)
    for address in ("/tenants/brandt/", "/tenants/brandt/keys/"):
        assert "You grant the new keys." in shown(client, address)
    assert "has newer keys" in shown(client, machine.get_absolute_url())
    chain = changed(document, guardians=(newer,))
    assert confirm(client, machine, chain).status_code == 302
    assert "you have granted them" in shown(client, "/tenants/brandt/keys/")
    assert "takes them at its next start" in shown(client, machine.get_absolute_url())


def test_where_the_owner_lets_the_fabric_do_it_nothing_is_to_be_signed(
    protect: Protect, machine: VirtualMachine, owner: User, admin: User, approver: User, browse: Browse
) -> None:
    known(protect(policy=ReleasePolicy(successors=True)), by=owner)
    rotated(admin, approver)
    page = shown(browse(owner), "/tenants/brandt/keys/")
    assert "you have allowed successors" in page


def test_the_queue_holds_no_other_owners_protectors(
    record: KeyProtectorRecord, protect: Protect, owner: User, admin: User, approver: User, browse: Browse
) -> None:
    spying = Tenant.objects.create(name="Spy", slug="spy", owner_fingerprint=STRANGER.guardian.fingerprint)
    spy = person("sue")
    Membership.objects.create(tenant=spying, user=spy, role=Membership.Role.OWNER)
    rotated(admin, approver)
    assert "None." in shown(browse(spy), "/tenants/spy/keys/")


# --- the overview and the list -----------------------------------------------------------------------------------


def test_refusals_are_a_line_for_each_vm_and_reason_with_what_to_do(
    record: KeyProtectorRecord, owner: User, stranger_tenant: User, browse: Browse
) -> None:
    for _ in range(3):
        asks(record, code="guardian_revoked")
    asks(record, code="host_failing")
    page = shown(browse(owner), "/tenants/brandt/")
    refused = page[page.index('id="refused"') : page.index('id="releases"')]
    assert refused.count("guardian_revoked") == 1
    assert "You have taken this VM from this fabric" in refused
    assert ">3<" in refused
    assert "The host had not proved enough" in refused
    assert "Nothing was refused." in shown(browse(stranger_tenant), "/tenants/halske/")


def test_the_overview_and_the_vms_page_bring_their_fragments_to_an_open_page(
    record: KeyProtectorRecord, machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    asks(record)
    for address in ("/tenants/brandt/", machine.get_absolute_url()):
        fragment = browse(owner).get(address, headers={"HX-Request": "true"}).content.decode()
        assert "Approve or decline" in fragment
        assert "<html" not in fragment
        assert 'id="pause"' not in fragment  # a button that is swapped would do nothing any more
        assert 'class="n due">1<' in fragment  # beside the overview in the navigation


def test_a_long_list_has_pages_and_can_be_searched(tenant: Tenant, owner: User, browse: Browse) -> None:
    VirtualMachine.objects.bulk_create(
        VirtualMachine(
            tenant=tenant, name=f"web-{n:02}", protector_id=UUID(int=n), level="shielded", added_at=timezone.now()
        )
        for n in range(30)
    )
    client = browse(owner)
    assert "1 to 25 of 30" in shown(client, "/tenants/brandt/machines/")
    assert "26 to 30 of 30" in shown(client, "/tenants/brandt/machines/?page=2")
    page = shown(client, "/tenants/brandt/machines/?q=WEB-07")
    assert ("web-07" in page, "web-08" in page) == (True, False)
    assert "No VM has “nothing”" in shown(client, "/tenants/brandt/machines/?q=nothing")
    assert "All 30" in shown(client, "/tenants/brandt/")


def test_the_list_has_the_level_that_the_owner_gave_last(
    record: KeyProtectorRecord, document: dict[str, Any], machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    kps.take_chain(changed(document, level="encryption-supported").document, now=timezone.now())
    assert "Encryption-supported" in shown(browse(owner), "/tenants/brandt/machines/")


def test_a_statement_of_the_same_owner_under_another_name_is_no_other_machine(
    record: KeyProtectorRecord, document: dict[str, Any], machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    keys = replace(OWNER, name="Brandt GmbH")
    statement = replace(verify_chain(document["chain"]).statement, serial=1, owner=keys.guardian)
    answer = bring(browse(owner), machine, sign_statement(statement, keys))
    assert "<ins>Brandt GmbH</ins>" in answer.content.decode()
