"""Shielding data and orders in the browser: kept, looked through, ordered from, withdrawn; by their tenant alone."""

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from fabric.models import MachineOrder, Membership, ShieldingData, Tenant, VirtualMachine
from kps import service as kps
from kps.core import jose
from kps.core.chain import VerifiedChain, sign_statement, verify_chain
from kps.core.order import parse_order
from kps.core.shielding_data import SHIELDING_DATA_LIMIT
from kps.core.substitution import KNOWN, kind_in_words
from tests.fabric.conftest import PASSWORD, REASON, asks
from tests.fabric.shielding import file_here, file_of, template, under, uploaded
from tests.kps.parties import OTHER_FABRIC, OWNER, STRANGER
from tests.kps.shielding import VALUES

pytestmark = pytest.mark.django_db
Browse = Callable[[User | None], Client]

UPLOAD, NEW = "/tenants/brandt/shielding/upload/", "/tenants/brandt/machines/new/"
PLACES = {f"place-{place}": value for place, value in VALUES.items()}
ORDER = {"name": "web-1", "memory": "512", **PLACES}
WITHDRAW = {"reason": REASON, "name": "web servers", "password": PASSWORD}


def shown(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, answer.status_code
    return unescape(answer.content.decode())


def post(client: Client, content: bytes, *, name: str = "web servers", **headers: str) -> Any:
    fields = {"name": name, "description": "for the shop", "file": SimpleUploadedFile("web.shield", content)}
    return client.post(UPLOAD, fields, headers=headers)


@pytest.fixture
def data(tenant: Tenant, owner: User) -> ShieldingData:
    return uploaded(tenant, owner)


# --- upload ------------------------------------------------------------------------------------------------------


def test_an_owner_uploads_a_file_and_sees_which_templates_it_goes_with_and_why_others_not(
    owner: User, admin: User, browse: Browse
) -> None:
    fits, old = template(admin, "12.4"), template(admin, "12.0")
    other = template(admin, "13.0", name="debian-13")
    client = browse(owner)
    answer = post(client, file_of())
    kept = ShieldingData.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, f"/shielding/{kept.pk}/")
    page = shown(client, answer["Location"])
    assert (str(fits) in page, page.count("Does not fit")) == (True, 2)
    assert f"this is version {old.version}." in page
    assert f"this template is {other.name}." in page
    assert "for the shop" in page
    assert "HostName" in page
    assert "This fabric" in page


def test_a_denied_file_says_so_and_its_page_leads_the_fabric_s_people_to_that(
    owner: User, admin: User, auditor: User, browse: Browse, data: ShieldingData
) -> None:
    page, record = f"/shielding/{data.pk}/", kps.protectors_of([data.key])[data.key]
    act = f"/protectors/{record.pk}/deny/"
    assert act in shown(browse(admin), page)
    assert act not in shown(browse(auditor), page)
    assert browse(admin).post(act, {"reason": REASON, "name": str(data), "password": PASSWORD}).status_code == 302
    told = shown(browse(owner), page)
    assert "The fabric denies its key to every host" in told
    assert REASON in told
    assert "Allow its key again" not in told
    assert "Allow its key again" in shown(browse(admin), page)


def test_the_same_name_is_its_next_version(owner: User, browse: Browse, data: ShieldingData) -> None:
    assert post(browse(owner), file_of(file_id=uuid4())).status_code == 302
    second = ShieldingData.objects.get(version=2)
    page = shown(browse(owner), f"/shielding/{second.pk}/")
    assert "version 2" in page
    assert f"/shielding/{data.pk}/" in page
    assert shown(browse(owner), "/tenants/brandt/shielding/").count("web servers") == 2


def test_a_browser_that_shows_progress_gets_its_answer_into_the_page(owner: User, browse: Browse) -> None:
    client = browse(owner)
    refused = post(client, file_of(owner=STRANGER), **{"HX-Request": "true"})
    page = unescape(refused.content.decode())
    assert (refused.status_code, "<html" in page) == (422, False)
    assert "owner_mismatch" in page
    assert 'id="upload"' in page
    invalid = post(client, file_of(), name="", **{"HX-Request": "true"})
    assert ("Give it a name" in invalid.content.decode(), "<html" in invalid.content.decode()) == (True, False)
    taken = post(client, file_of(), **{"HX-Request": "true"})
    assert taken["HX-Redirect"] == f"/shielding/{ShieldingData.objects.get().pk}/"


def test_a_file_that_cannot_be_used_here_is_refused_and_leaves_nothing(
    tenant: Tenant, owner: User, browse: Browse
) -> None:
    client, good = browse(owner), file_of()
    for content, code in (
        (b"not json", "malformed"),
        (good[:-40] + good[-39:], "shielding_data_refused"),
        (file_of(owner=STRANGER), "owner_mismatch"),
        (file_of(OTHER_FABRIC.guardian), "guardian_not_named"),
    ):
        answer = post(client, content)
        assert (answer.status_code >= 400, code in answer.content.decode()) == (True, True), code
    assert "larger than 4.1 MiB" in post(client, b" " * (SHIELDING_DATA_LIMIT + 1)).content.decode()
    assert not ShieldingData.objects.exists()


def test_nobody_but_its_tenant_and_the_fabrics_people_sees_shielding_data(
    data: ShieldingData, stranger_tenant: User, nobody: User, auditor: User, operator: User, browse: Browse
) -> None:
    addresses = (f"/shielding/{data.pk}/", f"/shielding/{data.pk}/file/", "/tenants/brandt/shielding/")
    for address in addresses:
        for user in (auditor, operator):
            assert browse(user).get(address).status_code == 200, address
        for user in (stranger_tenant, nobody):
            assert browse(user).get(address).status_code == 404, address
    assert post(browse(stranger_tenant), file_of()).status_code == 404
    assert post(browse(operator), file_of()).status_code == 403
    for user, status in ((stranger_tenant, 404), (operator, 403), (auditor, 403)):
        assert browse(user).post(f"/shielding/{data.pk}/withdraw/", WITHDRAW).status_code == status
    assert not ShieldingData.objects.get().withdrawn


def test_the_file_is_given_as_its_owner_has_signed_it(data: ShieldingData, owner: User, browse: Browse) -> None:
    answer = browse(owner).get(f"/shielding/{data.pk}/file/")
    assert answer.getvalue() == file_here(data)


def test_a_withdrawn_file_is_gone_and_says_so(data: ShieldingData, owner: User, browse: Browse) -> None:
    client = browse(owner)
    for change in ({"name": "x"}, {"reason": ""}, {"password": "wrong"}):
        assert client.post(f"/shielding/{data.pk}/withdraw/", WITHDRAW | change).status_code == 200
        assert not ShieldingData.objects.get().withdrawn
    assert client.post(f"/shielding/{data.pk}/withdraw/", WITHDRAW).status_code == 302
    assert "no new machine is made from it" in shown(client, f"/shielding/{data.pk}/")
    assert client.get(f"/shielding/{data.pk}/file/").status_code == 409
    assert client.post(f"/shielding/{data.pk}/withdraw/", WITHDRAW).status_code == 409
    assert "web servers" not in shown(client, NEW)
    assert "Step 1" in shown(client, f"{NEW}?data={data.pk}")


# --- a newer statement -------------------------------------------------------------------------------------------


def bring(client: Client, data: ShieldingData, chain: VerifiedChain) -> Any:
    content = SimpleUploadedFile("a.json", jose.canonical(chain.document))
    return client.post(f"/shielding/{data.pk}/statement/bring/", {"file": content})


def confirm(client: Client, data: ShieldingData, chain: VerifiedChain, *, seen: int = 0) -> Any:
    content = b64encode(jose.canonical(chain.document)).decode()
    return client.post(f"/shielding/{data.pk}/statement/bring/", {"content": content, "seen": seen})


def next_word(data: ShieldingData, **changes: Any) -> VerifiedChain:
    return sign_statement(replace(kps.newest_chain(*data.key).statement, serial=1, **changes), OWNER)


def serial(data: ShieldingData) -> int:
    return kps.newest_chain(*data.key).statement.serial


def test_the_same_file_under_a_newer_statement_takes_its_place(owner: User, browse: Browse) -> None:
    client, first = browse(owner), file_of()
    post(client, first)
    answer = post(client, under(first, 1, level="encryption-supported"), name="other")
    kept = ShieldingData.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, f"/shielding/{kept.pk}/")
    page = shown(client, answer["Location"])
    assert "has taken the place of the one before" in page
    assert "<del>shielded</del>" in page
    assert "Encryption-supported" in page
    refused = post(client, first)
    assert (refused.status_code, b"chain_not_newer" in refused.content) == (409, True)


def test_what_a_newer_statement_changes_is_shown_before_it_holds(
    data: ShieldingData, owner: User, browse: Browse
) -> None:
    client, chain = browse(owner), next_word(data, level="encryption-supported", guardians=())
    page = unescape(bring(client, data, chain).content.decode())
    for words in ("<del>shielded</del>", "NO FABRIC makes machines from it then", "no host here gets the key"):
        assert words in page
    assert "Those that are there stay as they are." in page
    assert serial(data) == 0
    assert confirm(client, data, chain)["Location"] == f"/shielding/{data.pk}/"
    assert serial(data) == 1
    given = client.get(f"/shielding/{data.pk}/statement/")
    assert verify_chain(json.loads(given.content)["chain"]) == chain


def test_a_statement_of_something_else_is_refused(data: ShieldingData, owner: User, browse: Browse) -> None:
    said = kps.newest_chain(*data.key).statement
    for other in (
        sign_statement(replace(said, serial=1, id=uuid4()), OWNER),
        sign_statement(replace(said, serial=1, owner=STRANGER.guardian), STRANGER),
    ):
        for act in (bring, confirm):
            answer = act(browse(owner), data, other)
            assert (answer.status_code, b"other_protector" in answer.content) == (422, True)
    for act in (bring, confirm):
        assert b"chain_not_newer" in act(browse(owner), data, sign_statement(said, OWNER)).content
    assert serial(data) == 0


def test_nobody_but_an_owner_of_its_tenant_brings_a_statement(
    data: ShieldingData, stranger_tenant: User, nobody: User, operator: User, auditor: User, browse: Browse
) -> None:
    chain = next_word(data)
    for user, status in ((stranger_tenant, 404), (nobody, 404), (operator, 403), (auditor, 403)):
        client = browse(user)
        assert bring(client, data, chain).status_code == status
        assert confirm(client, data, chain).status_code == status
    assert browse(stranger_tenant).get(f"/shielding/{data.pk}/statement/").status_code == 404
    assert "Bring a newer statement" not in shown(browse(operator), f"/shielding/{data.pk}/")
    assert serial(data) == 0


# --- a new machine -----------------------------------------------------------------------------------------------


def test_a_vm_is_ordered_in_three_steps_by_an_operator_too(
    data: ShieldingData, admin: User, operator: User, browse: Browse
) -> None:
    fits, old, client = template(admin, "12.4"), template(admin, "12.0"), browse(operator)
    assert f"data={data.pk}" in shown(client, NEW)
    second = shown(client, f"{NEW}?data={data.pk}")
    assert f"template={fits.pk}" in second
    assert f"template={old.pk}" not in second
    third = f"{NEW}?data={data.pk}&template={fits.pk}"
    page = shown(client, third)
    assert all(kind_in_words(place)[1:] in page for place in VALUES)
    answer = client.post(third, ORDER)
    order = MachineOrder.objects.get()
    assert (answer.status_code, answer["Location"]) == (302, f"/orders/{order.pk}/")
    page = shown(client, answer["Location"])
    assert "10.1.2.3/24" in page
    assert "Ordered" in page
    file = parse_order(client.get(f"/orders/{order.pk}/file/").content)
    assert (file.name, file.memory, dict(file.values)) == ("web-1", 512, VALUES)
    assert (file.template, file.shielding_data) == (fits.root, data.digest)
    assert "web-1" in shown(client, "/tenants/brandt/machines/")
    assert "web-1" in shown(browse(admin), "/machines/")


def test_a_template_that_does_not_go_with_it_is_not_chosen_by_its_address(
    data: ShieldingData, admin: User, owner: User, browse: Browse
) -> None:
    old = template(admin, "12.0")
    for chosen in (old.pk, "x", ""):
        address = f"{NEW}?data={data.pk}&template={chosen}"
        assert "Step 2" in shown(browse(owner), address)
        assert browse(owner).post(address, ORDER).status_code == 200
    assert "Step 1" in shown(browse(owner), f"{NEW}?data=%00")
    assert not MachineOrder.objects.exists()


def test_shielding_data_of_another_tenant_is_not_ordered_from(
    data: ShieldingData, admin: User, stranger_tenant: User, browse: Browse
) -> None:
    fits = template(admin, "12.4")
    address = f"/tenants/halske/machines/new/?data={data.pk}&template={fits.pk}"
    assert "Step 1" in shown(browse(stranger_tenant), address)
    assert browse(stranger_tenant).post(address, ORDER).status_code == 200
    assert browse(stranger_tenant).get(NEW).status_code == 404
    assert browse(admin).post(f"{NEW}?data={data.pk}&template={fits.pk}", ORDER).status_code == 403
    assert not MachineOrder.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "two words"},
        {"memory": "1"},
        {"memory": "much"},
        {"place-HostName": ""},
        {"place-HostName": 'x"; rm -rf /'},
        {"place-IP4Addr-1": "10.0.0.300"},
    ],
)
def test_an_order_that_no_host_could_make_is_corrected_at_its_field(
    change: dict[str, str], data: ShieldingData, admin: User, owner: User, browse: Browse
) -> None:
    answer = browse(owner).post(f"{NEW}?data={data.pk}&template={template(admin, '12.4').pk}", ORDER | change)
    assert (answer.status_code, "1 thing to correct" in answer.content.decode()) == (200, True)
    assert not MachineOrder.objects.exists()


def test_a_name_is_ordered_once_and_an_order_can_be_cancelled(
    data: ShieldingData, admin: User, owner: User, stranger_tenant: User, browse: Browse
) -> None:
    address, client = f"{NEW}?data={data.pk}&template={template(admin, '12.4').pk}", browse(owner)
    assert client.post(address, ORDER).status_code == 302
    again = client.post(address, ORDER)
    assert (again.status_code, "name_taken" in again.content.decode()) == (409, True)
    order = MachineOrder.objects.get()
    for name in ("", "file/", "cancel/"):
        assert browse(stranger_tenant).get(f"/orders/{order.pk}/{name}").status_code == 404
    assert browse(admin).post(f"/orders/{order.pk}/cancel/", {"reason": REASON}).status_code == 403
    assert client.post(f"/orders/{order.pk}/cancel/", {"reason": "no"}).status_code == 200
    assert client.post(f"/orders/{order.pk}/cancel/", {"reason": REASON}).status_code == 302
    assert client.post(f"/orders/{order.pk}/cancel/", {"reason": REASON}).status_code == 409
    assert "Cancelled" in shown(client, f"/orders/{order.pk}/")
    assert client.post(address, ORDER).status_code == 302


def test_what_was_made_from_a_file_is_on_its_page(
    data: ShieldingData, machine: VirtualMachine, owner: User, browse: Browse
) -> None:
    VirtualMachine.objects.update(made_from=data)
    assert "payroll" in shown(browse(owner), f"/shielding/{data.pk}/")
    assert f"/shielding/{data.pk}/" in shown(browse(owner), machine.get_absolute_url())


def test_the_making_of_a_machine_is_approved_where_its_shielding_data_is(
    data: ShieldingData, owner: User, operator: User, stranger_tenant: User, browse: Browse
) -> None:
    asked = asks(kps.protectors_of([data.key])[data.key])
    address, client = f"/shielding/{data.pk}/approvals/{asked.pk}/", browse(owner)
    for page in ("/tenants/brandt/", f"/shielding/{data.pk}/"):
        assert address in shown(client, page), page
    assert "May nbg-a07 make payroll from web servers 1?" in shown(client, address)
    answer = {"decision": "approve", "reason": REASON, "password": PASSWORD}
    assert browse(operator).post(address, answer).status_code == 403
    assert browse(stranger_tenant).post(address, answer).status_code == 404
    assert client.post(address, answer | {"password": "wrong"}).status_code == 200
    asked.refresh_from_db()
    assert asked.state == "pending"
    assert client.post(address, answer)["Location"] == f"/shielding/{data.pk}/"
    asked.refresh_from_db()
    assert (asked.state, asked.decided_by) == ("approved", "user:tim")


def test_every_kind_of_place_has_words_for_the_form() -> None:
    assert all(kind_in_words(place.replace("-n", "-1").replace("-m", "-1")) for place in KNOWN)


def test_who_is_in_two_tenants_orders_for_each_from_its_own(
    data: ShieldingData, other_tenant: Tenant, owner: User, browse: Browse
) -> None:
    Membership.objects.create(tenant=other_tenant, user=owner, role=Membership.Role.OPERATOR)
    assert f"data={data.pk}" not in shown(browse(owner), "/tenants/halske/machines/new/")
    assert f"data={data.pk}" in shown(browse(owner), NEW)
