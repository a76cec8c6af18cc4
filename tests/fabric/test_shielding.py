"""Shielding data in the portal: brought by its owner, offered to hosts, and what was made from it is known."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from attestation.errors import NotAllowed
from fabric import machine_orders, shielding
from fabric.machine_orders import cancel_order, open_orders, order_file, order_machine
from fabric.models import MachineOrder, ShieldingData, ShieldingPiece, Tenant, VirtualMachine
from fabric.shielding import applicability, contents_of, used_by, withdraw_shielding_data
from fabric.template_disks import switch_template
from fabric.tenancy import OwnerMismatch, add_machine
from kps import errors
from kps import service as kps
from kps.core.chain import make_machine, subject_of
from kps.core.order import parse_order
from kps.core.protector import roll_protector, verify_protector
from kps.core.sealed_stream import PIECE
from kps.core.shielding_content import GuestFile
from ledger import service as ledger
from tests.fabric.conftest import REASON
from tests.fabric.shielding import file_here, file_of, keep, now, template, this_fabric, under, uploaded
from tests.kps.conftest import Host, host
from tests.kps.parties import FABRIC, KEY, OWNERS, STRANGER
from tests.kps.shielding import CONTENT, FILE_ID, LABEL, VALUES, data_in, head_of

__all__ = ["host"]
pytestmark = pytest.mark.django_db


def leaves(act: str) -> list[dict[str, Any]]:
    return [dict(leaf.detail) for leaf in ledger.leaves(act_prefix=act)]


# --- uploads -----------------------------------------------------------------------------------------------------


def test_a_file_is_kept_as_its_owner_signed_it(tenant: Tenant, owner: User) -> None:
    content = file_of()
    kept = keep(tenant, content, by=owner)
    assert (kept.version, kept.protector_id, kept.level, kept.size) == (1, FILE_ID, "shielded", len(content))
    assert kept.digest == data_in(content).digest
    assert file_here(ShieldingData.objects.get()) == content
    assert contents_of(kept).label.volumes == LABEL.volumes
    assert kept.asks_for == ["HostName", "IP4Addr-1"]
    assert kept.subject == subject_of(OWNERS, FILE_ID)


def test_an_upload_is_in_the_log_and_the_owner_s_later_word_is_taken(tenant: Tenant, owner: User) -> None:
    kept = uploaded(tenant, owner)
    (said,) = leaves("shielding_data.added")
    assert said == {
        "name": "web servers 1",
        "tenant": "brandt",
        "owner": OWNERS,
        "digest": kept.digest,
        "level": "shielded",
    }
    assert kps.newest_chain(OWNERS, FILE_ID).statement.makes_machines


def test_the_next_file_of_a_name_is_its_next_version(tenant: Tenant, owner: User) -> None:
    versions = [uploaded(tenant, owner, file_id=uuid4()).version for _ in range(3)]
    assert versions == [1, 2, 3]
    assert uploaded(tenant, owner, "others", file_id=uuid4()).version == 1


def test_the_same_file_is_not_kept_twice(tenant: Tenant, owner: User) -> None:
    content = file_of()
    keep(tenant, content, by=owner)
    with pytest.raises(shielding.ShieldingDataKnown):
        keep(tenant, content, "others", by=owner)
    assert ShieldingData.objects.count() == len(leaves("shielding_data.added")) == 1


# --- the same file under a newer statement -----------------------------------------------------------------------


def kept_again(tenant: Tenant, owner: User, content: bytes) -> ShieldingData:
    return keep(tenant, content, "another name", "another description", by=owner)


@pytest.fixture
def file(db: None) -> bytes:
    return file_of()


@pytest.fixture
def kept(tenant: Tenant, owner: User, file: bytes) -> ShieldingData:
    return keep(tenant, file, by=owner)


def test_a_file_under_a_newer_statement_takes_the_place_of_the_one_before(
    tenant: Tenant, owner: User, file: bytes, kept: ShieldingData
) -> None:
    newer = under(file, 1, level="encryption-supported")
    again = kept_again(tenant, owner, newer)
    assert (again.pk, again.version, again.name, again.description) == (kept.pk, 1, "web servers", "for the shop")
    row = ShieldingData.objects.get()
    assert (file_here(row), row.level, row.size) == (newer, "encryption-supported", len(newer))
    assert (row.digest, row.added_at) == (data_in(newer).digest, kept.added_at)
    assert kps.newest_chain(OWNERS, FILE_ID).statement.serial == 1
    (said,) = leaves("shielding_data.restated")
    assert (said["before"], said["digest"], said["serial"]) == (kept.digest, row.digest, 1)
    assert [leaf["serial"] for leaf in leaves("chain.taken")] == [1]


def test_the_statement_may_have_been_brought_before_its_file(
    tenant: Tenant, owner: User, file: bytes, kept: ShieldingData
) -> None:
    """As the command does it that signs it: `--fabric` brings the statement, and the file is uploaded afterwards."""
    newer = under(file, 1)
    kps.take_chain(data_in(newer).protector.chain.document, now=now())
    assert kept_again(tenant, owner, newer).pk == kept.pk
    assert file_here(ShieldingData.objects.get()) == newer
    assert len(leaves("chain.taken")) == 1


def test_machines_and_orders_stay_with_the_file(
    host: Host, tenant: Tenant, owner: User, admin: User, file: bytes, kept: ShieldingData
) -> None:
    first = made(host, kept)
    order = order_machine(kept, template(admin), "web2", memory=512, values=VALUES, by=owner, now=now())
    again = kept_again(tenant, owner, under(file, 1))
    second = made(host, again, "web2")
    assert {machine.protector_id for machine in used_by(again)} == {first.id, second.id}
    assert MachineOrder.objects.get(pk=order.pk).machine is not None
    assert second.chain.statement.serial == 1
    assert parse_order(order_file(MachineOrder.objects.get(pk=order.pk))).shielding_data == again.digest


def test_a_file_under_an_older_statement_is_refused_and_noted(
    tenant: Tenant, owner: User, file: bytes, kept: ShieldingData
) -> None:
    kept_again(tenant, owner, under(file, 3))
    before = ShieldingData.objects.values().get()
    for older in (file, under(file, 2), under(file, 3, level="encryption-supported")):
        with pytest.raises(errors.ChainNotNewer, match="Statement 3"):
            kept_again(tenant, owner, older)
    assert ShieldingData.objects.values().get() == before
    assert [leaf["code"] for leaf in leaves("chain.refused")] == ["chain_not_newer"] * 3
    assert len(leaves("shielding_data.restated")) == 1


def test_another_file_under_the_same_key_protector_is_no_newer_one(
    tenant: Tenant, owner: User, kept: ShieldingData
) -> None:
    other = under(file_of(label=replace(LABEL, name="other")), 1)
    with pytest.raises(shielding.ShieldingDataKnown, match="something else is sealed"):
        kept_again(tenant, owner, other)
    assert kps.newest_chain(OWNERS, FILE_ID).statement.serial == 0
    assert ShieldingData.objects.get().digest == kept.digest


def test_a_withdrawn_file_does_not_come_back_by_a_newer_statement(
    tenant: Tenant, owner: User, file: bytes, kept: ShieldingData
) -> None:
    withdraw_shielding_data(kept, by=owner, reason=REASON, now=now())
    for content in (file, under(file, 1)):
        with pytest.raises(shielding.ShieldingDataWithdrawn):
            kept_again(tenant, owner, content)
    assert ShieldingData.objects.get().head == ""
    assert kps.newest_chain(OWNERS, FILE_ID).statement.serial == 0


def test_a_file_that_names_this_fabric_no_more_says_what_to_bring_instead(
    tenant: Tenant, owner: User, file: bytes, kept: ShieldingData
) -> None:
    with pytest.raises(errors.GuardianNotNamed, match="bring the statement alone"):
        kept_again(tenant, owner, under(file, 1, FABRIC.guardian))
    assert kps.newest_chain(OWNERS, FILE_ID).statement.serial == 0


@pytest.mark.parametrize("role", ["operator", "stranger_tenant", "admin", "nobody"])
def test_nobody_else_puts_a_file_in_the_place_of_another(
    tenant: Tenant, file: bytes, kept: ShieldingData, role: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(NotAllowed):
        kept_again(tenant, request.getfixturevalue(role), under(file, 1))
    assert ShieldingData.objects.get().digest == kept.digest


# --- who may, and what is kept -----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["operator", "stranger_tenant", "admin", "approver", "auditor", "nobody"])
def test_only_an_owner_of_the_tenant_brings_and_withdraws_files(
    tenant: Tenant, owner: User, role: str, request: pytest.FixtureRequest
) -> None:
    other = request.getfixturevalue(role)
    with pytest.raises(NotAllowed):
        uploaded(tenant, other)
    kept = uploaded(tenant, owner)
    with pytest.raises(NotAllowed):
        withdraw_shielding_data(kept, by=other, reason=REASON, now=now())
    assert not ShieldingData.objects.exclude(withdrawn_at=None).exists()


LARGE = replace(CONTENT, files=(GuestFile("/a", 0o600, bytes(3 * PIECE)),))


def harmed(harm: Callable[[list[bytes]], list[bytes]]) -> bytes:
    """Return a file of several pieces of which something is not as it was signed."""
    return b"".join(harm(file_of(content=LARGE).splitlines(keepends=True)))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: file_of(owner=STRANGER), OwnerMismatch),
        (lambda: file_of(FABRIC.guardian), errors.GuardianNotNamed),
        (lambda: b"{}", errors.MalformedShieldingData),
        (lambda: b"\x00\xff", errors.MalformedShieldingData),
        (lambda: b"x" * 3 * 1024 * 1024, errors.MalformedShieldingData),
        (lambda: harmed(lambda lines: [*lines[:-1], lines[-1][:-9] + lines[-1][-5:]]), errors.ShieldingDataRefused),
        (lambda: harmed(lambda lines: lines[:-1]), errors.ShieldingDataRefused),
        (lambda: harmed(lambda lines: [lines[0], lines[2], lines[1], *lines[3:]]), errors.ShieldingDataRefused),
        (lambda: harmed(lambda lines: [*lines, lines[-1]]), errors.ShieldingDataRefused),
        (lambda: harmed(lambda lines: [*lines[:-1], lines[-1][:-1]]), errors.ShieldingDataRefused),
    ],
)
def test_a_file_that_is_not_this_tenant_s_is_not_kept(tenant: Tenant, owner: User, make: Any, error: Any) -> None:
    with pytest.raises(error):
        keep(tenant, make(), by=owner)
    assert not ShieldingData.objects.exists()
    assert not ShieldingPiece.objects.exists()
    assert not leaves("shielding_data")
    assert not leaves("key_protector")


@pytest.mark.parametrize(("name", "description"), [("", ""), ("a" * 65, ""), ("two\nlines", ""), ("a", "\0")])
def test_a_name_that_cannot_be_shown_is_refused(tenant: Tenant, owner: User, name: str, description: str) -> None:
    with pytest.raises(errors.MalformedDocument):
        keep(tenant, file_of(), name, description, by=owner)


def test_a_withdrawn_file_is_erased_and_its_row_stays(tenant: Tenant, owner: User) -> None:
    kept = uploaded(tenant, owner)
    withdraw_shielding_data(kept, by=owner, reason=REASON, now=now())
    kept = ShieldingData.objects.get()
    assert (kept.head, kept.pieces.count(), kept.withdrawn, kept.withdrawn_by) == ("", 0, True, "tim")
    assert leaves("shielding_data.withdrawn")[0]["reason"] == REASON
    with pytest.raises(shielding.ShieldingDataWithdrawn):
        contents_of(kept)
    with pytest.raises(shielding.ShieldingDataWithdrawn):
        withdraw_shielding_data(kept, by=owner, reason=REASON, now=now())


def test_who_sees_a_file(
    tenant: Tenant, owner: User, operator: User, stranger_tenant: User, admin: User, nobody: User
) -> None:
    uploaded(tenant, owner)
    seen = {user: ShieldingData.objects.visible_to(user).count() for user in (owner, operator, admin)}
    assert set(seen.values()) == {1}
    assert not ShieldingData.objects.visible_to(stranger_tenant)
    assert not ShieldingData.objects.visible_to(nobody)


def test_each_template_on_offer_is_told_with_its_reasons(tenant: Tenant, owner: User, admin: User) -> None:
    file = contents_of(uploaded(tenant, owner))
    old, fits, other = template(admin, "12.0"), template(admin, "12.2"), template(admin, "1", "alpine")
    told = {each.template: each for each in applicability(file, [old, fits, other])}
    assert [told[each].applies for each in (old, fits, other)] == [False, True, False]
    assert told[old].against == ("The shielding data accepts debian-12, version 12.1 or later; this is version 12.0.",)


# --- what is made ------------------------------------------------------------------------------------------------


def made(host: Host, kept: ShieldingData, vm: str = "web1") -> Any:
    answer = host.starts(json.loads(kept.head)["protector"], vm=vm)
    return verify_protector(answer["key_protector"])


def test_a_made_machine_is_its_tenant_s(host: Host, tenant: Tenant, owner: User) -> None:
    kept = uploaded(tenant, owner)
    first, second = made(host, kept), made(host, kept, "web2")
    machines = {machine.name: machine for machine in used_by(kept)}
    assert {name: machine.protector_id for name, machine in machines.items()} == {"web1": first.id, "web2": second.id}
    assert {machine.tenant for machine in machines.values()} == {tenant}
    assert {machine.level for machine in machines.values()} == {"shielded"}


def test_a_machine_whose_name_is_taken_is_told_apart(host: Host, tenant: Tenant, owner: User) -> None:
    kept = uploaded(tenant, owner)
    made(host, kept)
    again = made(host, kept)
    assert sorted(machine.name for machine in used_by(kept)) == ["web1", f"web1-{str(again.id)[:8]}"]


def test_machines_of_a_withdrawn_file_stay(host: Host, tenant: Tenant, owner: User) -> None:
    kept = uploaded(tenant, owner)
    made(host, kept)
    withdraw_shielding_data(kept, by=owner, reason=REASON, now=now())
    assert [machine.name for machine in used_by(kept)] == ["web1"]


def test_a_machine_of_a_file_that_was_never_uploaded_is_its_tenant_s_too(host: Host, tenant: Tenant) -> None:
    answer = host.starts(head_of(file_of())["protector"], vm="web1")
    assert "wrapped_keys" in answer
    machine = VirtualMachine.objects.get()
    assert (machine.tenant, machine.name, machine.made_from) == (tenant, "web1", None)


def test_a_machine_of_an_owner_who_is_no_tenant_is_nobody_s(host: Host, tenant: Tenant) -> None:
    assert "wrapped_keys" in host.starts(head_of(file_of(owner=STRANGER))["protector"])
    assert not VirtualMachine.objects.exists()


def test_a_made_machine_from_elsewhere_can_be_added_by_its_protector(tenant: Tenant, owner: User) -> None:
    file = data_in(file_of(FABRIC.guardian, this_fabric()))
    chain = make_machine(file.protector.chain, FABRIC, nonce=bytes(16), now=now())
    document = json.dumps(roll_protector(file.protector, chain, key=KEY, signer=FABRIC.signing)).encode()
    machine = add_machine(tenant, "moved", document, by=owner, now=now())
    assert VirtualMachine.objects.get() == machine
    assert machine.protector_id == chain.statement.id


# --- orders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tenant: Tenant, owner: User) -> ShieldingData:
    return uploaded(tenant, owner)


def order(data: ShieldingData, admin: User, by: User, name: str = "web1", **changes: Any) -> MachineOrder:
    given: dict[str, Any] = {"memory": 512, "values": VALUES} | changes
    disk = given.pop("template", None) or template(admin)
    return order_machine(data, disk, name, by=by, now=now(), **given)


@pytest.mark.parametrize("by_owner", [False, True])
def test_nothing_is_ordered_from_shielding_data_whose_key_is_denied(
    data: ShieldingData, admin: User, owner: User, by_owner: bool
) -> None:
    if by_owner:
        kps.deny_by_owner(*data.key, actor="user:tim", reason=REASON, now=now())
    else:
        kps.deny_protector(*data.key, by=admin, reason=REASON, now=now())
    with pytest.raises(machine_orders.ShieldingDataDenied, match=REASON):
        order(data, admin, owner)
    assert not MachineOrder.objects.exists()
    assert not leaves("machine.ordered")


def test_an_order_is_what_a_host_reads(data: ShieldingData, admin: User, operator: User) -> None:
    made_order = order(data, admin, operator)
    read = parse_order(order_file(made_order))
    assert (read.name, read.memory, read.values) == ("web1", 512, VALUES)
    assert (read.template, read.shielding_data) == (made_order.template.root, data.digest)
    assert list(open_orders(data.tenant)) == [made_order]
    assert leaves("machine.ordered")[0]["name"] == "web1"


def test_an_order_is_settled_when_its_machine_is_made(
    host: Host, data: ShieldingData, admin: User, owner: User
) -> None:
    wanted = order(data, admin, owner)
    protector = made(host, data)
    wanted.refresh_from_db()
    assert wanted.state == "made"
    assert wanted.machine is not None
    assert wanted.machine.protector_id == protector.id
    assert not open_orders(data.tenant)
    with pytest.raises(machine_orders.OrderSettled):
        cancel_order(wanted, by=owner, reason=REASON, now=now())


def test_an_order_is_cancelled_once(data: ShieldingData, admin: User, owner: User) -> None:
    wanted = order(data, admin, owner)
    cancel_order(wanted, by=owner, reason=REASON, now=now())
    wanted.refresh_from_db()
    assert wanted.state == "cancelled"
    with pytest.raises(machine_orders.OrderSettled):
        cancel_order(wanted, by=owner, reason=REASON, now=now())
    assert order(data, admin, owner, template=wanted.template).state == "open"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"values": {}}, errors.SubstitutionRefused),
        ({"values": VALUES | {"HostName": "a\nruncmd: [id]"}}, errors.SubstitutionRefused),
        ({"values": VALUES | {"TimeZone": "UTC"}}, errors.SubstitutionRefused),
        ({"memory": 1}, errors.MalformedDocument),
        ({"name": "../web"}, errors.MalformedDocument),
        ({"name": ""}, errors.MalformedDocument),
    ],
)
def test_an_order_that_no_host_could_make_is_refused(
    data: ShieldingData, admin: User, owner: User, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        order(data, admin, owner, **changes)
    assert not MachineOrder.objects.exists()
    assert not leaves("machine.ordered")


def test_a_template_that_does_not_go_with_the_file_is_refused(data: ShieldingData, admin: User, owner: User) -> None:
    with pytest.raises(errors.TemplateNotAllowed, match="12\\.1 or later"):
        order(data, admin, owner, template=template(admin, "12.0"))
    retired = template(admin)
    switch_template(retired, retired=True, by=admin, reason=REASON, now=now())
    retired.refresh_from_db()
    with pytest.raises(machine_orders.TemplateRetired):
        order(data, admin, owner, template=retired)
    withdraw_shielding_data(data, by=owner, reason=REASON, now=now())
    data.refresh_from_db()
    with pytest.raises(shielding.ShieldingDataWithdrawn):
        order(data, admin, owner, template=template(admin, "13"))


def test_a_name_is_ordered_once_and_not_where_a_machine_has_it(
    data: ShieldingData, admin: User, owner: User, machine: VirtualMachine
) -> None:
    wanted = order(data, admin, owner)
    for name in ("web1", machine.name):
        with pytest.raises(machine_orders.NameTaken), transaction.atomic():
            order(data, admin, owner, name=name, template=wanted.template)
    assert MachineOrder.objects.count() == 1


@pytest.mark.parametrize("role", ["stranger_tenant", "admin", "approver", "auditor", "nobody"])
def test_only_people_of_the_tenant_order_and_cancel(
    data: ShieldingData, admin: User, owner: User, role: str, request: pytest.FixtureRequest
) -> None:
    other = request.getfixturevalue(role)
    with pytest.raises(NotAllowed):
        order(data, admin, other)
    wanted = order(data, admin, owner, template=template(admin, "14"))
    with pytest.raises(NotAllowed):
        cancel_order(wanted, by=other, reason=REASON, now=now())


def test_one_disk_of_several_is_enough(tenant: Tenant, owner: User, admin: User) -> None:
    second = replace(LABEL.volumes[0], name="alpine")
    file = contents_of(uploaded(tenant, owner, label=replace(LABEL, volumes=(LABEL.volumes[0], second))))
    assert [each.applies for each in applicability(file, [template(admin, "13", "alpine")])] == [True]
