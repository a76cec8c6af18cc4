"""Key protectors that this fabric knows, registered or not: found, denied by one person, allowed again by two."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from fabric.models import VirtualMachine
from kps import service as kps
from kps.models import KeyProtectorRecord
from ledger import service as ledger
from tests.fabric.conftest import PASSWORD, REASON, known
from tests.fabric.test_key_pages import text
from tests.kps.conftest import Host, guardian, host, lifted, protect
from tests.kps.parties import FABRIC, ID, OTHER_ID, OWNERS, STRANGER, STRANGERS, protector, protector_for
from tests.kps.test_machines import shield

__all__ = ["guardian", "host", "protect", "shield"]

Browse = Callable[[User | None], Client]
Protect = Callable[..., dict[str, Any]]
WORDS = {"reason": "a key has leaked", "password": PASSWORD}


def now() -> datetime:
    return datetime.now(UTC)


def recorded(owner: str = OWNERS) -> KeyProtectorRecord:
    return KeyProtectorRecord.objects.get(owner_fingerprint=owner, protector_id=ID)


@pytest.fixture
def nobodys(admin: User) -> KeyProtectorRecord:
    """A key protector that this fabric has seen, and that no tenant has registered."""
    return known(protector(owner=STRANGER), by=admin)


def test_a_key_that_nobody_has_registered_is_denied_by_one_and_allowed_again_by_two(
    host: Host, protect: Protect, admin: User, approver: User, browse: Browse
) -> None:
    first, second = browse(admin), browse(approver)
    rolled = host.starts(protect(owner=STRANGER))["key_protector"]
    page = f"/protectors/{recorded(STRANGERS).pk}/"
    listed = text(first.get("/protectors/"))
    assert "not registered" in listed
    assert "nbg-a01" in listed, "who holds its key now"
    assert "payroll to its host" in listed
    assert page in text(first.get("/protectors/?q=ayrol"))
    assert page not in text(first.get("/protectors/?q=ayrolls"))
    asked = text(first.get(f"{page}deny/"))
    for words in ("It goes on running on nbg-a01", "nobody has registered it here", "Its owner cannot"):
        assert words in asked
    name = str(ID)[:8]
    for wrong in ({"name": "other"}, {"name": ""}, {"password": "wrong"}, {"reason": "short"}):
        first.post(f"{page}deny/", {**WORDS, "name": name, **wrong})
    rolled = host.starts(rolled)["key_protector"]
    assert first.post(f"{page}deny/", {**WORDS, "name": name})["Location"] == page
    assert host.starts(rolled)["code"] == "protector_denied"
    assert name in text(first.get("/stops/")), "it is in the list of what is denied"
    target = first.post(f"{page}lift/", WORDS)["Location"]
    assert first.post(f"{page}lift/", WORDS).status_code == 409, "it waits already"
    assert f"Allow the key of {name} again" in text(first.get("/proposals/"))
    assert "someone else decides it" in text(first.get(target))
    assert first.post(target, {**WORDS, "decision": "approve"}).status_code == 403
    assert host.starts(rolled)["code"] == "protector_denied"
    assert second.post(target, {**WORDS, "decision": "approve", "password": "wrong"}).status_code == 200
    assert second.post(target, {**WORDS, "decision": "approve"}).status_code == 302
    assert second.post(target, {**WORDS, "decision": "reject"}).status_code == 409
    assert "wrapped_keys" in host.starts(rolled)
    acts = [leaf.act for leaf in ledger.leaves(act_prefix="protector.")]
    assert acts == ["protector.allowed", "protector.lift_proposed", "protector.denied"]
    assert "Approved by ben" in text(first.get(target))
    assert "ada wants key protector" in text(first.get("/audit/"))


def test_a_vm_s_key_is_denied_from_its_page(
    host: Host, protect: Protect, machine: VirtualMachine, browse: Browse, admin: User
) -> None:
    client = browse(admin)
    host.starts(protect())
    act = f"/protectors/{recorded().pk}/deny/"
    assert f'href="{act}"' in text(client.get(machine.get_absolute_url()))
    assert client.post(act, {**WORDS, "name": machine.name}).status_code == 302
    assert host.starts(protect())["code"] == "protector_denied"
    assert "Allow its key again" in text(client.get(machine.get_absolute_url()))


def test_a_rejected_lift_leaves_the_denial_and_another_can_be_put_forward(
    nobodys: KeyProtectorRecord, admin: User, approver: User, browse: Browse
) -> None:
    kps.deny_protector(STRANGERS, ID, by=admin, reason=REASON, now=now())
    first, page = browse(admin), f"/protectors/{nobodys.pk}/"
    target = first.post(f"{page}lift/", WORDS)["Location"]
    assert browse(approver).post(target, {**WORDS, "decision": "reject"}).status_code == 302
    assert recorded(STRANGERS).denied_at is not None
    assert "Rejected" in text(first.get(page))
    assert first.post(f"{page}lift/", WORDS).status_code == 302


def test_what_is_not_denied_is_not_lifted_and_what_is_denied_not_denied_again(
    nobodys: KeyProtectorRecord, admin: User, browse: Browse
) -> None:
    client, page = browse(admin), f"/protectors/{nobodys.pk}/"
    assert client.post(f"{page}lift/", WORDS).status_code == 404
    denied = {**WORDS, "name": str(ID)[:8]}
    assert client.post(f"{page}deny/", denied).status_code == 302
    assert client.post(f"{page}deny/", denied).status_code == 404
    for gone in ("/protectors/999999/", "/protectors/999999/deny/", "/protectors/lifts/999999/"):
        assert client.get(gone).status_code == 404


def test_shielding_data_is_denied_alone_or_with_its_machines(
    host: Host, shield: Callable[..., Any], admin: User, browse: Browse
) -> None:
    data = shield()
    made = [host.starts(data.document["protector"], vm=f"web{n}")["key_protector"] for n in range(2)]
    record = KeyProtectorRecord.objects.get(protector_id=data.id)
    assert "web0 to its host" in text(browse(admin).get("/protectors/"))
    client, act = browse(admin), f"/protectors/{record.pk}/deny/"
    assert "the 2 that are known to be made from it" in text(client.get(act))
    said = {**WORDS, "name": str(data.id)[:8]}
    assert client.post(act, said).status_code == 200, "nothing is chosen beforehand"
    assert client.post(act, {**said, "reach": "file"}).status_code == 302
    assert [host.starts(each).get("code") for each in made] == [None, None]
    lifted(record.owner_fingerprint, data.id, by=admin)
    assert client.post(act, {**said, "reach": "machines"}).status_code == 302
    assert {host.starts(each).get("code") for each in made} == {"protector_denied"}
    assert "2 machines that this fabric knows" in text(client.get(f"/protectors/{record.pk}/"))
    assert "1 key protector." in text(client.get("/protectors/?q=web1")), "by what the host that made it called it"
    one = KeyProtectorRecord.objects.filter(denied_with=data.id)[0]
    assert "came with the denial of the shielding data" in text(client.get(f"/protectors/{one.pk}/"))
    lift = kps.propose_lift(record.owner_fingerprint, data.id, by=admin, reason=REASON, now=now())
    assert "2 machines made from it whose denial came with this one" in text(
        client.get(f"/protectors/lifts/{lift.pk}/")
    )


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", {ID, OTHER_ID}),
        (f"?q={str(OTHER_ID)[:13]}", {OTHER_ID}),
        ("?q={strangers}", {OTHER_ID}),
        ("?q=PAYR", {ID}),
        ("?only=denied", {OTHER_ID}),
        ("?q=nothing", set[object]()),
        ("?q=%00", {ID, OTHER_ID}),
        ("?page=999999", {ID, OTHER_ID}),
    ],
)
def test_the_list_is_searched(
    asked: str, found: set[object], machine: VirtualMachine, admin: User, auditor: User, browse: Browse
) -> None:
    known(protector(), by=admin)
    known(protector_for(FABRIC.guardian, owner=STRANGER, protector_id=OTHER_ID), by=admin)
    kps.deny_protector(STRANGERS, OTHER_ID, by=admin, reason=REASON, now=now())
    page = text(browse(auditor).get(f"/protectors/{asked.format(strangers=STRANGERS[:10])}"))
    assert {each for each in (ID, OTHER_ID) if f"{each}</code></a>" in page} == found


def test_a_vm_of_another_owner_with_the_same_id_is_not_named(
    nobodys: KeyProtectorRecord, machine: VirtualMachine, auditor: User, browse: Browse
) -> None:
    assert "payroll" not in text(browse(auditor).get("/protectors/"))
    assert "payroll" not in text(browse(auditor).get(f"/protectors/{nobodys.pk}/"))


def test_who_reads_only_is_offered_no_act(nobodys: KeyProtectorRecord, auditor: User, browse: Browse) -> None:
    assert "Deny its key" not in text(browse(auditor).get(f"/protectors/{nobodys.pk}/"))


def test_open_pages_fetch_only_what_changes(nobodys: KeyProtectorRecord, auditor: User, browse: Browse) -> None:
    for address, part in (("/protectors/", "protector-rows"), (f"/protectors/{nobodys.pk}/", "protector-state")):
        fragment = text(browse(auditor).get(address, headers={"HX-Request": "true"}))
        assert f'id="{part}"' in fragment
        assert "<html" not in fragment
