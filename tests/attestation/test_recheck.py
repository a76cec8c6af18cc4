"""Where a directory is configured, the group that a ticket names has to be the account's now, and silence is a no."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from pytest_django import Settings

from attestation import directory as room
from attestation import service, tickets
from attestation.core.base64url import from_b64u
from attestation.directory import Account, Answer, directory
from attestation.errors import HostFailing
from attestation.models import Attestation, Attester, Challenge, HealthCertificate, KerberosGroup, ModeSwitch
from ledger import service as ledger
from tests.ad import ACCOUNT_DISABLED, WORKSTATION, Domain
from tests.attestation.tickets import GROUP, Approve, refused

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("node")]


@pytest.fixture
def ask(settings: Settings) -> Iterator[Callable[..., None]]:
    """Have these controllers asked by the service's own account, or by another."""

    def configure(*urls: str, account: str = "svc-hgs") -> None:
        settings.DIRECTORY, settings.DIRECTORY_ACCOUNT = list(urls), account

    yield configure
    found = directory()
    if found is not None:
        found.close()
    room._of_this_process.cache_clear()


@pytest.fixture
def asked(domain: Domain, ask: Callable[..., None]) -> str:
    """The controller of the domain is asked; its name."""
    if not domain.has_ldap:
        pytest.skip("the directory needs port 389: root, or net.ipv4.ip_unprivileged_port_start=389")
    ask(f"ldap://{domain.address}")
    return domain.address


@pytest.fixture
def tickets_kept(tmp_path: Path) -> str:
    """Where a host keeps its tickets, as a host does that has not logged in anew."""
    return f"FILE:{tmp_path}/tickets"


@contextmanager
def out_of(domain: Domain, group: str, account: str) -> Iterator[None]:
    """Take an account out of its group for a while."""
    domain.administer("leave", group, account)
    try:
        yield
    finally:
        domain.administer("join", group, account)


def nobody() -> str:
    """Return the address of a controller that does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"ldap://127.0.0.1:{listener.getsockname()[1]}"


def codes(answer: Any) -> list[str]:
    return [finding["code"] for finding in answer.json()["findings"]]


def test_a_member_passes_and_the_record_says_who_was_asked(attest: Any, approve: Approve, asked: str) -> None:
    approve()
    answer = attest().json()
    assert (answer["status"], answer["findings"]) == ("Passed", [])
    assert answer["certificate"]
    assert Attestation.objects.get().evidence["directory"] == asked


def test_a_member_of_a_nested_group_passes(attest: Any, approve: Approve, asked: str) -> None:
    approve()
    assert attest("nested$").json()["status"] == "Passed"


def test_who_is_taken_out_of_the_group_is_refused_at_once(
    attest: Any, approve: Approve, asked: str, domain: Domain, tickets_kept: str
) -> None:
    approve()
    certificate = from_b64u(attest("mover$", cache=tickets_kept).json()["certificate"])
    with out_of(domain, GROUP, "mover$"):
        answer = attest("mover$", cache=tickets_kept)
        assert (answer.json()["status"], answer.json()["certificate"]) == ("UnauthorizedHost", None)
        assert codes(answer) == ["host_left_group"]
        with pytest.raises(HostFailing):
            service.verify_certificate(certificate, now=datetime.now(UTC))
    assert attest("mover$", cache=tickets_kept).json()["status"] == "Passed"
    assert [row.evidence["groups"] for row in Attestation.objects.order_by("id")] == [
        [domain.sids[GROUP]],
        [],
        [domain.sids[GROUP]],
    ]
    assert {row.evidence["directory"] for row in Attestation.objects.all()} == {asked}
    assert ledger.leaves(act_prefix="attestation.failed").count() == 1


def test_without_a_directory_the_ticket_counts_until_it_ends(
    attest: Any, approve: Approve, ask: Any, domain: Domain, tickets_kept: str
) -> None:
    ask()
    approve()
    attest("mover$", cache=tickets_kept)
    with out_of(domain, GROUP, "mover$"):
        assert attest("mover$", cache=tickets_kept).json()["status"] == "Passed"
    assert {row.evidence["directory"] for row in Attestation.objects.all()} == {""}


def test_who_was_taken_out_before_it_ever_came_leaves_no_host(
    attest: Any, approve: Approve, asked: str, domain: Domain, tickets_kept: str
) -> None:
    approve()
    domain.begin("mover$", cache=tickets_kept)
    with out_of(domain, GROUP, "mover$"):
        answer = attest("mover$", cache=tickets_kept)
    assert refused(answer) == (403, "unauthorized_host")
    assert "any more" in answer.json()["detail"]
    assert not Attester.objects.exists()
    assert not Challenge.objects.exists()
    assert ledger.leaves(act_prefix="ticket.refused").count() == 1


def test_who_is_out_of_one_group_and_in_another_passes_by_that(
    attest: Any, approve: Approve, asked: str, domain: Domain, tickets_kept: str
) -> None:
    approve()
    approve("Tier1 Hosts")
    attest("nested$", cache=tickets_kept)
    domain.administer("leave", GROUP, "Tier1 Hosts")
    try:
        assert attest("nested$", cache=tickets_kept).json()["status"] == "Passed"
    finally:
        domain.administer("join", GROUP, "Tier1 Hosts")
    newest = Attestation.objects.order_by("id").last()
    assert newest is not None
    assert newest.evidence["groups"] == [domain.sids["Tier1 Hosts"]]


def test_the_directory_adds_no_group_that_the_ticket_does_not_name(
    attest: Any, approve: Approve, asked: str, domain: Domain, tickets_kept: str
) -> None:
    """Both have to say it: what counts in a ticket is signed, and asking again takes a new logon alone."""
    approve()
    domain.begin("stranger$", cache=tickets_kept)
    domain.administer("join", GROUP, "stranger$")
    try:
        assert refused(attest("stranger$", cache=tickets_kept)) == (403, "unauthorized_host")
        assert attest("stranger$").json()["status"] == "Passed"
    finally:
        domain.administer("leave", GROUP, "stranger$")


def test_an_account_that_was_disabled_meanwhile_is_refused(
    attest: Any, approve: Approve, asked: str, domain: Domain, tickets_kept: str
) -> None:
    approve()
    attest("mover$", cache=tickets_kept)
    domain.administer("set-flags", "mover$", str(WORKSTATION | ACCOUNT_DISABLED))
    try:
        answer = attest("mover$", cache=tickets_kept)
    finally:
        domain.administer("set-flags", "mover$", str(WORKSTATION))
    assert (answer.json()["status"], codes(answer)) == ("UnauthorizedHost", ["account_disabled"])
    assert attest("mover$", cache=tickets_kept).json()["status"] == "Passed"


def test_an_account_that_was_deleted_meanwhile_is_refused(
    attest: Any, approve: Approve, asked: str, domain: Domain, tickets_kept: str
) -> None:
    approve()
    attest("goner$", cache=tickets_kept)
    domain.administer("delete", "goner$")
    answer = attest("goner$", cache=tickets_kept)
    assert (answer.json()["status"], codes(answer)) == ("UnauthorizedHost", ["account_gone"])


# --- silence is a no


def state() -> tuple[object, ...]:
    """What must not change while nobody knows: the host as it is shown, and everything that was recorded of it."""
    host = Attester.objects.values().get()
    counts = [model.objects.count() for model in (Attestation, Challenge, HealthCertificate)]
    return (host, *counts, ledger.leaves(act_prefix="attestation.").count())


def test_while_no_controller_answers_nobody_passes_and_nothing_else_changes(
    attest: Any, approve: Approve, ask: Any
) -> None:
    approve()
    ask()
    certificate = from_b64u(attest().json()["certificate"])
    before = state()
    ask(nobody())
    answer = attest()
    assert refused(answer) == (503, "directory_unavailable")
    assert "tries again by itself" in answer.json()["detail"]
    assert state() == before
    assert service.verify_certificate(certificate, now=datetime.now(UTC)).host == "member"
    (leaf,) = ledger.leaves(act_prefix="ticket.refused")
    assert leaf.detail["code"] == "directory_unavailable"
    ask()
    assert attest().json()["status"] == "Passed"


def test_a_host_that_nobody_knows_does_not_join_meanwhile(attest: Any, approve: Approve, ask: Any) -> None:
    approve()
    ask(nobody())
    assert refused(attest()) == (503, "directory_unavailable")
    assert not Attester.objects.exists()


@pytest.mark.parametrize("account", ["svc-other", "nobody", "Administrator"])
def test_with_another_account_than_the_services_own_nobody_passes(
    attest: Any, approve: Approve, asked: str, ask: Any, account: str
) -> None:
    approve()
    ask(f"ldap://{asked}", account=account)
    assert refused(attest()) == (503, "directory_unavailable")
    assert not Attester.objects.exists()


def test_the_next_controller_answers_for_one_that_does_not(attest: Any, approve: Approve, asked: str, ask: Any) -> None:
    approve()
    ask(nobody(), f"ldap://{asked}")
    assert attest().json()["status"] == "Passed"
    assert Attestation.objects.get().evidence["directory"] == asked


def test_the_directory_is_not_asked_of_whom_the_ticket_lets_not_in(attest: Any, approve: Approve, ask: Any) -> None:
    """Otherwise every machine of the domain could have it asked."""
    ask(nobody())
    assert refused(attest("stranger$")) == (403, "unauthorized_host")
    assert refused(attest("alice")) == (403, "not_a_machine")
    assert refused(attest()) == (403, "unauthorized_host")
    approve()
    assert refused(attest()) == (503, "directory_unavailable")


def test_a_trial_in_another_mode_asks_as_well(attest: Any, approve: Approve, ask: Any) -> None:
    approve()
    ModeSwitch.objects.create(mode="tpm", since=datetime.now(UTC), by="system", reason="a test")
    ask(nobody())
    assert refused(attest()) == (503, "directory_unavailable")


def test_retiring_a_group_counts_whatever_the_directory_says(
    attest: Any, approve: Approve, asked: str, admin: User
) -> None:
    group = approve()
    attest()
    service.retire_kerberos_group(group.id, by=admin, reason="the racks are gone", now=datetime.now(UTC))
    answer = attest()
    assert (answer.json()["status"], codes(answer)) == ("UnauthorizedHost", ["host_in_no_group"])


# --- what waits for it


def test_no_transaction_waits_for_the_directory(
    attest: Any, approve: Approve, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, around = [], list(connection.savepoint_ids)

    class Watching:
        def ask(self, sid: str) -> Answer:
            seen.append((sid, list(connection.savepoint_ids)))
            return Answer(
                "dc9.fabric.test", Account(True, frozenset(KerberosGroup.objects.values_list("sid", flat=True)))
            )

    approve()
    monkeypatch.setattr(tickets, "directory", Watching)
    assert attest().json()["status"] == "Passed"
    assert attest().json()["status"] == "Passed"
    assert seen == [(domain.sids["member$"], around)] * 2


def test_settings_make_the_directory(settings: Settings) -> None:
    settings.DIRECTORY = []
    assert directory() is None
    settings.DIRECTORY = ["ldap://dc1.fabric.test", "ldap://DC2.fabric.test:3890"]
    made = directory()
    assert made is directory()  # one for the process, so that connections serve more than one request
    assert made is not None
    assert [(each.name, each.port) for each in made._controllers] == [
        ("dc1.fabric.test", 389),
        ("dc2.fabric.test", 3890),
    ]
