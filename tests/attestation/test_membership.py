"""Kerberos mode: members of an approved group of the directory are hosts, and nobody else is."""

import base64
import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import DatabaseError, transaction
from django.forms.models import model_to_dict
from gssapi.raw.misc import GSSError
from hypothesis import HealthCheck, given
from hypothesis import settings as few
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import RSAKey
from pytest_django import Settings

from attestation import service
from attestation.core.base64url import from_b64u, to_b64u
from attestation.core.handover import ALGORITHMS
from attestation.errors import (
    AlreadyDecided,
    CannotApprove,
    CertificateRefused,
    FourEyes,
    GroupWithdrawn,
    HostFailing,
    NotAllowed,
    NotFound,
)
from attestation.models import (
    Attestation,
    Attester,
    Challenge,
    HealthCertificate,
    KerberosGroup,
    Mode,
    ModeSwitch,
    Proposal,
    Trial,
)
from ledger import service as ledger
from tests.ad import Domain
from tests.attestation.conftest import person
from tests.attestation.keys import TRANSPORT, spki
from tests.attestation.tickets import ASKED, GROUP, Approve, refused, send
from tests.kdc import KERBEROS, REALM, Realm

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("node")]
TRIED = json.dumps({"transport_key": to_b64u(spki(TRANSPORT)), "trial": True}).encode()


def test_a_member_passes_and_gets_a_certificate(attest: Any, approve: Approve, domain: Domain) -> None:
    approve()
    answer = attest().json()
    assert (answer["status"], answer["findings"]) == ("Passed", [])
    secret = jwe.decrypt_compact(answer["release_secret"], RSAKey.import_key(TRANSPORT), algorithms=list(ALGORITHMS))
    statement = service.verify_certificate(from_b64u(answer["certificate"]), now=datetime.now(UTC))
    assert secret.plaintext == service.release_secret(statement.serial)
    assert (statement.host, statement.mode, statement.transport_spki) == ("member", "kerberos", spki(TRANSPORT))
    host = Attester.objects.get()
    assert (host.mode, host.identity, host.state) == ("kerberos", domain.sids["member$"], "approved")
    assert host.decided_by == f"membership of {GROUP}"
    kept = Attestation.objects.get()
    assert kept.evidence == {
        "account": f"member$@{REALM}",
        "sid": domain.sids["member$"],
        "groups": [domain.sids[GROUP]],
        "directory": "",
    }
    assert ledger.leaves(act_prefix="host.joined").count() == 1
    assert ledger.leaves(act_prefix="attestation.passed").count() == 1


def test_a_member_of_a_nested_group_passes(attest: Any, approve: Approve) -> None:
    approve()
    assert attest("nested$").json()["status"] == "Passed"


def test_a_host_has_one_row_however_often_it_attests(attest: Any, approve: Approve) -> None:
    approve()
    attest()
    attest()
    assert (Attester.objects.count(), Attestation.objects.count(), HealthCertificate.objects.count()) == (1, 2, 2)
    assert Challenge.objects.filter(spent_at=None).count() == 0


@pytest.mark.parametrize("account", ["stranger$", "member$"])
def test_whoever_is_in_no_approved_group_leaves_no_host(attest: Any, approve: Approve, account: str) -> None:
    approve("Tier1 Hosts")
    assert refused(attest(account)) == (403, "unauthorized_host")
    assert not Attester.objects.exists()
    assert not Challenge.objects.exists()
    assert ledger.leaves(act_prefix="ticket.refused").count() == 1


def test_nobody_passes_while_no_group_is_approved(attest: Any, domain: Domain, admin: User) -> None:
    assert refused(attest()) == (403, "unauthorized_host")
    service.propose_kerberos_group(domain.sids[GROUP], GROUP, by=admin, reason="ours", now=datetime.now(UTC))
    assert refused(attest()) == (403, "unauthorized_host")


def test_a_user_of_the_group_is_refused(attest: Any, approve: Approve) -> None:
    approve()
    assert refused(attest("alice")) == (403, "not_a_machine")
    assert not Attester.objects.exists()


def test_another_node_takes_a_ticket_once_more_for_that_very_request_and_its_key(
    domain: Domain, approve: Approve, settings: Settings, tmp_path: Path
) -> None:
    """Nodes share no replay cache; what that is worth is bounded by what the ticket is bound to (docs/modes.md)."""
    approve()
    _, token = domain.begin("member$", body=ASKED)
    header = f"Negotiate {base64.b64encode(token).decode()}"
    first = send(header).json()
    settings.KERBEROS_REPLAY_CACHE = tmp_path / "of another node"
    again = send(header).json()
    for answer in (first, again):
        statement = service.verify_certificate(from_b64u(answer["certificate"]), now=datetime.now(UTC))
        assert statement.transport_spki == spki(TRANSPORT)
    assert first["release_secret"] != again["release_secret"]
    assert send(header).status_code == 401
    settings.KERBEROS_REPLAY_CACHE = tmp_path / "of a third"
    assert refused(send(header, TRIED)) == (401, "ticket_not_bound")
    assert Attestation.objects.count() == ledger.leaves(act_prefix="attestation.passed").count() == 2


@pytest.mark.parametrize("end", ["group", "host"])
def test_what_people_end_is_over_on_every_node(
    domain: Domain, approve: Approve, settings: Settings, tmp_path: Path, admin: User, end: str
) -> None:
    group = approve()
    _, token = domain.begin("member$", body=ASKED)
    header = f"Negotiate {base64.b64encode(token).decode()}"
    certificate = from_b64u(send(header).json()["certificate"])
    now = datetime.now(UTC)
    if end == "group":
        service.retire_kerberos_group(group.id, by=admin, reason="over", now=now)
    else:
        service.revoke_host(Attester.objects.get().id, by=admin, reason="stolen", now=now)
    settings.KERBEROS_REPLAY_CACHE = tmp_path / "of another node"
    assert send(header).json().get("certificate") is None
    with pytest.raises(CertificateRefused):
        service.verify_certificate(certificate, now=now)


REFUSED = {"stranger$": "unauthorized_host", "alice": "not_a_machine", "member$": "malformed"}


@pytest.mark.parametrize(("account", "code"), REFUSED.items(), ids=REFUSED)
def test_whoever_is_refused_by_a_good_ticket_can_tell_by_whom(
    domain: Domain, approve: Approve, account: str, code: str
) -> None:
    """RFC 4559, section 5: without the reply token, whoever stands in between could say the same."""
    approve()
    body = ASKED if account != "member$" else b'{"transport_key": "AAAA"}'
    context, token = domain.begin(account, body=body)
    other, _ = domain.begin(account, body=body)
    answer = send(f"Negotiate {base64.b64encode(token).decode()}", body)
    assert refused(answer)[1] == code
    proof = base64.b64decode(answer["WWW-Authenticate"].removeprefix("Negotiate "))
    other.__DEFER_STEP_ERRORS__ = False  # type: ignore[attr-defined]  # not in its stubs
    with pytest.raises(GSSError):
        other.step(proof)
    context.step(proof)
    assert context.complete
    assert not Attester.objects.exists()


def test_a_service_that_acts_for_a_host_is_told_by_whom_it_is_refused(domain: Domain, approve: Approve) -> None:
    approve()
    context, token = domain.begin(domain.acting_for("member$"), body=ASKED, mech=KERBEROS)
    answer = send(f"Negotiate {base64.b64encode(token).decode()}")
    assert refused(answer) == (403, "ticket_delegated")
    context.step(base64.b64decode(answer["WWW-Authenticate"].removeprefix("Negotiate ")))
    assert context.complete


def test_a_ticket_that_is_not_accepted_gets_no_proof(domain: Domain, approve: Approve) -> None:
    """Only whoever has opened the ticket can make one, and what is not accepted is nobody's."""
    approve()
    _, unbound = domain.begin("member$", body=None)
    _, other = domain.begin("member$", service="other", body=ASKED)
    _, spent = domain.begin("member$", body=ASKED)
    send(f"Negotiate {base64.b64encode(spent).decode()}")
    for token in (unbound, other, spent):
        answer = send(f"Negotiate {base64.b64encode(token).decode()}")
        assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Negotiate")


def test_a_machine_whose_kdc_is_no_directory_is_refused(
    no_directory: Realm, settings: Settings, approve: Approve
) -> None:
    """A realm of the domain's name and a machine of a member's name: without the KDC's word for groups it is nobody."""
    approve()
    settings.KERBEROS_KEYTAB = str(no_directory.keytab("hgs"))
    context, token = no_directory.begin("member$", body=ASKED)
    answer = send(f"Negotiate {base64.b64encode(token).decode()}")
    assert refused(answer) == (403, "groups_not_proven")
    context.step(base64.b64decode(answer["WWW-Authenticate"].removeprefix("Negotiate ")))
    assert context.complete
    assert [model.objects.count() for model in (Attester, Attestation, Challenge, HealthCertificate)] == [0, 0, 0, 0]
    (leaf,) = ledger.leaves(act_prefix="ticket.refused")
    assert leaf.detail["code"] == "groups_not_proven"


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="nothing"),
        pytest.param("Negotiate", id="no token"),
        pytest.param("Negotiate AAAA", id="no ticket"),
        pytest.param("Basic bWVtYmVyOng=", id="a password"),
        pytest.param("Bearer AAAA", id="another token"),
    ],
)
def test_a_stranger_is_told_how_to_authenticate(approve: Approve, authorization: str | None) -> None:
    approve()
    answer = send(authorization)
    assert refused(answer) == (401, "ticket_refused")
    assert answer["WWW-Authenticate"] == "Negotiate"
    assert not Attester.objects.exists()


def test_a_replay_is_refused_and_leaves_a_trace(domain: Domain, approve: Approve) -> None:
    approve()
    _, token = domain.begin("member$", body=ASKED)
    header = f"Negotiate {base64.b64encode(token).decode()}"
    assert [send(header).status_code for _ in range(3)] == [200, 401, 401]
    assert ledger.leaves(act_prefix="ticket.refused").count() == 2
    assert HealthCertificate.objects.count() == 1


def test_another_key_cannot_be_put_under_a_ticket(attest: Any, approve: Approve) -> None:
    approve()
    other = ASKED.replace(b'{"', b'{ "')
    assert refused(attest(sent=other)) == (401, "ticket_not_bound")
    assert not Attester.objects.exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b"{}", 400, id="no key"),
        pytest.param(b"[]", 400, id="no object"),
        pytest.param(b"", 400, id="nothing"),
        pytest.param(b'{"transport_key": "AAAA"}', 400, id="no public key"),
        pytest.param(b'{"transport_key": "' + b"A" * 4000 + b'"}', 400, id="too large"),
        pytest.param(
            json.dumps({"transport_key": to_b64u(spki(ec.generate_private_key(ec.SECP256R1())))}).encode(),
            422,
            id="a key of another kind",
        ),
    ],
)
def test_a_body_without_a_transport_key_is_refused(attest: Any, approve: Approve, body: bytes, status: int) -> None:
    approve()
    assert attest(body=body).status_code == status
    assert not HealthCertificate.objects.exists()
    assert not Attester.objects.exists()


@few(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_any_body_under_a_good_ticket_gets_an_answer_with_a_code(attest: Any, body: bytes) -> None:
    answer = attest(body=body)
    assert 400 <= answer.status_code < 500
    assert answer.json()["code"]


def test_a_body_larger_than_any_message_is_refused(attest: Any) -> None:
    for size in (256 * 1024 + 1, 3 * 1024 * 1024):
        assert refused(attest(body=b" " * size)) == (413, "too_large")


def test_a_node_without_a_keytab_says_so(settings: Settings) -> None:
    settings.KERBEROS_KEYTAB = ""
    assert refused(send("Negotiate AAAA")) == (503, "kerberos_not_set_up")


# --- when membership ends


def test_a_host_that_left_its_group_gets_no_keys(domain: Domain, attest: Any, approve: Approve) -> None:
    """Its ticket of before is good for a while; from the first one that says so on, older certificates end too."""
    group = approve()
    certificate = from_b64u(attest().json()["certificate"])
    KerberosGroup.objects.filter(pk=group.pk).update(sid=domain.sids["Tier1 Hosts"])
    answer = attest().json()
    assert (answer["status"], answer["certificate"]) == ("UnauthorizedHost", None)
    assert [finding["code"] for finding in answer["findings"]] == ["host_in_no_group"]
    with pytest.raises(HostFailing):
        service.verify_certificate(certificate, now=datetime.now(UTC))
    assert ledger.leaves(act_prefix="attestation.failed").count() == 1


def test_retiring_a_group_ends_what_rests_on_it_at_once(attest: Any, approve: Approve, admin: User) -> None:
    group = approve()
    certificate = from_b64u(attest().json()["certificate"])
    service.retire_kerberos_group(group.id, by=admin, reason="the racks are gone", now=datetime.now(UTC))
    with pytest.raises(GroupWithdrawn):
        service.verify_certificate(certificate, now=datetime.now(UTC))
    assert attest().json()["status"] == "UnauthorizedHost"
    approve()
    assert attest().json()["status"] == "Passed"


def test_a_certificate_outlives_one_of_its_groups(attest: Any, approve: Approve, admin: User) -> None:
    group, _ = approve(), approve("Tier1 Hosts")
    certificate = from_b64u(attest("nested$").json()["certificate"])
    service.retire_kerberos_group(group.id, by=admin, reason="too wide", now=datetime.now(UTC))
    assert service.verify_certificate(certificate, now=datetime.now(UTC)).host == "nested"


def test_a_revoked_host_does_not_come_back_by_its_group(attest: Any, approve: Approve, admin: User) -> None:
    approve()
    certificate = from_b64u(attest().json()["certificate"])
    service.revoke_host(Attester.objects.get().id, by=admin, reason="stolen", now=datetime.now(UTC))
    assert refused(attest()) == (403, "unauthorized_host")
    with pytest.raises(CertificateRefused):
        service.verify_certificate(certificate, now=datetime.now(UTC))


def test_another_account_under_a_name_that_is_taken_waits_for_a_person(
    attest: Any, approve: Approve, admin: User, approver: User
) -> None:
    approve()
    attest()
    first = Attester.objects.get()
    Attester.objects.filter(pk=first.pk).update(identity="S-1-5-21-1-2-3-1999")  # the account was deleted, made anew
    answer = attest().json()
    assert (answer["status"], answer["certificate"]) == ("UnauthorizedHost", None)
    second = Attester.objects.exclude(pk=first.pk).get()
    assert (second.state, second.replaces_id) == ("pending", first.pk)
    now = datetime.now(UTC)
    proposal = service.propose_host(second.id, by=admin, reason="reinstalled", now=now)
    service.decide(proposal.id, by=approver, approve=True, reason="it was", now=now)
    assert attest().json()["status"] == "Passed"
    first.refresh_from_db()
    assert first.state == "revoked"


def test_in_another_mode_it_is_a_trial(attest: Any, approve: Approve) -> None:
    approve()
    ModeSwitch.objects.create(mode="tpm", since=datetime.now(UTC), by="system", reason="a test")
    answer = attest().json()
    assert (answer["status"], answer["certificate"]) == ("Passed", None)
    assert ledger.leaves(act_prefix="attestation.trial_passed").count() == 1


def test_a_trial_earns_nothing_and_leaves_the_host_as_it_was(attest: Any, approve: Approve, admin: User) -> None:
    group = approve()
    certificate = from_b64u(attest().json()["certificate"])
    before = model_to_dict(Attester.objects.get())
    answer = attest(body=TRIED).json()
    assert (answer["status"], answer["certificate"], answer["release_secret"]) == ("Passed", None, None)
    KerberosGroup.objects.filter(pk=group.pk).update(sid="S-1-5-21-1-2-3-1104")
    assert attest(body=TRIED).json()["status"] == "UnauthorizedHost"
    assert model_to_dict(Attester.objects.get()) == before
    assert (Attestation.objects.count(), HealthCertificate.objects.count()) == (1, 1)
    assert [trial.status for trial in Trial.objects.all()] == ["UnauthorizedHost", "Passed"]
    assert sorted(leaf.act for leaf in ledger.leaves(act_prefix="trial.")) == ["trial.failed", "trial.passed"]
    KerberosGroup.objects.filter(pk=group.pk).update(sid=group.sid)
    assert service.verify_certificate(certificate, now=datetime.now(UTC)).host == "member"


def test_a_ticket_for_a_trial_is_good_for_that_alone(attest: Any, approve: Approve) -> None:
    """The word is in the body that the ticket is bound to, so nobody on the way can turn one into the other."""
    approve()
    assert refused(attest(body=TRIED, sent=ASKED)) == (401, "ticket_not_bound")
    assert refused(attest(body=ASKED, sent=TRIED)) == (401, "ticket_not_bound")
    assert not Trial.objects.exists()
    assert not Attestation.objects.exists()


@pytest.mark.parametrize("account", ["stranger$", "alice"])
def test_who_may_not_attest_gets_no_trial(attest: Any, approve: Approve, account: str) -> None:
    approve()
    assert attest(account, body=TRIED).status_code == 403
    assert not Trial.objects.exists()
    assert ledger.leaves(act_prefix="ticket.refused").count() == 1


def test_the_first_ticket_of_a_member_makes_its_row_in_a_trial_too(attest: Any, approve: Approve) -> None:
    approve()
    assert attest(body=TRIED).json()["status"] == "Passed"
    host = Attester.objects.get()
    assert (host.state, host.status, host.latest) == ("approved", "UnauthorizedHost", None)
    assert ledger.leaves(act_prefix="host.joined").count() == 1


# --- which groups


@pytest.mark.parametrize(
    "sid",
    [
        pytest.param("S-1-5-21-1-2-3-515", id="Domain Computers"),
        pytest.param("S-1-5-21-1-2-3-513", id="Domain Users"),
        pytest.param("S-1-5-11", id="everybody who has logged in"),
        pytest.param("S-1-1-0", id="everyone"),
        pytest.param("S-1-18-1", id="whoever has a ticket"),
        pytest.param("S-1-5-32-544", id="a machine's own group"),
        pytest.param("S-1-5-21-1-2-3", id="a domain"),
        pytest.param("1104", id="a RID"),
        pytest.param("Guarded Hosts", id="a name"),
        pytest.param("S-1-5-21-1-2-3-01104", id="a SID that no ticket writes so"),
        pytest.param("S-1-5-21-1-2-3-1104\n", id="a line break"),
        pytest.param("S-1-5-21-1-2-3-\u0661\u0661\u0660\u0664", id="digits of another script"),
    ],
)
def test_a_group_that_nobody_has_picked_the_members_of_is_refused(admin: User, sid: str) -> None:
    with pytest.raises(CannotApprove):
        service.propose_kerberos_group(sid, "hosts", by=admin, reason="all", now=datetime.now(UTC))
    assert not Proposal.objects.exists()


def test_a_group_is_put_forward_and_approved_by_two(domain: Domain, admin: User, approver: User) -> None:
    now = datetime.now(UTC)
    proposal = service.propose_kerberos_group(domain.sids[GROUP], GROUP, by=admin, reason="ours", now=now)
    assert (proposal.kind, proposal.about.name) == ("kerberos", GROUP)
    with pytest.raises(FourEyes):
        service.decide(proposal.id, by=admin, approve=True, reason="mine", now=now)
    with pytest.raises(AlreadyDecided):
        service.propose_kerberos_group(domain.sids[GROUP], "again", by=admin, reason="ours", now=now)
    service.decide(proposal.id, by=approver, approve=True, reason="compared the SID", now=now)
    with pytest.raises(AlreadyDecided):
        service.decide(proposal.id, by=approver, approve=True, reason="once more", now=now)
    assert [(row.sid, row.state) for row in service.kerberos_groups()] == [(domain.sids[GROUP], "approved")]
    acts = [row.act for row in ledger.leaves(act_prefix="kerberos.")]
    assert sorted(acts) == ["kerberos.approved", "kerberos.proposed"]


def test_a_rejected_group_counts_nothing_and_may_come_again(
    domain: Domain, admin: User, approver: User, attest: Any, approve: Approve
) -> None:
    now = datetime.now(UTC)
    proposal = service.propose_kerberos_group(domain.sids[GROUP], GROUP, by=admin, reason="ours", now=now)
    service.decide(proposal.id, by=approver, approve=False, reason="not yet", now=now)
    assert refused(attest()) == (403, "unauthorized_host")
    approve()
    assert attest().json()["status"] == "Passed"


def test_each_act_needs_its_right(domain: Domain, approve: Approve, approver: User) -> None:
    group, now, nobody = approve(), datetime.now(UTC), person("eve")
    sid = domain.sids["Tier1 Hosts"]
    with pytest.raises(NotAllowed):
        service.propose_kerberos_group(sid, "hosts", by=nobody, reason="ours", now=now)
    with pytest.raises(NotAllowed):
        service.retire_kerberos_group(group.id, by=approver, reason="ours", now=now)
    assert KerberosGroup.objects.get().state == "approved"


def test_what_is_not_approved_is_not_retired(approve: Approve, admin: User) -> None:
    group, now = approve(), datetime.now(UTC)
    service.retire_kerberos_group(group.id, by=admin, reason="gone", now=now)
    with pytest.raises(NotFound):
        service.retire_kerberos_group(group.id, by=admin, reason="gone", now=now + timedelta(seconds=1))


def test_a_group_of_no_host_group_is_refused(admin: User) -> None:
    now = datetime.now(UTC)
    with pytest.raises(NotFound):
        service.propose_kerberos_group("S-1-5-21-1-2-3-1104", "hosts", by=admin, reason="r", now=now, group="none")


def test_the_database_holds_a_proposal_to_one_subject(approve: Approve) -> None:
    approve()
    with pytest.raises(DatabaseError), transaction.atomic():
        Proposal.objects.update(kerberos_group=None)


# --- from a console


def console(*words: str) -> str:
    said = StringIO()
    call_command("kerberos_group", *words, stdout=said)
    return said.getvalue()


def by(name: str) -> tuple[str, ...]:
    return ("--by", name, "--reason", "a drill")


def test_a_console_puts_forward_decides_lists_and_retires(
    domain: Domain, admin: User, approver: User, attest: Any
) -> None:
    sid = domain.sids[GROUP]
    number = console("propose", sid, GROUP, *by("ada")).split(":")[0].removeprefix("proposal ")
    assert console("decide", number, *by("ben")) == f"{GROUP} is approved\n"
    assert console("list") == f"{sid}  approved  {GROUP}, of Default\n"
    assert attest().json()["status"] == "Passed"
    assert console("retire", sid, *by("ada")) == f"{GROUP} counts no more\n"
    assert attest().json()["status"] == "UnauthorizedHost"


def test_a_console_refuses_with_the_sentence_and_the_code(domain: Domain, admin: User, approver: User) -> None:
    sid = domain.sids[GROUP]
    with pytest.raises(CommandError, match="no person eve"):
        console("propose", sid, GROUP, *by("eve"))
    with pytest.raises(CommandError, match="cannot_approve"):
        console("propose", "S-1-1-0", "Everyone", *by("ada"))
    console("propose", sid, GROUP, *by("ada"))
    with pytest.raises(CommandError, match="four_eyes"):
        console("decide", str(Proposal.objects.get().pk), *by("ada"))
    with pytest.raises(CommandError, match="No approved group"):
        console("retire", sid, *by("ada"))
    Proposal.objects.update(state="approved")
    now = datetime.now(UTC)
    other = service.propose_switch(Mode.TPM, grace=timedelta(), by=admin, reason="a drill", now=now)
    with pytest.raises(CommandError, match="about no group"):
        console("decide", str(other.pk), *by("ben"))
