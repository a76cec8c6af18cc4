"""Keys and guardians in the portal: what is shown, who changes the guardian's keys, and what they are told before."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.test import Client

from fabric.models import Tenant, VirtualMachine
from fabric.posture import weak_settings
from kps import service as kps
from kps.chains import take_chain
from kps.core.guardian import Guardian
from kps.core.protector import verify_protector
from kps.core.release_policy import NO_POLICY, ReleasePolicy
from kps.models import GuardianPair
from kps.service import our_guardian
from ledger import log_key
from ledger import service as ledger
from tests.fabric.conftest import PASSWORD, REASON
from tests.kps.parties import ID, OTHER_FABRIC, OTHER_ID, STRANGER, changed, protector_for

Browse = Callable[[User | None], Client]


def now() -> datetime:
    return datetime.now(UTC)


def text(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


def filled(**changes: str) -> dict[str, str]:
    return {"reason": REASON, "password": PASSWORD} | changes


def decision(**changes: str) -> dict[str, str]:
    return filled(decision="approve") | changes


@pytest.fixture
def first(db: None) -> GuardianPair:
    kps.guardian_fingerprint(now=now())
    return kps.pairs().get()


def known(by: User, *guardians: Guardian, **more: Any) -> dict[str, Any]:
    """Have the portal know a key protector that names these guardians, or the pair in use."""
    made = protector_for(*(guardians or (our_guardian(now=now()),)), **more)
    kps.know_protector(verify_protector(made).chain, by=by, now=now())
    return made


def rotated(admin: User, approver: User) -> GuardianPair:
    pair = kps.prepare(by=admin, reason=REASON, now=now())
    proposal = kps.propose(pair.number, "promote", by=admin, reason=REASON, now=now())
    kps.decide(proposal.pk, by=approver, approve=True, reason=REASON, now=now())
    return kps.pairs().get(pk=pair.pk)


# --- what is shown -----------------------------------------------------------------------------------------------


def test_the_page_shows_every_key_and_where_it_rests(auditor: User, browse: Browse) -> None:
    log_key.log_signer(now=now())
    page = text(browse(auditor).get("/keys/"))
    for words in ("Key pair 1", "In use", "Health signer 1", "Health signer 2", "signs as guardhouse/", "A plain file"):
        assert words in page
    assert page.count("under the root key") == 4
    assert "Prepare a key pair" not in page


def test_no_page_shows_anything_of_a_private_key(first: GuardianPair, admin: User, browse: Browse) -> None:
    client = browse(admin)
    for address in ("/keys/", "/keys/pairs/1/", "/keys/prepare/", "/keys/pairs/1/disable/"):
        content = client.get(address).content
        for key in (first.signing, first.encryption):
            assert bytes(key.sealed) not in content
            assert bytes(key.sealed).hex().encode() not in content


@pytest.mark.parametrize(("name", "words"), [("tpm", "Each node’s TPM"), ("pkcs11", "A hardware token")])
def test_another_custody_is_said_in_words(
    name: str,
    words: str,
    first: GuardianPair,
    tenant: Tenant,
    auditor: User,
    owner: User,
    browse: Browse,
    settings: Any,
) -> None:
    browse(auditor).get("/keys/")  # makes the signers, which takes a custody that opens
    settings.CUSTODY, settings.CUSTODY_TOKEN = name, "x"
    assert words in text(browse(auditor).get("/keys/"))
    assert words.split()[-1] in text(browse(owner).get("/tenants/brandt/"))


def test_keys_in_a_plain_file_are_a_weakness_of_every_policy(db: None, settings: Any) -> None:
    weaknesses = [each.what for each in weak_settings(None, now=now())]
    assert any("plain file" in each for each in weaknesses)
    settings.CUSTODY = "tpm"
    assert len(weak_settings(None, now=now())) == len(weaknesses) - 1


def test_a_pair_that_is_not_there_is_not_found(first: GuardianPair, admin: User, browse: Browse) -> None:
    for address in ("/keys/pairs/9/", "/keys/pairs/9/disable/", "/keys/changes/9/"):
        assert browse(admin).get(address).status_code == 404
    assert browse(admin).get("/keys/pairs/1/destroy/").status_code == 404


# --- a rotation, by two persons ----------------------------------------------------------------------------------


def test_two_persons_rotate_the_keys(
    first: GuardianPair, tenant: Tenant, machine: VirtualMachine, admin: User, approver: User, browse: Browse
) -> None:
    known(admin)
    ada, ben = browse(admin), browse(approver)
    assert "is prepared and published" in text(ada.post("/keys/prepare/", filled(), follow=True))
    forward = ada.post("/keys/pairs/2/promote/", filled())
    assert forward.status_code == 302
    assert our_guardian(now=now()).fingerprint == first.fingerprint
    assert "Take key pair 2 into use" in text(ben.get("/proposals/"))
    assert "you put this forward" in text(ada.get(forward["Location"])).lower()
    assert "The decision is recorded" in text(ben.post(forward["Location"], decision(), follow=True))
    assert our_guardian(now=now()).fingerprint == kps.pairs()[0].fingerprint
    page = text(ben.get("/keys/"))
    assert "1 of 1 key protector still needs an old pair" in page
    assert "1 key protector depends on it" in page
    queue = text(ben.get("/keys/pairs/1/"))
    assert "payroll" in queue
    assert "who grants key pair 2" in queue
    assert [leaf.actor for leaf in ledger.leaves(act_prefix="guardian.")] == ["user:ben", "user:ada", "user:ada"]


def test_the_old_pair_is_disabled_when_the_last_protector_has_moved_and_enabled_again(
    first: GuardianPair, admin: User, approver: User, browse: Browse
) -> None:
    rotated(admin, approver)
    ada, ben = browse(admin), browse(approver)
    assert "no key protector known here depends on it" in text(ada.get("/keys/"))
    forward = ada.post("/keys/pairs/1/disable/", filled(name="Key pair 1"))
    assert "would get no keys" in text(ben.get(forward["Location"]))
    ben.post(forward["Location"], decision())
    assert kps.pairs().get(number=1).state == "disabled"
    assert "after two persons have enabled the pair again" in text(ben.get("/keys/pairs/1/"))
    forward = ada.post("/keys/pairs/1/enable/", filled())
    ben.post(forward["Location"], decision())
    assert kps.pairs().get(number=1).state == "former"


def test_disabling_a_pair_that_is_needed_says_whom_it_stops(
    first: GuardianPair, admin: User, approver: User, browse: Browse
) -> None:
    known(admin)
    rotated(admin, approver)
    page = text(browse(admin).get("/keys/pairs/1/disable/"))
    assert "1 key protector of 1 owner would get no keys" in page
    assert f"{ID}</code> of owner" in page
    forward = browse(admin).post("/keys/pairs/1/disable/", filled(name="Key pair 1"))
    assert "1 key protector still depends on this pair" in text(browse(approver).get(forward["Location"]))


def test_a_rejected_change_changes_nothing(first: GuardianPair, admin: User, approver: User, browse: Browse) -> None:
    kps.prepare(by=admin, reason=REASON, now=now())
    forward = browse(admin).post("/keys/pairs/2/promote/", filled())
    browse(approver).post(forward["Location"], decision(decision="reject"))
    assert our_guardian(now=now()).fingerprint == first.fingerprint
    assert "Rejected by ben" in text(browse(approver).get(forward["Location"]))


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": ""},
        {"reason": "short"},
        {"password": ""},
        {"password": "another"},
        {"name": ""},
        {"name": "Key pair 2"},
    ],
)
def test_an_act_needs_a_reason_the_password_and_the_name(
    changes: dict[str, str], first: GuardianPair, admin: User, approver: User, browse: Browse
) -> None:
    rotated(admin, approver)
    answer = browse(admin).post("/keys/pairs/1/disable/", filled(name="Key pair 1") | changes)
    assert answer.status_code == 200
    assert not kps.rotations(state="open").exists()


def test_nobody_decides_what_they_have_put_forward(first: GuardianPair, both: User, browse: Browse) -> None:
    kps.prepare(by=both, reason=REASON, now=now())
    forward = browse(both).post("/keys/pairs/2/promote/", filled())
    answer = browse(both).post(forward["Location"], decision())
    assert answer.status_code == 403
    assert "four_eyes" in text(answer)
    assert our_guardian(now=now()).fingerprint == first.fingerprint


@pytest.mark.parametrize("role", ["admin", "auditor", "owner", "operator", "stranger_tenant", "nobody"])
def test_only_approvers_decide(
    role: str, first: GuardianPair, admin: User, browse: Browse, request: pytest.FixtureRequest
) -> None:
    pair = kps.prepare(by=admin, reason=REASON, now=now())
    proposal = kps.propose(pair.number, "promote", by=admin, reason=REASON, now=now())
    answer = browse(request.getfixturevalue(role)).post(f"/keys/changes/{proposal.pk}/", decision())
    assert answer.status_code == 403
    assert kps.rotations(state="open").count() == 1


def test_a_change_that_is_not_possible_is_said_on_the_page(first: GuardianPair, admin: User, browse: Browse) -> None:
    kps.prepare(by=admin, reason=REASON, now=now())
    answers = {
        "/keys/prepare/": "cannot_rotate",
        "/keys/pairs/1/disable/": "cannot_rotate",
        "/keys/pairs/2/enable/": "cannot_rotate",
    }
    for address, code in answers.items():
        answer = browse(admin).post(address, filled(name="Key pair 1"))
        assert (answer.status_code, code in text(answer)) == (409, True), address


def test_a_decision_is_made_once(first: GuardianPair, admin: User, approver: User, browse: Browse) -> None:
    kps.prepare(by=admin, reason=REASON, now=now())
    address = browse(admin).post("/keys/pairs/2/promote/", filled())["Location"]
    browse(approver).post(address, decision())
    answer = browse(approver).post(address, decision(decision="reject"))
    assert answer.status_code == 409
    assert "already_decided" in text(answer)


# --- the queue ---------------------------------------------------------------------------------------------------


def test_owners_see_which_of_their_protectors_to_grant_anew(
    first: GuardianPair,
    machine: VirtualMachine,
    admin: User,
    approver: User,
    owner: User,
    stranger_tenant: User,
    browse: Browse,
) -> None:
    made = known(admin)
    assert "This fabric has newer keys" not in text(browse(owner).get("/tenants/brandt/"))
    newest = rotated(admin, approver)
    page = text(browse(owner).get("/tenants/brandt/"))
    assert "This fabric has newer keys" in page
    assert "You grant the new keys." in page
    assert "This fabric has newer keys" not in text(browse(stranger_tenant).get("/tenants/halske/"))
    take_chain(changed(made, guardians=(kps.card(first), kps.card(newest))).document, now=now())
    assert "you have granted them" in text(browse(owner).get("/tenants/brandt/"))


@pytest.mark.parametrize(
    ("policy", "leaves", "words"),
    [
        (NO_POLICY, False, "who grants key pair 2"),
        (ReleasePolicy(successors=True), False, "the owner has allowed successors"),
        (NO_POLICY, True, "the owner names this fabric no more"),
    ],
)
def test_the_queue_says_what_each_waits_for(
    policy: ReleasePolicy,
    leaves: bool,
    words: str,
    first: GuardianPair,
    admin: User,
    approver: User,
    browse: Browse,
) -> None:
    made = known(admin, policy=policy)
    rotated(admin, approver)
    if leaves:
        take_chain(changed(made, guardians=(OTHER_FABRIC.guardian,)).document, now=now())
    assert words in text(browse(admin).get("/keys/pairs/1/"))


def test_a_vm_of_another_owner_with_the_same_id_is_not_named(
    first: GuardianPair, machine: VirtualMachine, admin: User, approver: User, browse: Browse
) -> None:
    known(admin, owner=STRANGER)
    page = text(browse(admin).get("/keys/pairs/1/"))
    assert "payroll" not in page
    assert "not registered" in page


def test_the_queue_comes_in_pages_of_a_few_queries(
    first: GuardianPair, admin: User, browse: Browse, django_assert_max_num_queries: Callable[[int], Any]
) -> None:
    for number in range(51):
        known(admin, protector_id=UUID(int=OTHER_ID.int + number))
    client = browse(admin)
    with django_assert_max_num_queries(25):
        assert "1 to 50 of 51" in text(client.get("/keys/pairs/1/"))
    assert "51 to 51 of 51" in text(browse(admin).get("/keys/pairs/1/?page=2"))


def test_open_pages_fetch_only_what_changes(first: GuardianPair, admin: User, browse: Browse) -> None:
    known(admin)
    for address, part in (("/keys/", "key-lists"), ("/keys/pairs/1/", "pair-queue")):
        fragment = text(browse(admin).get(address, headers={"HX-Request": "true"}))
        assert f'id="{part}"' in fragment
        assert "<html" not in fragment
