"""A tenant that signs another's protector id into a protector of its own learns nothing about the other's machine."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from fabric.live import _tenants_of
from fabric.models import Membership, Tenant, VirtualMachine
from kps import service as kps
from kps.core import jose
from kps.core.guardian import Guardian
from kps.core.protector import create_protector
from tests.fabric.conftest import person
from tests.kps.conftest import Host, guardian, host, protect
from tests.kps.parties import ID, STRANGER

__all__ = ["guardian", "host", "protect"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def spy(guardian: Guardian) -> User:
    """The owner of a tenant whose key has signed a protector with the victim's id."""
    tenant = Tenant.objects.create(name="Spy", slug="spy", owner_fingerprint=STRANGER.guardian.fingerprint)
    user = person("sue")
    Membership.objects.create(tenant=tenant, user=user, role=Membership.Role.OWNER)
    return user


def register(client: Client, slug: str, document: dict[str, Any]) -> Any:

    file = SimpleUploadedFile("state.0.json", jose.canonical(document))
    return client.post(f"/tenants/{slug}/machines/add/", {"name": "twin", "protector": file})


def test_the_same_protector_id_shows_nothing_of_the_others_releases(
    browse: Callable[[User | None], Client],
    tenant: Tenant,
    spy: User,
    host: Host,
    protect: Callable[..., dict[str, Any]],
    guardian: Guardian,
) -> None:
    twin = create_protector(
        STRANGER, [guardian], protector_id=ID, level="shielded", key=bytes(32), now=datetime.now(UTC)
    )
    assert register(browse(spy), "spy", twin).status_code == 302
    assert host.posts(host.asks(protect())).status_code == 200
    assert kps.releases(owner_fingerprint=tenant.owner_fingerprint).count() == 1
    page = browse(spy).get("/tenants/spy/").content.decode()
    assert "twin" in page
    assert host.machine.name not in page
    assert _tenants_of(f"protector:{ID}") == ()


def test_the_owner_sees_the_releases_of_its_own(
    browse: Callable[[User | None], Client],
    machine: VirtualMachine,
    owner: User,
    host: Host,
    protect: Callable[..., dict[str, Any]],
) -> None:
    assert host.posts(host.asks(protect())).status_code == 200
    assert host.machine.name in browse(owner).get("/tenants/brandt/").content.decode()
    assert _tenants_of(f"protector:{ID}") == (f"tenant.{machine.tenant_id}",)
