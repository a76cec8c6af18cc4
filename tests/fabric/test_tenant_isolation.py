"""Two tenants whose owners have signed one protector id: neither is in the other's way, nor learns anything of it."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone

from fabric.feed import line
from fabric.models import Membership, Tenant, VirtualMachine
from fabric.tenancy import usage
from kps import service as kps
from kps.core import jose
from ledger import service as ledger
from ledger.core.leaf import Act
from tests.fabric.conftest import person
from tests.kps.conftest import Host, guardian, host, protect
from tests.kps.parties import ID, OWNERS, STRANGER, STRANGERS, SUBJECT, TWIN_SUBJECT

__all__ = ["guardian", "host", "protect"]
pytestmark = pytest.mark.django_db

Browse = Callable[[User | None], Client]
Protect = Callable[..., dict[str, Any]]


@pytest.fixture
def spying() -> Tenant:
    """A tenant whose owner knows the id of the victim's protector."""
    return Tenant.objects.create(name="Spy", slug="spy", owner_fingerprint=STRANGERS)


@pytest.fixture
def spy(spying: Tenant) -> User:
    user = person("sue")
    Membership.objects.create(tenant=spying, user=user, role=Membership.Role.OWNER)
    return user


@pytest.fixture
def squatted(spy: User, browse: Browse, host: Host, protect: Protect) -> Any:
    """The spy was first: a protector with the victim's id is registered and released, and the spy is its owner."""
    twin = protect(owner=STRANGER)
    assert register(browse(spy), "spy", twin, "twin").status_code == 302
    assert host.posts(host.asks(twin, vm="twin")).status_code == 200
    return twin


def register(client: Client, slug: str, document: dict[str, Any], name: str) -> Any:
    file = SimpleUploadedFile("state.0.json", jose.canonical(document))
    return client.post(f"/tenants/{slug}/machines/add/", {"name": name, "protector": file})


def page_of(client: Client, slug: str) -> str:
    return str(client.get(f"/tenants/{slug}/").content.decode())


def test_who_was_first_with_an_id_blocks_nobody(
    squatted: Any, tenant: Tenant, owner: User, browse: Browse, host: Host, protect: Protect
) -> None:
    assert register(browse(owner), "brandt", protect(), "payroll").status_code == 302
    assert host.posts(host.asks(protect())).status_code == 200
    assert host.posts(host.asks(squatted, vm="twin")).status_code == 200
    assert [(row.tenant.slug, row.name) for row in VirtualMachine.objects.filter(protector_id=ID)] == [
        ("brandt", "payroll"),
        ("spy", "twin"),
    ]


def test_each_sees_its_own_rows_and_starts_only(
    squatted: Any, spying: Tenant, machine: VirtualMachine, host: Host, protect: Protect
) -> None:
    for _ in range(2):
        assert host.posts(host.asks(protect())).status_code == 200
    for slug, owner, starts, vm in (("brandt", OWNERS, 2, "payroll"), ("spy", STRANGERS, 1, "twin")):
        (used,) = usage(VirtualMachine.objects.filter(tenant__slug=slug))
        assert used.starts == starts
        assert used.last == kps.releases(owner_fingerprint=owner).first()
        assert {row.vm for row in kps.releases(owner_fingerprint=owner)} == {vm}


def test_neither_page_says_anything_of_the_other(
    squatted: Any, machine: VirtualMachine, spy: User, owner: User, browse: Browse, host: Host, protect: Protect
) -> None:
    assert "twin" not in page_of(browse(owner), "brandt")
    before = page_of(browse(spy), "spy")
    assert host.posts(host.asks(protect())).status_code == 200
    assert "payroll" not in page_of(browse(spy), "spy")
    assert before.count("Released") == page_of(browse(spy), "spy").count("Released")
    assert "payroll" in page_of(browse(owner), "brandt")


def test_a_machine_that_did_not_start_shows_no_start_of_the_other(
    spy: User, machine: VirtualMachine, browse: Browse, host: Host, protect: Protect
) -> None:
    assert register(browse(spy), "spy", protect(owner=STRANGER), "twin").status_code == 302
    assert host.posts(host.asks(protect())).status_code == 200
    page = page_of(browse(spy), "spy")
    assert "twin" in page
    assert host.machine.name not in page


def test_each_hears_the_news_of_its_own_only(
    squatted: Any, spying: Tenant, tenant: Tenant, owner: User, browse: Browse, host: Host, protect: Protect
) -> None:
    said: list[tuple[str, str]] = []

    def hear(act: Act, **_: object) -> None:
        said.append((act.subject, act.owner))

    ledger.recorded.connect(hear)
    try:
        register(browse(owner), "brandt", protect(), "payroll")
        host.posts(host.asks(protect()))
        host.posts(host.asks(squatted, vm="twin"))
    finally:
        ledger.recorded.disconnect(hear)
    mine, theirs = tenant.owner_fingerprint, spying.owner_fingerprint
    assert said == [(SUBJECT, mine), (SUBJECT, mine), (TWIN_SUBJECT, theirs)]
    assert mine != theirs


def test_the_feed_says_whose_protector_is_denied(squatted: Any, admin: User) -> None:
    kps.deny_protector(STRANGERS, ID, by=admin, reason="court order", now=timezone.now())
    said = line(ledger.leaves(act_prefix="protector.denied", subject=TWIN_SUBJECT).get())
    assert f"key protector {ID} of owner {STRANGERS[:16]}" in said.before + said.name + said.after


def test_a_tenant_has_one_machine_of_an_id(machine: VirtualMachine) -> None:
    machine.pk, machine.name = None, "another name"
    with pytest.raises(IntegrityError), transaction.atomic():
        machine.save(force_insert=True)
