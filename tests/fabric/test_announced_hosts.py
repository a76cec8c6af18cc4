"""A host can be announced before it comes; that approves nothing, and its page says so once it has enrolled."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from attestation.core.tpm import parse_public
from attestation.models import Attester, ExpectedHost
from ledger import service as ledger
from tests.attestation.conftest import Portal
from tests.fabric.conftest import REASON
from tests.machines import Machine

Browse = Callable[[User | None], Client]
NAMESPACE = "http://microsoft.com/windows/ptp/platformidentifier/2016/04"


def identifier(machine: Machine, name: str = "rack 7, place 12") -> bytes:
    key = b64encode(parse_public(machine.ek.public).spki).decode()
    body = f"<ForeignKey>{name}</ForeignKey><EKPub>{key}</EKPub>"
    return f'<PlatformIdentifiers xmlns="{NAMESPACE}">{body}</PlatformIdentifiers>'.encode()


def announce(client: Client, content: bytes) -> Any:
    upload = SimpleUploadedFile("host.xml", content, content_type="application/xml")
    return client.post("/hosts/announce/", {"identifier": upload, "reason": REASON})


def test_an_announced_host_is_known_when_it_enrols(
    portal: Portal, healthy: Machine, admin: User, approver: User, browse: Browse
) -> None:
    assert announce(browse(admin), identifier(healthy)).status_code == 302
    assert "Not seen yet" in browse(admin).get("/hosts/announce/").content.decode()
    portal.enrol(healthy)
    page = browse(approver).get(f"/hosts/{healthy.attester}/").content.decode()
    assert "rack 7, place 12" in page
    assert "Enrolled" in browse(admin).get("/hosts/announce/").content.decode()
    assert [leaf.actor for leaf in ledger.leaves(act_prefix="host.announced")] == ["user:ada"]


def test_an_announcement_approves_nothing(portal: Portal, healthy: Machine, admin: User, browse: Browse) -> None:
    announce(browse(admin), identifier(healthy))
    assert portal.enrol(healthy).json()["state"] == "pending"
    assert Attester.objects.get(pk=healthy.attester).state == "pending"


def test_a_host_that_nobody_announced_says_nothing(
    portal: Portal, healthy: Machine, foreign: Machine, admin: User, browse: Browse
) -> None:
    announce(browse(admin), identifier(foreign))
    portal.enrol(healthy)
    assert "rack 7" not in browse(admin).get(f"/hosts/{healthy.attester}/").content.decode()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html/>", id="something else"),
        pytest.param(b"\0" * 100, id="no text"),
        pytest.param(b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', id="entities"),
        pytest.param(b"<" * (1 << 20) + b"<", id="too large"),
    ],
)
def test_what_is_no_platform_identifier_is_refused(admin: User, browse: Browse, content: bytes) -> None:
    answer = announce(browse(admin), content)
    assert answer.status_code in (200, 400, 413)
    assert not ExpectedHost.objects.exists()
    assert not ledger.leaves(act_prefix="host.announced").exists()


def test_a_host_is_announced_once(healthy: Machine, admin: User, browse: Browse) -> None:
    announce(browse(admin), identifier(healthy))
    assert announce(browse(admin), identifier(healthy, "another name")).status_code == 409
    assert ExpectedHost.objects.get().name == "rack 7, place 12"
