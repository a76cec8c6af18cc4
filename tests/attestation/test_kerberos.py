"""A ticket proves a machine and its groups only as its KDC says it, to this service, for this request, once."""

import base64
import subprocess
import sys
from pathlib import Path
from struct import pack

import gssapi
import pytest
from gssapi.exceptions import MissingCredentialsError
from gssapi.raw.misc import GSSError
from pytest_django import Settings

from attestation.errors import (
    ForeignRealm,
    GroupsNotProven,
    KerberosNotSetUp,
    NotAMachine,
    TicketDelegated,
    TicketNotBound,
    TicketRefused,
)
from attestation.kerberos import LOGON_INFO, TOKEN_LIMIT, Acceptor, Caller, acceptor, bindings, parse_negotiate
from tests.ad import Domain
from tests.ad_forge import forged
from tests.kdc import BODY, KERBEROS, REALM, SPNEGO, Realm

ROOT = Path(__file__).resolve().parents[2]
HGS = f"HTTP/hgs.fabric.test@{REALM}"
CLIENT_INFO = b"urn:mspac:client-info"
INTEGRITY = gssapi.RequirementFlag.integrity
# What another process of the node does: it accepts the token of its standard input, and says how that ended.
ELSEWHERE = """
import sys, django
django.setup()
from pathlib import Path
from attestation.errors import Refusal
from attestation.kerberos import Acceptor
keytab, service, realm, replays, body = sys.argv[1:]
ours = Acceptor(Path(keytab), service, realm, Path(replays))
try:
    print(ours.caller(ours.accept(sys.stdin.buffer.read(), body=body.encode())).account)
except Refusal as refusal:
    print(refusal.code)
"""


@pytest.fixture
def ours(domain: Domain, tmp_path: Path) -> Acceptor:
    return accepting(domain, tmp_path)


def accepting(realm: Realm, state: Path, service: str = "hgs") -> Acceptor:
    return Acceptor(realm.keytab(service), f"HTTP@{service}.fabric.test", REALM, state / "replays")


def accept(ours: Acceptor, domain: Domain, account: str, cache: str | None = None) -> Caller:
    _, token = domain.begin(account, cache=cache)
    return known(ours, token)


def known(ours: Acceptor, token: bytes) -> Caller:
    """Accept a token as the portal does, and say whose it is."""
    return ours.caller(ours.accept(token, body=BODY))


def accepted_elsewhere(ours: Acceptor, token: bytes, *, shift: str = "+0") -> str:
    """Accept in a process of its own, whose clock is shifted."""
    words = [str(ours.keytab), ours.service, ours.realm, str(ours.replay_cache), BODY.decode()]
    command = ["faketime", "-f", shift, sys.executable, "-c", ELSEWHERE, *words]
    done = subprocess.run(command, input=token, capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def insecure_name(ours: Acceptor, token: bytes, body: bytes = BODY) -> gssapi.Name:
    """Return whom the library alone would let in."""
    credentials = gssapi.Credentials(usage="accept", store={"keytab": str(ours.keytab), "rcache": "none:"})
    context = gssapi.SecurityContext(creds=credentials, usage="accept", channel_bindings=bindings(body))
    context.step(token)
    assert context.complete
    name: gssapi.Name = context.initiator_name
    return name


def test_the_domain_of_the_tests_has_no_service_that_two_of_them_would_fight_for(domain: Domain) -> None:
    """Most have ports of their own, so two runs of the tests on one machine would be in each other's way.

    LDAP has one too, but on an address that no other domain has.
    """
    lines = (domain.folder / "etc" / "smb.conf").read_text().splitlines()
    (services,) = [line.strip() for line in lines if "server services" in line]
    assert services in {"server services = kdc", "server services = kdc, ldap"}


# --- whose groups count


def test_a_member_is_known_by_its_sid_and_its_groups(ours: Acceptor, domain: Domain) -> None:
    caller = accept(ours, domain, "member$")
    assert (caller.account, caller.realm, caller.sid) == ("member$", REALM, domain.sids["member$"])
    assert domain.sids["Guarded Hosts"] in caller.group_sids
    assert domain.sids["Tier1 Hosts"] not in caller.group_sids


def test_a_machine_outside_the_group_has_its_own_groups_alone(ours: Acceptor, domain: Domain) -> None:
    caller = accept(ours, domain, "stranger$")
    assert caller.sid == domain.sids["stranger$"]
    assert not caller.group_sids & {domain.sids["Guarded Hosts"], domain.sids["Tier1 Hosts"]}
    assert caller.group_sids  # the domain's computers, at least: it is no ticket without groups


def test_a_member_of_a_nested_group_is_in_both(ours: Acceptor, domain: Domain) -> None:
    assert accept(ours, domain, "nested$").group_sids >= {domain.sids["Guarded Hosts"], domain.sids["Tier1 Hosts"]}


def test_groups_are_whole_sids(ours: Acceptor, domain: Domain) -> None:
    assert all(sid.startswith("S-1-") for sid in accept(ours, domain, "nested$").group_sids)


def test_a_user_in_the_group_is_no_host(ours: Acceptor, domain: Domain) -> None:
    _, token = domain.begin("alice")
    with pytest.raises(NotAMachine, match="alice is no machine account"):
        known(ours, token)


def test_a_service_that_acts_for_a_host_is_not_the_host(ours: Acceptor, domain: Domain) -> None:
    """The library lets it in as the host, with the host's groups: only the KDC's note says who it is."""
    _, token = domain.begin(domain.acting_for("member$"), mech=KERBEROS)
    assert str(insecure_name(ours, token)) == f"member$@{REALM}"
    with pytest.raises(TicketDelegated, match="a host attests itself"):
        known(ours, token)


def test_a_disabled_machine_gets_no_ticket(domain: Domain) -> None:
    with pytest.raises(MissingCredentialsError, match="revoked"):
        domain.begin("disabled$")


def test_who_left_the_group_is_in_it_until_the_next_logon(ours: Acceptor, domain: Domain, tmp_path: Path) -> None:
    held, group = f"FILE:{tmp_path}/tickets", domain.sids["Guarded Hosts"]
    assert group in accept(ours, domain, "leaver$", held).group_sids
    domain.administer("leave", "Guarded Hosts", "leaver$")
    assert group in accept(ours, domain, "leaver$", held).group_sids  # which only a look into the directory could see
    assert group not in accept(ours, domain, "leaver$").group_sids


# --- what the KDC has not said


def test_a_pac_that_was_altered_proves_nothing_though_its_key_is_listed(ours: Acceptor, domain: Domain) -> None:
    """Whoever has the service's key can write into a ticket, but the checksum that covers the PAC stays the old one."""
    computers, guarded = 515, int(domain.sids["Guarded Hosts"].rpartition("-")[2])
    _, token = domain.begin("stranger$", mech=KERBEROS)
    bad = forged(
        token, ours.keytab, HGS, lambda plain: plain.replace(pack("<II", computers, 7), pack("<II", guarded, 7))
    )
    assert bad != token
    name = insecure_name(ours, bad)
    assert str(name) == f"stranger$@{REALM}"
    assert LOGON_INFO in list(name.attributes or {})
    with pytest.raises(GroupsNotProven):
        known(ours, bad)


def test_a_forge_that_changes_nothing_is_accepted(ours: Acceptor, domain: Domain) -> None:
    """So the tests beside this one fail for what they change and for nothing else."""
    _, token = domain.begin("member$", mech=KERBEROS)
    same = forged(token, ours.keytab, HGS, bytes)
    assert same != token
    assert known(ours, same).account == "member$"


def test_a_ticket_without_a_pac_proves_no_groups(domain: Domain, tmp_path: Path) -> None:
    plain = accepting(domain, tmp_path, "plain")
    _, token = domain.begin("member$", service="plain")
    with pytest.raises(GroupsNotProven):
        known(plain, token)


def test_a_ticket_of_a_kdc_that_is_no_directory_proves_no_groups(no_directory: Realm, tmp_path: Path) -> None:
    """MIT's KDC puts a PAC into it, under checksums of its own, and of the account nothing but its name."""
    ours = accepting(no_directory, tmp_path)
    name = insecure_name(ours, no_directory.begin("member$")[1])
    assert str(name) == f"member$@{REALM}"
    assert CLIENT_INFO in list(name.attributes or {})
    assert LOGON_INFO not in list(name.attributes or {})
    _, token = no_directory.begin("member$")
    with pytest.raises(GroupsNotProven):
        known(ours, token)
    with pytest.raises(TicketRefused):
        known(ours, token)  # the look has spent it


def test_a_machine_of_another_realm_is_refused(ours: Acceptor, domain: Domain) -> None:
    other = b"FABRIC.TEXT"
    _, token = domain.begin("member$", mech=KERBEROS)
    foreign = forged(token, ours.keytab, HGS, lambda plain: plain.replace(REALM.encode(), other, 1))
    assert str(insecure_name(ours, foreign)) == "member$@FABRIC.TEXT"
    with pytest.raises(ForeignRealm, match=r"FABRIC\.TEXT is not of the realm FABRIC\.TEST"):
        known(ours, foreign)


# --- one request


@pytest.mark.parametrize("mech", [SPNEGO, KERBEROS], ids=["SPNEGO", "Kerberos"])
def test_the_reply_proves_the_service_to_the_host(ours: Acceptor, domain: Domain, mech: gssapi.OID) -> None:
    context, token = domain.begin("member$", mech=mech)
    assert not context.complete
    context.step(ours.accept(token, body=BODY).reply)
    assert context.complete


def test_a_reply_to_another_token_proves_nothing(ours: Acceptor, domain: Domain) -> None:
    _, token = domain.begin("member$", mech=KERBEROS)
    context, _ = domain.begin("member$", mech=KERBEROS)
    context.__DEFER_STEP_ERRORS__ = False  # type: ignore[attr-defined]  # not in its stubs
    with pytest.raises(GSSError):
        context.step(ours.accept(token, body=BODY).reply)


def test_a_ticket_for_another_body_is_refused(ours: Acceptor, domain: Domain) -> None:
    _, token = domain.begin("member$")
    with pytest.raises(TicketNotBound, match="another request"):
        ours.accept(token, body=BODY + b" ")


def test_a_ticket_that_is_bound_to_nothing_is_refused(ours: Acceptor, domain: Domain) -> None:
    """The library lets it pass: bindings count for it only where both sides have them."""
    _, token = domain.begin("member$", body=None)
    assert str(insecure_name(ours, token)) == f"member$@{REALM}"
    with pytest.raises(TicketNotBound, match="not bound"):
        known(ours, token)


@pytest.mark.parametrize("mech", [SPNEGO, KERBEROS], ids=["SPNEGO", "Kerberos"])
def test_a_ticket_that_asks_for_no_proof_is_refused(ours: Acceptor, domain: Domain, mech: gssapi.OID) -> None:
    _, token = domain.begin("member$", flags=INTEGRITY, mech=mech)
    with pytest.raises(TicketRefused):
        known(ours, token)


def test_a_token_is_accepted_once(ours: Acceptor, domain: Domain) -> None:
    _, token = domain.begin("member$")
    known(ours, token)
    with pytest.raises(TicketRefused):
        known(ours, token)


def test_another_process_of_the_node_knows_the_token(ours: Acceptor, domain: Domain) -> None:
    _, token = domain.begin("member$")
    known(ours, token)
    assert accepted_elsewhere(ours, token) == "ticket_refused"
    assert accepted_elsewhere(ours, domain.begin("member$")[1]) == "member$"


def test_the_environment_cannot_switch_the_replay_cache_off(
    ours: Acceptor, domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRB5RCACHENAME", "none:")
    monkeypatch.setenv("KRB5RCACHETYPE", "none")
    _, token = domain.begin("member$")
    known(ours, token)
    with pytest.raises(TicketRefused):
        known(ours, token)
    assert ours.replay_cache.stat().st_mode & 0o077 == 0


def test_a_refused_token_is_spent_too(ours: Acceptor, domain: Domain) -> None:
    _, token = domain.begin("alice")
    with pytest.raises(NotAMachine):
        known(ours, token)
    with pytest.raises(TicketRefused):
        known(ours, token)


# --- clocks and keys


@pytest.mark.parametrize(
    ("shift", "answer"),
    [
        pytest.param("+4m", "member$", id="four minutes fast"),
        pytest.param("-4m", "member$", id="four minutes slow"),
        pytest.param("+6m", "ticket_refused", id="six minutes fast"),
        pytest.param("-6m", "ticket_refused", id="six minutes slow"),
        pytest.param("+11h", "ticket_refused", id="after the ticket's end"),
    ],
)
def test_clocks_may_differ_by_five_minutes(ours: Acceptor, domain: Domain, shift: str, answer: str) -> None:
    _, token = domain.begin("member$")
    assert accepted_elsewhere(ours, token, shift=shift) == answer


def test_a_ticket_for_another_service_is_refused(ours: Acceptor, domain: Domain) -> None:
    _, token = domain.begin("member$", service="other")
    with pytest.raises(TicketRefused):
        known(ours, token)


def test_a_service_with_a_new_password_needs_its_new_key_and_keeps_the_old_one(domain: Domain, tmp_path: Path) -> None:
    ours, cache = accepting(domain, tmp_path, "rotated"), f"FILE:{tmp_path}/tickets"
    assert known(ours, domain.begin("member$", service="rotated", cache=cache)[1]).account == "member$"
    domain.administer("new-password", "svc-rotated", "Another.Passw0rd.2")
    _, token = domain.begin("member$", service="rotated")
    with pytest.raises(TicketRefused, match="older than its password"):
        known(ours, token)
    domain.administer("export", "HTTP/rotated.fabric.test", str(ours.keytab))
    assert known(ours, domain.begin("member$", service="rotated")[1]).account == "member$"
    assert known(ours, domain.begin("member$", service="rotated", cache=cache)[1]).account == "member$"


@pytest.mark.parametrize("keytab", ["nowhere", "other"])
def test_a_node_without_its_key_says_that_it_is_not_set_up(domain: Domain, tmp_path: Path, keytab: str) -> None:
    ours = Acceptor(domain.keytab(keytab), "HTTP@hgs.fabric.test", REALM, tmp_path / "replays")
    _, token = domain.begin("member$")
    with pytest.raises(KerberosNotSetUp) as caught:
        known(ours, token)
    assert str(domain.folder) not in str(caught.value)  # paths are for the log


def test_a_node_without_settings_says_that_it_is_not_set_up() -> None:
    with pytest.raises(KerberosNotSetUp, match="GUARDHOUSE_KERBEROS_KEYTAB"):
        acceptor()


def test_settings_make_the_acceptor(domain: Domain, settings: Settings, tmp_path: Path) -> None:
    settings.KERBEROS_KEYTAB = str(domain.keytab("hgs"))
    settings.KERBEROS_SERVICE = "HTTP@hgs.fabric.test"
    settings.KERBEROS_REALM = REALM
    settings.KERBEROS_REPLAY_CACHE = tmp_path / "replays"
    assert acceptor() == accepting(domain, tmp_path)
    assert accept(acceptor(), domain, "member$").account == "member$"


# --- tokens that are none

NTLM = b"NTLMSSP\0\1\0\0\0" + bytes(24)
NO_TOKENS = {
    "one byte": b"\x60",
    "garbage": b"garbage" * 10,
    "NTLM": NTLM,
    "the largest": bytes(TOKEN_LIMIT),
}


@pytest.mark.parametrize("token", NO_TOKENS.values(), ids=NO_TOKENS)
def test_what_is_no_ticket_is_refused(ours: Acceptor, token: bytes) -> None:
    with pytest.raises(TicketRefused):
        known(ours, token)


@pytest.mark.parametrize("size", [0, TOKEN_LIMIT + 1])
def test_a_token_outside_its_bounds_is_not_looked_at(ours: Acceptor, size: int) -> None:
    with pytest.raises(TicketRefused, match=f"has {size} bytes"):
        known(ours, bytes(size))


def test_a_token_that_opens_a_conversation_is_refused(ours: Acceptor) -> None:
    """SPNEGO's NegTokenInit that offers Kerberos and brings no ticket yet."""
    kerberos = bytes.fromhex("06092a864886f712010202")
    offer = bytes.fromhex("06062b0601050502a011300fa00d300b") + kerberos
    with pytest.raises(TicketRefused, match="one token has to be enough"):
        ours.accept(b"\x60" + bytes((len(offer),)) + offer, body=BODY)


def test_a_truncated_token_is_refused_wherever_it_ends(ours: Acceptor, domain: Domain) -> None:
    _, token = domain.begin("member$")
    for end in range(0, len(token), 7):
        with pytest.raises(TicketRefused):
            known(ours, token[:end])


@pytest.mark.parametrize("mech", [SPNEGO, KERBEROS], ids=["SPNEGO", "Kerberos"])
def test_a_damaged_token_is_refused_or_names_its_machine(ours: Acceptor, domain: Domain, mech: gssapi.OID) -> None:
    """Some bits of the envelope say nothing; those of the ticket and of the authenticator all count."""
    refused = 0
    for at in range(0, 1200, 5):
        _, token = domain.begin("member$", mech=mech)
        at %= len(token)
        try:
            caller = known(ours, token[:at] + bytes((token[at] ^ 0x10,)) + token[at + 1 :])
        except TicketRefused:
            refused += 1
        else:
            assert caller.sid == domain.sids["member$"]
    assert refused > 200


HEADERS = {
    "none": "",
    "a scheme alone": "Negotiate",
    "a scheme and a space": "Negotiate ",
    "another scheme": "Bearer AAAA",
    "no base64": "Negotiate A!AA",
    "base64url": "Negotiate _-__",
    "a line break": "Negotiate AAAA\nAAAA",
    "no padding": "Negotiate AAA",
    "two tokens": "Negotiate AAAA, Negotiate AAAA",
    "letters of another script": "Negotiate \u0410\u0410\u0410\u0410",
    "too large": "Negotiate " + "A" * (4 * TOKEN_LIMIT // 3 + 8),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_without_a_token_is_refused(header: str) -> None:
    with pytest.raises(TicketRefused):
        parse_negotiate(header)


@pytest.mark.parametrize("token", [b"\x60", b"token", bytes(TOKEN_LIMIT)], ids=len)
def test_a_header_gives_its_token(token: bytes) -> None:
    assert parse_negotiate(f"negotiate {base64.b64encode(token).decode()}") == token
