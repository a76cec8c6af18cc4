"""Stops on pages: what they mean is said before, and two persons lift them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import Client

from attestation import service
from attestation.errors import DeniedBefore
from fabric import stopping
from fabric.models import VirtualMachine
from kps import service as kps
from kps.core.release_policy import Offline, ReleasePolicy
from kps.models import KeyRelease
from tests.attestation.conftest import Portal
from tests.fabric.conftest import PASSWORD
from tests.kps.conftest import Host, guardian, host, protect, second, twin
from tests.kps.parties import STRANGER
from tests.machines import Machine

__all__ = ["guardian", "host", "protect", "second", "twin"]

Browse = Callable[[User | None], Client]


def test_a_lift_is_decided_on_its_page(fabric: Portal, browse: Browse, admin: User, approver: User) -> None:
    now = datetime.now(UTC)
    stop = service.stop_fabric(by=admin, reason="a key has leaked", now=now)
    proposal = service.propose_lift(stop.pk, by=admin, reason="the key is changed", now=now)
    client = browse(approver)
    page = client.get(f"/proposals/{proposal.pk}/").content.decode()
    assert "Lift the stop of the whole fabric" in page
    assert "a key has leaked" in page
    assert "the whole fabric" in client.get("/proposals/").content.decode()
    assert "ada wants to lift the stop of the whole fabric" in client.get("/audit/").content.decode()


WORDS = {"reason": "a key has leaked", "password": PASSWORD}


def test_what_a_stop_would_reach_is_said_before_and_its_name_is_typed(
    fleet: Portal, browse: Browse, admin: User, approver: User, healthy: Machine
) -> None:
    client = browse(admin)
    page = client.get("/stops/fabric/").content.decode()
    for words in (
        "2 approved hosts, of which 1 holds a certificate",
        "No VM runs there as far as this fabric knows",
        "A VM that runs goes on",
        "No host there has an offline allowance",
    ):
        assert words in page
    for wrong in ({"name": "demon"}, {"password": "wrong"}, {"reason": "short"}, {"name": ""}):
        client.post("/stops/fabric/", {**WORDS, "name": "demo", **wrong})
    assert not service.stops_in_force()
    assert client.post("/stops/fabric/", {**WORDS, "name": "demo"}).status_code == 302
    assert "This fabric releases no keys since" in browse(approver).get("/hosts/").content.decode()
    assert "stopped already" in client.post("/stops/fabric/", {**WORDS, "name": "demo"}, follow=True).content.decode()
    client.post(f"/stops/hosts/{healthy.attester}/", {**WORDS, "name": "nbg-a01"})
    client.post("/stops/groups/default/", {**WORDS, "name": "Default"})
    page = client.get("/stops/").content.decode()
    for words in ("host nbg-a01", "the group Default", "the whole fabric"):
        assert f"<b>{words}</b>" in page


def reached(host: Host) -> stopping.Impact:
    now = datetime.now(UTC)
    return stopping.impact_of(stopping.scope_of("host", host.machine.attester, now=now), now=now)


def test_a_stop_s_impact_counts_by_who_holds_the_key_now(
    host: Host, second: Host, protect: Callable[..., dict[str, Any]], browse: Browse, admin: User
) -> None:
    """Also VMs that nobody has registered here, and owners that are no tenants."""
    rolled = host.starts(host.starts(protect())["key_protector"])["key_protector"]  # what it returns takes both back
    assert (reached(host).running, reached(host).owners, reached(second).running) == (1, 1, 0)
    second.starts(rolled)
    assert [reached(each).running for each in (host, second)] == [1, 1], "both hold it until one says that it stopped"
    host.gives_back()
    assert [reached(each).running for each in (host, second)] == [0, 1]
    host.starts(protect(owner=STRANGER))
    now = datetime.now(UTC)
    whole = stopping.impact_of(stopping.scope_of("fabric", "", now=now), now=now)
    assert (whole.hosts, whole.certified, whole.running, whole.owners, whole.offline) == (2, 2, 2, 2, 0)
    page = browse(admin).get("/stops/fabric/").content.decode()
    assert "2 VMs of 2 owners run there as far as this fabric knows" in page
    later = now + timedelta(hours=9)
    assert stopping.impact_of(stopping.scope_of("fabric", "", now=later), now=later).running == 0, "certificates lapsed"


def test_a_stop_s_impact_says_what_can_start_without_the_fabric_and_until_when(
    host: Host, protect: Callable[..., dict[str, Any]], browse: Browse, admin: User
) -> None:
    host.starts(protect(policy=ReleasePolicy(offline=Offline(starts=2, hours=4))))
    allowed = kps.releases()[0]
    assert (reached(host).offline, reached(host).offline_until) == (1, allowed.offline_until)
    host.gives_back()
    assert (reached(host).running, reached(host).offline) == (0, 1), "a VM that has stopped can be started again there"
    page = browse(admin).get(f"/stops/hosts/{host.machine.attester}/").content.decode()
    assert "1 VM can still be started there while the host does not reach this fabric" in page
    started = int(datetime.now(UTC).timestamp()) - 60
    host.tells(started)
    assert reached(host).offline == 1
    host.tells(started, started + 1)
    assert reached(host).offline == 0, "used up"
    over = datetime.now(UTC) + timedelta(hours=5)
    assert not kps.keys_on([allowed.attester_id], now=over)


def test_a_later_release_takes_the_place_of_an_allowance(
    host: Host, protect: Callable[..., dict[str, Any]], machine: VirtualMachine
) -> None:
    host.starts(protect(policy=ReleasePolicy(offline=Offline(starts=2, hours=4))))
    assert reached(host).offline == 1
    with transaction.atomic():
        without = {"offline_starts": None, "offline_until": None}
        newest = kps.releases()[0]
        KeyRelease.objects.create(
            **{field.name: getattr(newest, field.name) for field in KeyRelease._meta.fields if field.name != "id"}
            | without
            | {"nonce_sha256": "0" * 64}
        )
    assert (reached(host).running, reached(host).offline) == (1, 0)
    assert [each.offline_until for each in kps.places_of([machine.key], now=datetime.now(UTC))[machine.key]] == [None]


def test_a_stop_is_put_forward_for_a_lift_and_lifted_by_another(
    fleet: Portal, browse: Browse, admin: User, approver: User
) -> None:
    stop = service.stop_fabric(by=admin, reason="a key has leaked", now=datetime.now(UTC))
    first, second = browse(admin), browse(approver)
    assert first.post(f"/stops/{stop.pk}/lift/", {**WORDS, "password": "wrong"}).status_code == 200
    target = first.post(f"/stops/{stop.pk}/lift/", WORDS)["Location"]
    first.post(target, {**WORDS, "decision": "approve"})
    assert service.stops_in_force().count() == 1
    assert second.post(target, {**WORDS, "decision": "approve"}).status_code == 302
    assert not service.stops_in_force()
    assert "releases no keys" not in second.get("/hosts/").content.decode()
    for gone in (f"/stops/{stop.pk}/lift/", "/stops/groups/nowhere/", f"/stops/hosts/{stop.pk:032x}/"):
        assert first.get(gone).status_code == 404


# --- one thing alone ---------------------------------------------------------------------------------------------


def test_certificates_are_denied_by_when_they_were_issued(
    fleet: Portal, browse: Browse, admin: User, healthy: Machine
) -> None:
    client, now = browse(admin), datetime.now(UTC)
    assert "1 host holds a certificate" in client.get("/certificates/deny/").content.decode()
    certificate = bytes(service.certificates(UUID(healthy.attester))[0].der)

    def deny(before: datetime | str) -> int:
        said = before if isinstance(before, str) else f"{before:%Y-%m-%dT%H:%M:%S}"
        return client.post("/certificates/deny/", {**WORDS, "name": "demo", "before": said}).status_code

    assert deny(now - timedelta(hours=1)) == 302
    assert service.verify_certificate(certificate, now=now).host == healthy.name, "it was issued since"
    assert deny("yesterday") == 200
    assert deny(now + timedelta(hours=1)) != 302, "what does not exist yet is not denied"
    assert service.verify_certificate(certificate, now=now).host == healthy.name
    assert deny("") == 302
    with pytest.raises(DeniedBefore):
        service.verify_certificate(certificate, now=datetime.now(UTC))


# --- from a console ----------------------------------------------------------------------------------------------


def console(*words: str) -> str:
    out = StringIO()
    call_command("stop", *words, stdout=out)
    return out.getvalue()


def test_the_console_says_what_a_stop_reaches_and_stops_and_lifts_as_persons_do(
    host: Host, protect: Callable[..., dict[str, Any]], admin: User, approver: User
) -> None:
    rolled = host.starts(protect(policy=ReleasePolicy(offline=Offline(starts=2, hours=4))))["key_protector"]
    ada, ben = (("--by", name, "--reason", "a key has leaked") for name in ("ada", "ben"))
    tried = console("host", host.machine.attester, *ada, "--dry-run")
    for words in (
        "host nbg-a01: 1 approved hosts, 1 with",
        "go on: 1, of 1 owners",
        "all the same: 1, until",
        "nothing",
    ):
        assert words in tried
    assert not service.stops_in_force()
    assert "no key goes to the whole fabric" in console("fabric", *ada, "--yes")
    assert host.starts(rolled)["code"] == "releases_stopped"
    stop = service.stops_in_force().get()
    assert f"stop {stop.pk}: the whole fabric" in console("show")
    for refusal in (
        ("group", "nowhere", *ben, "--yes"),
        ("host", str(UUID(int=7)), *ben, "--yes"),
        ("fabric", *ada, "--yes"),
        ("group", "default", "--by", "nemo", "--reason", "a key has leaked", "--yes"),
        ("lift", "99", *ada),
    ):
        with pytest.raises(CommandError):
            console(*refusal)
    number = console("lift", str(stop.pk), *ada).split()[1].rstrip(":")
    with pytest.raises(CommandError, match="not_allowed"):
        console("decide", number, *ada)
    assert console("decide", number, *ben) == ""
    assert "wrapped_keys" in host.starts(rolled)


def test_the_console_stops_nothing_before_somebody_has_said_yes(
    fabric: Portal, admin: User, auditor: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, eve = (("--by", name, "--reason", "a key has leaked") for name in ("ada", "eve"))
    monkeypatch.setattr("sys.stdin", StringIO("no\n"))
    with pytest.raises(CommandError, match="Nothing was done"):
        console("fabric", *ada)
    with pytest.raises(CommandError, match="not_allowed"):
        console("fabric", *eve, "--yes")
    assert not service.stops_in_force()
