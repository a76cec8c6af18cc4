"""Switching the attestation mode: rehearsed, decided by two, staged, taken back."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction

from attestation import service
from attestation.errors import AlreadyDecided, CannotSwitch, CertificateRefused, FourEyes, NotAllowed
from attestation.models import Attestation, Mode, ModeSwitch
from ledger import service as ledger
from tests.attestation.conftest import Portal, approve_host, person
from tests.attestation.test_host_keys import KeyHost, approve
from tests.machines import Machine

pytestmark = pytest.mark.django_db
HOURS = timedelta(hours=8)
Switch = Callable[..., ModeSwitch]


@pytest.fixture
def key_host(fabric: Portal, healthy: Machine) -> KeyHost:
    """The healthy host's other identity: a key under the same name, registered and not approved."""
    host = KeyHost(fabric, healthy.name, ec.generate_private_key(ec.SECP256R1()))
    host.register()
    return host


@pytest.fixture
def switch(admin: User, approver: User) -> Switch:
    def to(mode: Mode, grace: timedelta = HOURS, now: datetime | None = None) -> ModeSwitch:
        now = now or datetime.now(UTC)
        proposal = service.propose_switch(mode, grace=grace, by=admin, reason="a drill", now=now)
        service.decide(proposal.id, by=approver, approve=True, reason="rehearsed", now=now)
        return ModeSwitch.objects.all()[0]

    return to


def why(mode: Mode = Mode.HOST_KEY, after: timedelta = timedelta()) -> str:
    (row,) = service.rehearsal(mode, now=datetime.now(UTC) + after)
    assert row.ready == (row.why == "")
    return row.why


def test_a_rehearsal_says_of_each_host_what_is_missing(
    fabric: Portal, healthy: Machine, admin: User, approver: User
) -> None:
    assert "No host of this name is known in Host key mode" in why()
    host = KeyHost(fabric, healthy.name, ec.generate_private_key(ec.SECP256R1()))
    host.register()
    assert "nobody has approved that" in why()
    approve(host, admin, approver)
    assert "has not tried Host key mode within a day" in why()
    host.attest()
    assert why() == ""
    assert "has not tried" in why(after=timedelta(days=2))


def test_a_rehearsal_repeats_what_a_trial_had_found(
    fabric: Portal, drifted: Machine, admin: User, approver: User, switch: Switch
) -> None:
    approve_host(fabric, drifted, admin, approver)
    host = KeyHost(fabric, drifted.name, ec.generate_private_key(ec.SECP256R1()))
    host.register()
    approve(host, admin, approver)
    switch(Mode.HOST_KEY)
    host.attest()
    fabric.attest(drifted)
    rows = {row.known.name: row for row in service.rehearsal(Mode.TPM, now=datetime.now(UTC))}
    row = rows[drifted.name]
    assert (row.ready, row.loses) == (False, True)
    assert "It tried and did not pass: The kernel command line differs" in row.why


def test_a_host_that_only_the_other_mode_knows_would_come_in(fabric: Portal, healthy: Machine, switch: Switch) -> None:
    fabric.attest(healthy)
    switch(Mode.HOST_KEY)
    (row,) = service.rehearsal(Mode.TPM, now=datetime.now(UTC))
    assert (row.host, row.ready, row.loses) == (None, True, False)


def test_hosts_of_the_mode_in_force_are_rehearsed_for_the_other(
    key_host: KeyHost, fabric: Portal, healthy: Machine, admin: User, approver: User, switch: Switch
) -> None:
    approve(key_host, admin, approver)
    fabric.attest(healthy)
    switch(Mode.HOST_KEY)
    assert key_host.attest().json()["certificate"]
    assert why(Mode.TPM) == ""  # it had passed by its TPM a moment ago
    assert fabric.attest(healthy).json()["certificate"] is None


def test_a_switch_is_put_forward_with_what_it_would_do_and_decided_by_another(
    fabric: Portal, healthy: Machine, admin: User, approver: User
) -> None:
    fabric.attest(healthy)
    now = datetime.now(UTC)
    proposal = service.propose_switch(Mode.HOST_KEY, grace=HOURS, by=admin, reason="a drill", now=now)
    assert proposal.plan is not None
    assert proposal.plan.impact == {"ready": 0, "unready": 1, "losing": 1, "names": [healthy.name]}
    assert service.mode_in_force() == "tpm"
    with pytest.raises(FourEyes):
        service.decide(proposal.id, by=admin, approve=True, reason="mine", now=now)
    service.decide(proposal.id, by=approver, approve=False, reason="not today", now=now)
    assert service.mode_in_force() == "tpm"
    acts = [leaf.act for leaf in ledger.leaves(act_prefix="mode.")]
    assert acts == ["mode.rejected", "mode.proposed"]


def test_only_those_whose_role_it_is_switch_the_mode(fabric: Portal, admin: User) -> None:
    auditor, now = person("cleo"), datetime.now(UTC)
    with pytest.raises(NotAllowed):
        service.propose_switch(Mode.HOST_KEY, grace=HOURS, by=auditor, reason="why not", now=now)
    proposal = service.propose_switch(Mode.HOST_KEY, grace=HOURS, by=admin, reason="a drill", now=now)
    with pytest.raises(NotAllowed):
        service.decide(proposal.id, by=auditor, approve=True, reason="why not", now=now)
    with pytest.raises(NotAllowed):
        service.roll_back(by=auditor, reason="why not", now=now)
    assert service.mode_in_force() == "tpm"


@pytest.mark.parametrize("grace", [timedelta(seconds=-1), timedelta(days=8)])
def test_a_grace_has_bounds(fabric: Portal, admin: User, grace: timedelta) -> None:
    with pytest.raises(CannotSwitch):
        service.propose_switch(Mode.HOST_KEY, grace=grace, by=admin, reason="a drill", now=datetime.now(UTC))


def test_the_mode_in_force_is_not_switched_to(fabric: Portal, admin: User) -> None:
    with pytest.raises(CannotSwitch):
        service.propose_switch(Mode.TPM, grace=HOURS, by=admin, reason="a drill", now=datetime.now(UTC))


def test_one_switch_waits_at_a_time(fabric: Portal, admin: User) -> None:
    now = datetime.now(UTC)
    service.propose_switch(Mode.HOST_KEY, grace=HOURS, by=admin, reason="a drill", now=now)
    with pytest.raises(AlreadyDecided):
        service.propose_switch(Mode.KERBEROS, grace=HOURS, by=admin, reason="a drill", now=now)


def certificate_of(healthy: Machine) -> bytes:
    newest = service.live_certificate(UUID(healthy.attester), now=datetime.now(UTC))
    assert newest is not None
    return bytes(newest.der)


def test_certificates_of_the_mode_before_count_until_their_time_is_up(
    fabric: Portal, healthy: Machine, switch: Switch
) -> None:
    fabric.attest(healthy)
    certificate, now = certificate_of(healthy), datetime.now(UTC)
    switch(Mode.HOST_KEY, grace=timedelta(hours=1))
    assert service.verify_certificate(certificate, now=now + timedelta(minutes=59)).mode == "tpm"
    with pytest.raises(CertificateRefused) as refused:
        service.verify_certificate(certificate, now=now + timedelta(minutes=61))
    assert refused.value.code == "mode_changed"


def test_a_switch_without_grace_cuts_off_at_once(fabric: Portal, healthy: Machine, switch: Switch) -> None:
    fabric.attest(healthy)
    certificate = certificate_of(healthy)
    switch(Mode.HOST_KEY, grace=timedelta())
    with pytest.raises(CertificateRefused):
        service.verify_certificate(certificate, now=datetime.now(UTC))


def test_after_the_switch_the_old_mode_is_a_trial_only(fabric: Portal, healthy: Machine, switch: Switch) -> None:
    switch(Mode.HOST_KEY)
    answer = fabric.attest(healthy).json()
    assert (answer["status"], answer["certificate"]) == ("Passed", None)
    assert fabric.get("info").json()["mode"] == "hostkey"
    assert Attestation.objects.all()[0].mode == "tpm"


def test_a_switch_is_taken_back_in_one_act(fabric: Portal, healthy: Machine, approver: User, switch: Switch) -> None:
    fabric.attest(healthy)
    certificate, now = certificate_of(healthy), datetime.now(UTC)
    switch(Mode.HOST_KEY, grace=timedelta())
    back = service.roll_back(by=approver, reason="hosts fail", now=now)
    assert (back.mode, service.mode_in_force()) == ("tpm", "tpm")
    assert service.verify_certificate(certificate, now=now).mode == "tpm"
    assert ledger.leaves(act_prefix="mode.rolled_back").count() == 1


def test_one_person_weakens_nothing_but_what_still_counts_anyway(
    fabric: Portal, approver: User, switch: Switch
) -> None:
    now = datetime.now(UTC)
    switch(Mode.HOST_KEY)
    switch(Mode.TPM, grace=timedelta(hours=1))
    with pytest.raises(CannotSwitch):
        service.roll_back(by=approver, reason="too late", now=now + timedelta(hours=2))
    assert service.roll_back(by=approver, reason="in time", now=now + timedelta(minutes=30)).mode == "hostkey"


def test_the_first_mode_of_a_fabric_has_nothing_before_it(fabric: Portal, approver: User) -> None:
    with pytest.raises(CannotSwitch):
        service.roll_back(by=approver, reason="where to", now=datetime.now(UTC))


@pytest.mark.parametrize(
    ("mode", "than", "weaker"),
    [("tpm", "kerberos", False), ("hostkey", "tpm", True), ("kerberos", "hostkey", True), ("tpm", "tpm", False)],
)
def test_a_mode_that_proves_less_is_weaker(mode: str, than: str, weaker: bool) -> None:
    assert service.weakens(mode, than) == weaker


@pytest.mark.parametrize(
    "statement", ["UPDATE attestation_modeswitch SET mode = mode", "DELETE FROM attestation_modeswitch"]
)
def test_the_history_of_modes_cannot_be_changed(db: None, statement: str) -> None:
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


def test_the_fleet_counts_hosts_of_the_mode_in_force(
    key_host: KeyHost, fabric: Portal, healthy: Machine, admin: User, approver: User
) -> None:
    approve(key_host, admin, approver)
    key_host.attest()
    fabric.attest(healthy)
    assert service.status_counts(now=datetime.now(UTC)) == {"Passed": 1, "NotInForce": 1}
    assert service.failing(now=datetime.now(UTC)) == []


def test_approving_a_key_leaves_the_tpm_of_that_name_alone(
    key_host: KeyHost, fabric: Portal, healthy: Machine, drifted: Machine, admin: User, approver: User
) -> None:
    approve(key_host, admin, approver)
    approve_host(fabric, drifted, admin, approver)
    assert fabric.attest(healthy).json()["status"] == "Passed"


def console(*words: str) -> str:
    out = StringIO()
    call_command("mode", *words, stdout=out)
    return out.getvalue()


def test_the_console_does_what_the_pages_do(fabric: Portal, healthy: Machine, admin: User, approver: User) -> None:
    fabric.attest(healthy)
    assert console("show").startswith("tpm  since")
    assert f"{healthy.name}  would lose  No host of this name" in console("rehearse", "hostkey")
    assert json.loads(console("rehearse", "hostkey", "--json"))["losing"] == 1
    said = console("propose", "hostkey", "--by", "ada", "--reason", "a drill", "--grace-hours", "1")
    number = said.split()[1].rstrip(":")
    with pytest.raises(CommandError, match="four_eyes"):
        console("decide", number, "--by", "ada", "--reason", "mine")
    assert console("decide", number, "--by", "ben", "--reason", "rehearsed") == "the fabric is in hostkey mode\n"
    assert "tpm until" in console("show").splitlines()[0]
    assert console("back", "--by", "ben", "--reason", "hosts fail") == "the fabric is in tpm mode\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("propose", "hostkey", "--by", "nobody", "--reason", "x"), "There is no person nobody"),
        (("propose", "hostkey", "--by", "cleo", "--reason", "x"), "not_allowed"),
        (("propose", "tpm", "--by", "ada", "--reason", "x"), "cannot_switch"),
        (("propose", "hostkey", "--by", "ada", "--reason", "x", "--grace-hours", "999"), "cannot_switch"),
        (("decide", "99999", "--by", "ben", "--reason", "x"), "not_found"),
        (("back", "--by", "ben", "--reason", "x"), "cannot_switch"),
        (("back", "--by", "cleo", "--reason", "x"), "not_allowed"),
    ],
)
def test_the_console_gives_nobody_more_than_their_role(
    fabric: Portal, admin: User, approver: User, words: tuple[str, ...], said: str
) -> None:
    person("cleo")
    with pytest.raises(CommandError, match=said):
        console(*words)
    assert service.mode_in_force() == "tpm"


def test_the_console_decides_switches_only(fabric: Portal, healthy: Machine, admin: User, approver: User) -> None:
    other = service.proposals().filter(plan=None)[0]
    with pytest.raises(CommandError, match="about no switch"):
        console("decide", str(other.pk), "--by", "ben", "--reason", "x")
