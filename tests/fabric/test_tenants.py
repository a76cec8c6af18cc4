"""A tenant's machines and releases, and the walls between tenants."""

import json
from collections.abc import Callable
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from fabric.models import Membership, Tenant, VirtualMachine
from kps import service as kps
from ledger import service as ledger
from tests.kps import parties
from tests.kps.conftest import Host, guardian, host, protect

__all__ = ["guardian", "host", "protect"]

Browse = Callable[[User | None], Client]
ADD = "/tenants/brandt/machines/add/"


def upload(client: Client, document: object, name: str = "payroll") -> tuple[int, str]:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    answer = client.post(ADD, {"name": name, "protector": SimpleUploadedFile("protector.json", content)})
    return answer.status_code, answer.content.decode()


def test_an_owner_adds_a_machine(owner: User, browse: Browse) -> None:
    assert upload(browse(owner), parties.protector())[0] == 302
    machine = VirtualMachine.objects.get()
    assert (machine.name, machine.level, machine.protector_id) == ("payroll", "shielded", parties.ID)
    assert [leaf.actor for leaf in ledger.leaves(act_prefix="machine.added")] == ["user:tim"]
    assert "payroll" in browse(owner).get("/tenants/brandt/").content.decode()


def test_the_state_file_beside_the_disk_will_do(owner: User, browse: Browse) -> None:
    state = {"protector": parties.protector(), "secrets": "sealed"}
    assert upload(browse(owner), state)[0] == 302


@pytest.mark.parametrize(
    ("document", "code"),
    [
        pytest.param(parties.protector(owner=parties.STRANGER), "owner_mismatch", id="of another owner"),
        pytest.param(parties.protector() | {"version": 2}, "malformed_protector", id="another version"),
        pytest.param(b"not json", "malformed", id="no JSON"),
        pytest.param([], "malformed", id="a list"),
        pytest.param({}, "malformed", id="empty"),
        pytest.param(
            parties.sealed(parties.protector() | {"wrapped": parties.protector()["wrapped"]}, parties.STRANGER),
            "protector_seal",
            id="sealed by a stranger",
        ),
    ],
)
def test_a_protector_that_does_not_hold_is_refused(document: object, code: str, owner: User, browse: Browse) -> None:
    status, page = upload(browse(owner), document)
    assert status >= 400
    assert code in page
    assert not VirtualMachine.objects.exists()


def test_an_altered_level_is_refused(owner: User, browse: Browse) -> None:
    document = parties.protector(level="encryption-supported")
    said = parties.said(document["chain"][0]) | {"level": "shielded"}
    document["chain"][0] = parties.signed(said, parties.STRANGER, kid_of=parties.OWNER)
    status, page = upload(browse(owner), document)
    assert (status, "protector_signature" in page) == (422, True)


def test_a_file_that_is_too_large_is_not_read(owner: User, browse: Browse) -> None:
    status, page = upload(browse(owner), b"[" + b" " * (64 * 1024) + b"]")
    assert (status, "larger than 64 KiB" in page) == (200, True)


def test_a_machine_is_added_once(owner: User, browse: Browse) -> None:
    assert upload(browse(owner), parties.protector())[0] == 302
    status, page = upload(browse(owner), parties.protector(), "another name")
    assert (status, "machine_known" in page) == (409, True)
    assert VirtualMachine.objects.count() == 1


@pytest.mark.parametrize("role", ["operator", "stranger_tenant", "nobody", "admin", "approver", "auditor"])
def test_nobody_but_an_owner_adds_machines(
    role: str, tenant: Tenant, browse: Browse, request: pytest.FixtureRequest
) -> None:
    assert upload(browse(request.getfixturevalue(role)), parties.protector())[0] in {403, 404}
    assert not VirtualMachine.objects.exists()


def test_a_tenant_sees_who_got_its_key_and_another_does_not(
    host: Host,
    protect: Callable[..., dict[str, object]],
    machine: VirtualMachine,
    owner: User,
    stranger_tenant: User,
    auditor: User,
    browse: Browse,
) -> None:
    assert host.posts(host.asks(protect())).status_code == 200
    page = browse(owner).get("/tenants/brandt/").content.decode()
    assert "Released" in page
    assert host.machine.name in page
    assert f"/attestations/{1}/" not in page  # the fleet's pages are not the tenant's
    other = browse(stranger_tenant)
    assert other.get("/tenants/brandt/").status_code == 404
    assert host.machine.name not in other.get("/tenants/halske/").content.decode()
    assert host.machine.name in browse(auditor).get("/releases/").content.decode()


def test_a_tenant_finds_the_fingerprint_to_compare(owner: User, browse: Browse) -> None:
    page = browse(owner).get("/tenants/brandt/").content.decode()
    assert kps.guardian_fingerprint(now=timezone.now()) in page


def test_a_refused_release_says_why(
    host: Host, protect: Callable[..., dict[str, object]], owner: User, browse: Browse
) -> None:
    document = protect(parties.OTHER_FABRIC.guardian)
    assert host.posts(host.asks(document)).status_code >= 400
    page = browse(owner).get("/tenants/brandt/").content.decode()
    assert "guardian_not_named" in page
    assert "No key left the service." in page


def test_a_tenant_is_made_at_the_command_line(owner: User) -> None:
    call_command("add_tenant", "Nord Kasse", "A" * 64, owner=["tim"], stdout=StringIO())
    made = Tenant.objects.get(slug="nord-kasse")
    assert made.owner_fingerprint == "a" * 64
    assert Membership.objects.filter(tenant=made, user=owner, role="owner").exists()


@pytest.mark.parametrize(("fingerprint", "who"), [("abc", "tim"), ("a" * 64, "ghost")])
def test_a_tenant_with_a_wrong_key_or_owner_is_not_made(fingerprint: str, who: str, owner: User) -> None:
    with pytest.raises(CommandError):
        call_command("add_tenant", "Nord Kasse", fingerprint, owner=[who])
    assert not Tenant.objects.filter(slug="nord-kasse").exists()
