"""The change of this fabric's guardian keys by API, from a pair for later to the end of the one before."""

from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from fabric.models import VirtualMachine
from kps import service as kps
from kps.chains import take_chain
from kps.core.release_policy import ReleasePolicy
from kps.models import GuardianPair
from ledger import service as ledger
from tests.fabric.conftest import REASON
from tests.fabric.test_api import Program, ada, ben, refused
from tests.fabric.test_key_pages import Browse, first, known, now, rotated, text
from tests.kps.parties import ID, OTHER_ID, OWNERS, STRANGER, STRANGERS, changed

__all__ = ["ada", "ben", "first"]


def put_forward(program: Program, number: int, change: str, **more: str) -> dict[str, Any]:
    answer = program.post(f"guardian-keys/{number}/changes", {"change": change, "reason": REASON, **more})
    assert answer.status_code == 201, answer.content
    return dict(answer.json())


def decided(program: Program, change: dict[str, Any], decision: str = "approve") -> dict[str, Any]:
    path = f"guardian-key-changes/{change['id']}/decision"
    answer = program.post(path, {"decision": decision, "reason": REASON})
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def states(program: Program) -> dict[int, str]:
    return {pair["number"]: pair["state"] for pair in program.get("guardian-keys").json()["pairs"]}


def test_keys_are_changed_from_beginning_to_end_by_two_persons_programs(
    first: GuardianPair, admin: User, ada: Program, ben: Program, browse: Browse
) -> None:
    made = known(admin)
    before = ada.get("guardian-keys").json()
    assert (before["total"], before["moved"], before["left"], states(ada)) == (1, 1, 0, {1: "primary"})
    prepared = ada.post("guardian-keys", {"reason": REASON})
    assert (prepared.status_code, prepared.json()["number"], prepared.json()["state"]) == (201, 2, "prepared")
    refused(ada.post("guardian-keys", {"reason": REASON}), 409, "cannot_rotate")
    promote = put_forward(ada, 2, "promote")
    assert (promote["state"], promote["protectors_now"], promote["yours"]) == ("open", 0, True)
    assert [each["id"] for each in ada.get("guardian-keys").json()["open_changes"]] == [promote["id"]]
    assert states(ada) == {2: "prepared", 1: "primary"}, "nothing counts before somebody else has decided it"
    assert decided(ben, promote)["state"] == "approved"
    told = ada.get("guardian-keys").json()
    assert (told["in_use"], told["total"], told["moved"], told["left"]) == (prepared.json()["fingerprint"], 1, 0, 1)
    assert "1 of 1 key protector still needs an old pair" in text(browse(admin).get("/keys/"))
    (waits,) = ada.get("guardian-keys/1/protectors").json()["results"]
    assert (waits["protector"], waits["owner"], waits["awaits"], waits["machine"]) == (str(ID), OWNERS, "owner", None)
    cards = [kps.card(pair) for pair in kps.pairs()]
    take_chain(changed(made, guardians=tuple(cards)).document, now=now())
    assert ada.get("guardian-keys/1/protectors").json()["results"][0]["awaits"] == "start"
    refused(ada.post("guardian-keys/1/changes", {"change": "disable", "reason": REASON}), 409, "not_confirmed")
    disable = put_forward(ada, 1, "disable", confirm="Key pair 1")
    assert (disable["protectors_then"], disable["owners_then"]) == (1, 1)
    assert decided(ben, disable)["decided_by"] == "ben"
    assert states(ada) == {2: "primary", 1: "disabled"}
    assert decided(ben, put_forward(ada, 1, "enable"), "reject")["state"] == "rejected"
    assert states(ada)[1] == "disabled"
    leaves = ledger.leaves(act_prefix="guardian.")
    assert leaves[0].act == "guardian.rejected"
    assert all(leaf.detail["token"] for leaf in leaves), "each act names the token that it came by"


def test_whoever_put_a_change_forward_does_not_decide_it(
    first: GuardianPair, admin: User, approver: User, ada: Program
) -> None:
    kps.prepare(by=admin, reason=REASON, now=now())
    change = put_forward(ada, 2, "promote")
    admin.groups.add(*approver.groups.all())
    path = f"guardian-key-changes/{change['id']}/decision"
    refused(ada.post(path, {"decision": "approve", "reason": REASON}), 403, "four_eyes")
    assert states(ada) == {2: "prepared", 1: "primary"}


def test_a_change_is_decided_once_and_waits_once(first: GuardianPair, admin: User, ada: Program, ben: Program) -> None:
    kps.prepare(by=admin, reason=REASON, now=now())
    change = put_forward(ada, 2, "promote")
    again = {"change": "promote", "reason": REASON}
    refused(ada.post("guardian-keys/2/changes", again), 409, "already_decided")
    decided(ben, change)
    path = f"guardian-key-changes/{change['id']}/decision"
    refused(ben.post(path, {"decision": "approve", "reason": REASON}), 409, "already_decided")
    refused(ada.post("guardian-keys/2/changes", again), 409, "cannot_rotate")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("guardian-keys/9/changes", {"change": "promote", "reason": REASON}, 404, "not_found"),
        ("guardian-keys/1/changes", {"change": "promote", "reason": REASON}, 409, "cannot_rotate"),
        ("guardian-keys/1/changes", {"change": "disable", "reason": REASON, "confirm": "1"}, 409, "not_confirmed"),
        ("guardian-keys/1/changes", {"change": "enable", "reason": REASON}, 409, "cannot_rotate"),
        ("guardian-keys/1/changes", {"change": "destroy", "reason": REASON}, 400, "malformed_request"),
        ("guardian-keys/1/changes", {"change": "enable"}, 400, "malformed_request"),
        ("guardian-keys", {"reason": REASON, "state": "primary"}, 400, "malformed_request"),
        ("guardian-keys", {"reason": "short"}, 400, "malformed_request"),
    ],
)
def test_what_cannot_be_done_is_refused(
    path: str, body: dict[str, str], status: int, code: str, first: GuardianPair, ada: Program
) -> None:
    refused(ada.post(path, body), status, code)
    assert states(ada) == {1: "primary"}
    assert not kps.rotations().exists()


def test_the_queue_is_paged_and_filtered(
    first: GuardianPair, machine: VirtualMachine, admin: User, approver: User, ada: Program
) -> None:
    known(admin)
    known(admin, owner=STRANGER, policy=ReleasePolicy(successors=True))
    for number in range(3):
        known(admin, protector_id=UUID(int=OTHER_ID.int + number))
    rotated(admin, approver)
    queue = "guardian-keys/1/protectors"
    page = ada.get(f"{queue}?page_size=2").json()
    assert (page["count"], len(page["results"])) == (5, 2)
    assert ada.get("guardian-keys/2/protectors").json()["count"] == 0
    (stranger,) = ada.get(f"{queue}?owner={STRANGERS}").json()["results"]
    assert (stranger["awaits"], stranger["machine"], stranger["tenant"]) == ("itself", None, None)
    found = {each["owner"]: each for each in ada.get(f"{queue}?q=payroll").json()["results"]}
    assert (found[OWNERS]["machine"], found[OWNERS]["tenant"]) == ("payroll", "brandt")
    assert ada.get(f"{queue}?q=nothing").json()["count"] == 0
    for wrong in ("?owner=brandt", "?owner=" + "A" * 64, "?awaits=owner", "?page_size=201"):
        refused(ada.get(queue + wrong), 400, "malformed_request")
    for gone in ("guardian-keys/9", "guardian-keys/9/protectors", "guardian-key-changes/9", f"{queue}?page=9"):
        refused(ada.get(gone), 404, "not_found")


def test_nothing_of_a_private_key_is_told(first: GuardianPair, ada: Program) -> None:
    for path in ("guardian-keys", "guardian-keys/1"):
        content = ada.get(path).content
        for key in (first.signing, first.encryption):
            assert bytes(key.sealed).hex().encode() not in content
    assert reverse("guardian-pair", args=[1]) == ada.get("guardian-keys/1").json()["page"]
