"""Shielding data and orders by API: who sees which rows, who acts, and that nobody else learns that they exist."""

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from fabric.machine_orders import order_machine
from fabric.models import MachineOrder, ShieldingData, Tenant
from fabric.tokens import make_token
from kps.core.shielding_data import SHIELDING_DATA_LIMIT
from tests.fabric.conftest import PASSWORD, REASON
from tests.fabric.shielding import file_here, file_of, now, template, under, uploaded
from tests.kps.parties import FABRIC, STRANGER
from tests.kps.shielding import VALUES

pytestmark = pytest.mark.django_db
STAFF = {"admin", "approver", "auditor"}
MEMBERS = {"owner", "operator"}
STRANGERS = {"stranger_tenant", "nobody"}
EVERYBODY = STAFF | MEMBERS | STRANGERS
# Who sees the tenant's rows (others are told that there is nothing), and whose acts count.
MAY_SEE = {
    ("shielding-data-list", "GET"): STAFF | MEMBERS,
    ("shielding-data-list", "POST"): {"owner"},
    ("shielding-data", "GET"): STAFF | MEMBERS,
    ("shielding-data-file", "GET"): STAFF | MEMBERS,
    ("machine-orders", "GET"): STAFF | MEMBERS,
    ("machine-orders", "POST"): MEMBERS,
    ("machine-order", "GET"): STAFF | MEMBERS,
    ("machine-order-file", "GET"): STAFF | MEMBERS,
    ("cancellation", "POST"): MEMBERS,
    ("withdrawal", "POST"): {"owner"},  # the last, for nothing is ordered from what is withdrawn
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def ask(user: User | None, method: str, path: str, body: object = None) -> Any:
    headers = {}
    if user is not None:
        _, secret = make_token(uuid4().hex, lifetime=timedelta(days=1), by=user, reason=REASON, now=now())
        headers = {"authorization": f"Bearer {secret}"}
    client = Client(raise_request_exception=False)
    if isinstance(body, dict) and "file" in body:
        return client.post(path, as_form(body), headers=headers)
    sent = "" if body is None else json.dumps(body)
    return client.generic(method, path, sent, content_type="application/json", headers=headers)


def as_form(body: dict[str, Any]) -> dict[str, Any]:
    """Return what a form sends; what is given as bytes is a file."""
    return {
        name: SimpleUploadedFile("web.shield", value) if isinstance(value, bytes) else value
        for name, value in body.items()
    }


@pytest.fixture
def data(tenant: Tenant, owner: User) -> ShieldingData:
    return uploaded(tenant, owner)


@pytest.fixture
def order(data: ShieldingData, admin: User, owner: User) -> MachineOrder:
    disk = template(admin)
    return order_machine(data, disk, "web1", memory=512, values=VALUES, by=owner, now=now())


def address(name: str, data: ShieldingData, order: MachineOrder) -> str:
    if name in ("shielding-data-list", "machine-orders"):
        return reverse(f"api:{name}")
    return reverse(f"api:{name}", args=[order.pk if "order" in name or name == "cancellation" else data.pk])


def body_of(name: str, order: MachineOrder) -> dict[str, object]:
    """Return what makes the act succeed for whoever may do it."""
    if name == "shielding-data-list":
        return {"tenant": "brandt", "name": "more", "file": file_of(file_id=uuid4())}
    if name == "machine-orders":
        wanted = {"shielding_data": str(order.shielding_data_id), "template": str(order.template_id)}
        return wanted | {"name": "web2", "memory": 512, "values": VALUES}
    return {"reason": REASON}


@pytest.mark.parametrize("role", sorted(EVERYBODY))
def test_each_role_sees_and_does_what_it_may(
    role: str, data: ShieldingData, order: MachineOrder, request: pytest.FixtureRequest
) -> None:
    user = request.getfixturevalue(role)
    files, orders = ShieldingData.objects.count(), MachineOrder.objects.count()
    for (name, method), roles in MAY_SEE.items():
        body = body_of(name, order) if method == "POST" else None
        answer = ask(user, method, address(name, data, order), body)
        if role in roles:
            assert answer.status_code in (200, 201), (name, method, answer.content)
        elif name in ("shielding-data-list", "machine-orders") and method == "GET":
            assert (answer.status_code, answer.json()["results"]) == (200, []), name
        else:
            hidden = role in STRANGERS
            assert answer.status_code == (404 if hidden else 403), (name, method, answer.content)
    if role != "owner":
        assert ShieldingData.objects.count() == files
        assert not ShieldingData.objects.exclude(withdrawn_at=None).exists()
    if role not in MEMBERS:
        assert MachineOrder.objects.count() == orders


def test_a_stranger_is_asked_for_a_token(data: ShieldingData, order: MachineOrder) -> None:
    for name, _ in MAY_SEE:
        for method in METHODS:
            assert ask(None, method, address(name, data, order)).status_code == 401, (name, method)


def test_no_other_method_does_anything(data: ShieldingData, order: MachineOrder, owner: User) -> None:
    for name in {name for name, _ in MAY_SEE}:
        for method in set(METHODS) - {"HEAD"} - {method for each, method in MAY_SEE if each == name}:
            assert ask(owner, method, address(name, data, order), {}).status_code == 405, (name, method)


def test_a_session_acts_with_its_password(tenant: Tenant, owner: User) -> None:
    client = Client()
    client.force_login(owner)
    body = {"tenant": "brandt", "name": "web", "file": file_of()}
    refused = client.post("/api/v1/shielding-data", as_form(body))
    assert (refused.status_code, refused.json()["code"]) == (403, "wrong_password")
    done = client.post("/api/v1/shielding-data", as_form(body | {"password": PASSWORD}))
    assert done.status_code == 201
    assert PASSWORD not in done.content.decode()


def test_a_file_is_told_with_what_it_goes_with_and_what_was_made(
    data: ShieldingData, order: MachineOrder, owner: User, admin: User
) -> None:
    template(admin, "12.0")
    told = ask(owner, "GET", f"/api/v1/shielding-data/{data.pk}").json()
    assert {each["version"]: each["applies"] for each in told["templates"]} == {"12.1": True, "12.0": False}
    assert told["digest"] == data.digest
    assert told["used_by"] == []
    assert "file" not in told
    assert "content" not in json.dumps(told)


def test_a_file_comes_back_as_it_was_signed(data: ShieldingData, operator: User) -> None:
    answer = ask(operator, "GET", f"/api/v1/shielding-data/{data.pk}/file")
    assert answer.getvalue() == file_here(ShieldingData.objects.get())
    assert answer["Cache-Control"] == "no-store"


def test_a_withdrawn_file_comes_no_more(data: ShieldingData, owner: User) -> None:
    told = ask(owner, "POST", f"/api/v1/shielding-data/{data.pk}/withdrawal", {"reason": REASON}).json()
    assert (told["templates"], told["withdrawn_at"] is None) == ([], False)
    gone = ask(owner, "GET", f"/api/v1/shielding-data/{data.pk}/file")
    assert (gone.status_code, gone.json()["code"]) == (409, "shielding_data_withdrawn")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"file": b"{}"}, 400, "malformed_shielding_data"),
        ({"file": b"{}\n"}, 400, "malformed_shielding_data"),
        ({"file": b""}, 400, "malformed_request"),
        ({"file": "no file"}, 400, "malformed_request"),
        ({"file": b"x" * SHIELDING_DATA_LIMIT}, 400, "malformed_shielding_data"),
        ({"file": b"x" * 2 * SHIELDING_DATA_LIMIT}, 413, "too_large"),
        ({"name": "two\nlines"}, 400, "malformed_document"),
        ({"tenant": "halske"}, 404, "not_found"),
        ({"wishes": 1}, 400, "malformed_request"),
    ],
)
def test_an_upload_that_cannot_be_read_is_refused(
    tenant: Tenant, other_tenant: Tenant, owner: User, changes: dict[str, object], status: int, code: str
) -> None:
    body = {"tenant": "brandt", "name": "web", "file": file_of()} | changes
    answer = ask(owner, "POST", "/api/v1/shielding-data", body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.content
    assert not ShieldingData.objects.exists()


def test_an_upload_of_another_owner_s_file_is_refused(tenant: Tenant, owner: User) -> None:
    for file, code in ((file_of(owner=STRANGER), "owner_mismatch"), (file_of(FABRIC.guardian), "guardian_not_named")):
        body = {"tenant": "brandt", "name": "web", "file": file}
        assert ask(owner, "POST", "/api/v1/shielding-data", body).json()["code"] == code


def test_lists_can_be_narrowed_to_a_tenant(data: ShieldingData, order: MachineOrder, admin: User) -> None:
    for path in ("/api/v1/shielding-data", "/api/v1/machine-orders"):
        assert ask(admin, "GET", f"{path}?tenant=brandt").json()["count"] == 1
        assert ask(admin, "GET", f"{path}?tenant=halske").json()["count"] == 0
        assert ask(admin, "GET", f"{path}?tenant=%00").status_code == 400


def test_the_same_file_under_a_newer_statement_is_200_and_under_an_older_one_refused(
    tenant: Tenant, owner: User
) -> None:
    first = file_of()
    wanted = {"tenant": "brandt", "name": "web"}
    path = reverse("api:shielding-data-list")
    answers = [ask(owner, "POST", path, wanted | {"file": each}) for each in (first, under(first, 1), first)]
    assert [each.status_code for each in answers] == [201, 200, 409]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[2].json()["code"] == "chain_not_newer"
