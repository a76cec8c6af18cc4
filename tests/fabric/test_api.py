"""The portal by API: who is let in by what, what each resource says, and that pages and API agree."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import URLPattern, reverse
from django.utils import timezone
from django.utils.html import escape

from attestation import service
from attestation.models import KerberosGroup, ModeSwitch, Proposal
from fabric.api.urls import urlpatterns
from fabric.models import ApiToken
from fabric.tokens import end_token, make_token
from kps import service as kps
from ledger import service as ledger
from tests.attestation.conftest import Portal
from tests.attestation.test_host_keys import KeyHost
from tests.fabric.conftest import PASSWORD, REASON, waiting_lift
from tests.fabric.test_modes import text
from tests.fabric.test_shielding_api import MAY_SEE
from tests.machines import Machine

Browse = Callable[[User | None], Client]
SID = "S-1-5-21-1-2-3-1104"
STAFF = {"admin", "approver", "auditor"}
EVERYBODY = STAFF | {"owner", "operator", "stranger_tenant", "nobody"}
GROUP = {"sid": SID, "name": "Guarded Hosts", "group": "default", "reason": REASON}
SWITCH = {"grace_hours": 8, "reason": REASON, "confirm": "Host key"}
# Who may ask what; every other method of every resource is refused.
MAY_ASK = {
    ("mode", "GET"): STAFF,
    ("rehearsal", "GET"): STAFF,
    ("mode-proposals", "POST"): {"admin"},
    ("mode-rollback", "POST"): {"approver"},
    ("log-export", "GET"): STAFF | {"owner", "operator", "stranger_tenant"},
    ("proposals", "GET"): STAFF,
    ("proposal", "GET"): STAFF,
    ("decision", "POST"): {"approver"},
    ("stops", "GET"): STAFF,
    ("stops", "POST"): {"admin", "approver"},
    ("lift-stop", "POST"): {"admin", "approver"},
    ("stop-impact", "GET"): STAFF,
    ("certificates-denial", "GET"): STAFF,
    ("certificates-denial", "POST"): {"admin", "approver"},
    ("protectors", "GET"): STAFF,
    ("protector", "GET"): STAFF,
    ("protector-denial", "POST"): {"admin"},
    ("propose-lift", "POST"): {"admin"},
    ("denial-lifts", "GET"): STAFF,
    ("denial-lift", "GET"): STAFF,
    ("lift-decision", "POST"): {"approver"},
    ("guardian-keys", "GET"): STAFF,
    ("guardian-keys", "POST"): {"admin"},
    ("guardian-pair", "GET"): STAFF,
    ("pair-queue", "GET"): STAFF,
    ("pair-changes", "POST"): {"admin"},
    ("key-changes", "GET"): STAFF,
    ("key-change", "GET"): STAFF,
    ("key-change-decision", "POST"): {"approver"},
    ("directory-groups", "GET"): STAFF,
    ("directory-groups", "POST"): {"admin"},
    ("directory-group-retirement", "POST"): {"admin", "approver"},
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@dataclass
class Program:
    """A person's program: it has a token, and no browser."""

    secret: str

    def ask(self, method: str, path: str, body: object = None) -> Any:
        headers = {"authorization": f"Bearer {self.secret}"} if self.secret else {}
        sent = "" if body is None else json.dumps(body)
        client = Client(raise_request_exception=False)
        return client.generic(method, f"/api/v1/{path}", sent, content_type="application/json", headers=headers)

    def get(self, path: str) -> Any:
        return self.ask("GET", path)

    def post(self, path: str, body: object) -> Any:
        return self.ask("POST", path, body)


def program_of(user: User) -> Program:
    _, secret = make_token("ci", lifetime=timedelta(days=1), by=user, reason=REASON, now=timezone.now())
    return Program(secret)


def refused(answer: Any, status: int, code: str) -> str:
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json"), answer.content
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code), body
    return str(body["detail"])


@pytest.fixture
def ada(admin: User) -> Program:
    return program_of(admin)


@pytest.fixture
def ben(approver: User) -> Program:
    return program_of(approver)


@pytest.fixture
def addresses(fleet: Portal, admin: User) -> dict[str, str]:
    """The address of every resource, of things that exist."""
    found = service.propose_kerberos_group(SID, "Guarded Hosts", by=admin, reason=REASON, now=timezone.now())
    lift = waiting_lift(admin)
    kps.guardian_fingerprint(now=timezone.now())
    pair = kps.prepare(by=admin, reason=REASON, now=timezone.now())
    change = kps.propose(pair.number, "promote", by=admin, reason=REASON, now=timezone.now())
    ledger.sequence_all(now=timezone.now())
    arguments: dict[str, list[object]] = {
        "rehearsal": ["hostkey"],
        "mode-proposals": ["hostkey"],
        "proposal": [found.pk],
        "decision": [found.pk],
        "directory-group-retirement": [found.kerberos_group_id],
        "lift-stop": [7],
        **{name: [lift.record_id] for name in ("protector", "protector-denial", "propose-lift")},
        **{name: [lift.pk] for name in ("denial-lift", "lift-decision")},
        **{name: [pair.number] for name in ("guardian-pair", "pair-queue", "pair-changes")},
        **{name: [change.pk] for name in ("key-change", "key-change-decision")},
    }
    names = {name for name, _ in MAY_ASK}
    paths = {name: reverse(f"api:{name}", args=arguments.get(name)).removeprefix("/api/v1/") for name in names}
    return paths | {"stop-impact": f"{paths['stop-impact']}?scope=fabric"}


# --- who is let in -----------------------------------------------------------------------------------------------


def test_every_resource_has_a_line_in_this_table() -> None:
    told = {name for name, _ in (*MAY_ASK, *MAY_SEE)}
    assert {each.name for each in urlpatterns if isinstance(each, URLPattern)} == told


def test_a_stranger_is_asked_for_a_token(addresses: dict[str, str]) -> None:
    for name, address in addresses.items():
        for method in METHODS:
            answer = Program("").ask(method, address)
            assert (answer.status_code, answer["WWW-Authenticate"]) == (401, "Bearer"), (name, method)
            if method != "HEAD":
                refused(answer, 401, "not_authenticated")


@pytest.mark.parametrize("role", sorted(EVERYBODY))
def test_a_role_reaches_its_resources_and_no_others(
    role: str, addresses: dict[str, str], request: pytest.FixtureRequest
) -> None:
    program = program_of(request.getfixturevalue(role))
    for name, address in addresses.items():
        for method in METHODS:
            roles = MAY_ASK.get((name, "GET" if method == "HEAD" else method))
            answer = program.ask(method, address, {} if method in {"POST", "PUT", "PATCH"} else None)
            if roles is None:
                assert answer.status_code == 405, (name, method)
            elif role not in roles:
                assert answer.status_code == 403, (name, method)
            else:
                assert answer.status_code == (400 if method == "POST" else 200), (name, method, answer.content)
    assert Proposal.objects.filter(state="open").count() == 1
    assert service.mode_in_force() == "tpm"


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer guard_" + "0" * 64,
        "Bearer guard_" + "0" * 63,
        "Bearer guard_" + "0" * 100_000,
        "Bearer guard_" + "A" * 64,
        "Bearer guard_\0" + "0" * 63,
        "Bearer ünlesbar",
        "Bearer \xff\xfe",
        "Bearer two words",
        "Token {secret}",
        "Basic YWRhOmNvcnJlY3QgaG9yc2UgYmF0dGVyeSBzdGFwbGU=",
        "{secret}",
        "Bearer {secret}0",
        "Bearer {secret} ",
    ],
)
def test_whatever_is_no_token_is_refused(ada: Program, fleet: Portal, header: str) -> None:
    answer = Client(raise_request_exception=False).get(
        "/api/v1/mode", headers={"authorization": header.format(secret=ada.secret)}
    )
    if header == "Bearer {secret} ":  # a header's ends are no part of it
        assert answer.status_code == 200
    else:
        refused(answer, 401, "not_authenticated")


def test_a_token_in_the_address_is_none(ada: Program, fleet: Portal) -> None:
    for name in ("token", "access_token", "authorization"):
        refused(Client().get(f"/api/v1/mode?{name}={ada.secret}"), 401, "not_authenticated")


def test_an_expired_token_is_refused(ada: Program, fleet: Portal) -> None:
    assert ada.get("mode").status_code == 200
    ApiToken.objects.update(expiry=timezone.now() - timedelta(seconds=1))
    refused(ada.get("mode"), 401, "not_authenticated")
    refused(ada.post("mode/hostkey/proposals", SWITCH), 401, "not_authenticated")


def test_an_ended_token_is_refused(ada: Program, fleet: Portal, admin: User) -> None:
    end_token(ApiToken.objects.get().pk, by=admin, reason=REASON, now=timezone.now())
    refused(ada.get("mode"), 401, "not_authenticated")


def test_the_token_of_someone_who_may_not_sign_in_is_refused_at_once(ada: Program, fleet: Portal, admin: User) -> None:
    assert ada.get("mode").status_code == 200
    User.objects.filter(pk=admin.pk).update(is_active=False)
    refused(ada.get("mode"), 401, "not_authenticated")


def test_a_token_loses_what_its_person_loses(ada: Program, fleet: Portal, admin: User) -> None:
    admin.groups.clear()
    refused(ada.get("mode"), 403, "not_allowed")
    refused(ada.post("mode/hostkey/proposals", SWITCH), 403, "not_allowed")


def test_a_token_opens_no_page(ada: Program, fleet: Portal) -> None:
    for path in ("/mode/", "/tokens/", "/tokens/make/"):
        answer = Client().get(path, headers={"authorization": f"Bearer {ada.secret}"})
        assert answer.status_code == 302, path


def test_a_token_is_in_no_line_of_the_log(ada: Program, fleet: Portal, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    ada.get("mode")
    ada.post("mode/hostkey/proposals", {"reason": REASON})
    ada.post("mode/hostkey/proposals", SWITCH)
    Program(ada.secret[:-1] + "x").get("mode")
    Program(ada.secret[:-1] + ("0" if ada.secret[-1] != "0" else "1")).get("mode")
    ApiToken.objects.update(expiry=timezone.now())
    ada.get("mode")
    assert "refused by ModeView: code not_authenticated" in caplog.text
    assert ada.secret[15:50] not in caplog.text


def test_what_a_person_is_told_stays_in_no_cache(ada: Program, fleet: Portal) -> None:
    assert "no-store" in ada.get("mode")["Cache-Control"]


# --- in a session ------------------------------------------------------------------------------------------------


@pytest.fixture
def session(fleet: Portal, admin: User) -> Client:
    """Ada's browser, in which somebody types by hand what no page asks for."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin)
    return client


def by_hand(client: Client, path: str, body: object, *, csrf: bool = True) -> Any:
    client.get("/mode/hostkey/propose/")  # brings the cookie
    headers = {"X-CSRFToken": client.cookies["csrftoken"].value} if csrf else {}
    return client.post(f"/api/v1/{path}", json.dumps(body), content_type="application/json", headers=headers)


def test_a_session_reads(session: Client) -> None:
    assert session.get("/api/v1/mode").json()["in_force"]["mode"] == "tpm"


def test_a_session_without_its_csrf_token_does_nothing(session: Client, addresses: dict[str, str]) -> None:
    body = {**SWITCH, "password": PASSWORD}
    for name, method in MAY_ASK:
        if method == "POST":
            refused(by_hand(session, addresses[name], body, csrf=False), 403, "csrf_failed")
    assert not Proposal.objects.filter(plan__isnull=False).exists()


@pytest.mark.parametrize("password", [{}, {"password": "wrong"}])
def test_a_session_that_was_left_open_does_nothing(session: Client, password: dict[str, str]) -> None:
    detail = refused(by_hand(session, "mode/hostkey/proposals", {**SWITCH, **password}), 403, "wrong_password")
    assert "Send your password" in detail
    assert not Proposal.objects.filter(plan__isnull=False).exists()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("mode-rollback", {"reason": REASON, "confirm": "TPM"}),
        ("decision", {"reason": REASON, "decision": "approve"}),
        ("directory-groups", {**GROUP, "sid": "S-1-5-21-1-2-3-1105"}),
        ("directory-group-retirement", {"reason": REASON, "confirm": "Guarded Hosts"}),
        ("stops", {"reason": REASON, "scope": "fabric", "confirm": "demo"}),
        ("lift-stop", {"reason": REASON}),
        ("certificates-denial", {"reason": REASON, "confirm": "demo"}),
        ("protector-denial", {"reason": REASON, "confirm": "00000000"}),
        ("propose-lift", {"reason": REASON}),
        ("lift-decision", {"reason": REASON, "decision": "reject"}),
        ("guardian-keys", {"reason": REASON}),
        ("pair-changes", {"reason": REASON, "change": "enable"}),
        ("key-change-decision", {"reason": REASON, "decision": "reject"}),
    ],
)
def test_every_act_of_a_session_asks_for_the_password(
    addresses: dict[str, str], session: Client, both: User, name: str, body: dict[str, object]
) -> None:
    session.force_login(both)
    refused(by_hand(session, addresses[name], body), 403, "wrong_password")
    assert "wrong_password" not in by_hand(session, addresses[name], {**body, "password": PASSWORD}).content.decode()


def test_a_session_acts_with_its_csrf_token_and_the_password(session: Client) -> None:
    answer = by_hand(session, "mode/hostkey/proposals", {**SWITCH, "password": PASSWORD})
    assert answer.status_code == 201
    assert PASSWORD not in answer.content.decode()


def test_guessing_a_password_in_a_session_locks_and_leaves_tokens_alone(session: Client, ada: Program) -> None:
    guesses = [by_hand(session, "mode/hostkey/proposals", {**SWITCH, "password": f"guess {n}"}) for n in range(5)]
    assert guesses[0].status_code == 403
    detail = refused(by_hand(session, "mode/hostkey/proposals", {**SWITCH, "password": PASSWORD}), 429, "locked_out")
    assert "15 minutes" in detail
    locked = Client().post("/login/", {"username": "ada", "password": PASSWORD})
    assert locked.status_code == 429
    assert "Too many wrong passwords from here" in text(locked)
    assert ada.post("mode/hostkey/proposals", SWITCH).status_code == 201


# --- the mode ----------------------------------------------------------------------------------------------------


def test_the_mode_is_told_as_its_page_tells_it(fleet: Portal, ada: Program, browse: Browse, admin: User) -> None:
    told, page = ada.get("mode").json(), text(browse(admin).get("/mode/"))
    assert (told["stage"], told["grace_ends"], told["can_roll_back"], told["open_proposal"]) == (
        *("settled", None, False, None),
    )
    assert told["in_force"]["mode"] == "tpm"
    for words in (told["in_force"], *told["others"]):
        assert escape(words["proves"]) in page
        assert escape(words["does_not_prove"]) in page
    assert [each["mode"] for each in told["others"]] == ["hostkey", "kerberos"]
    assert told["others"][0]["impact"]["hosts"]["unready"] == 2
    assert [each["mode"] for each in told["history"]] == ["tpm"]


def test_a_rehearsal_says_of_every_host_what_its_page_says(
    fleet: Portal, ada: Program, browse: Browse, admin: User, healthy: Machine, drifted: Machine
) -> None:
    told, page = ada.get("mode/hostkey/rehearsal").json(), text(browse(admin).get("/mode/hostkey/"))
    assert told["count"] == 2
    first, second = told["results"]
    assert (first["host"], first["attester"], first["loses"], first["ready"]) == (
        *(healthy.name, healthy.attester, True, False),
    )
    assert (second["host"], second["status_now"], second["loses"]) == (
        *(drifted.name, "InsecureHostConfiguration", False),
    )
    for row in told["results"]:
        assert row["why"] in page
        assert row["remedy"] in page
    assert "guardhouse host enrol --mode hostkey" in first["remedy"]
    assert told["impact"]["hosts"] == {"ready": 0, "unready": 2, "losing": 1, "names": [healthy.name]}
    for sentence in told["impact"]["sentences"]:
        assert sentence in page


@pytest.mark.parametrize(
    ("question", "hosts"),
    [
        ("", ["nbg-a01", "nbg-a02"]),
        ("?standing=losing", ["nbg-a01"]),
        ("?standing=unready", ["nbg-a01", "nbg-a02"]),
        ("?standing=ready", []),
        ("?host=a02", ["nbg-a02"]),
        ("?host=a02&standing=losing", []),
        ("?page_size=1", ["nbg-a01"]),
        ("?page_size=1&page=2", ["nbg-a02"]),
    ],
)
def test_a_rehearsal_is_filtered_and_comes_in_pages(
    fleet: Portal, ada: Program, question: str, hosts: list[str]
) -> None:
    told = ada.get(f"mode/hostkey/rehearsal{question}").json()
    assert [row["host"] for row in told["results"]] == hosts
    assert told["impact"]["hosts"]["losing"] == 1  # of all, whatever is shown


def test_pages_of_a_list_lead_to_one_another(fleet: Portal, ada: Program) -> None:
    told = ada.get("mode/hostkey/rehearsal?page_size=1").json()
    assert (told["count"], told["previous"]) == (2, None)
    path = told["next"].partition("/api/v1/")[2]
    assert ada.get(path).json()["next"] is None


@pytest.mark.parametrize("path", ["mode/hostkey/rehearsal", "proposals", "directory-groups", "stops"])
@pytest.mark.parametrize(
    "question",
    [
        *("page=0", "page=x", "page_size=0", "page_size=201", "page_size=x"),
        *("stat=open", "state=nonsense", "standing=nonsense", "kind=nonsense", "Page=1"),
    ],
)
def test_a_question_that_is_none_is_refused_and_not_taken_as_usual(
    fleet: Portal, ada: Program, path: str, question: str
) -> None:
    refused(ada.get(f"{path}?{question}"), 400, "malformed_request")


@pytest.mark.parametrize("page", ["2", "1" * 400])
def test_there_is_no_page_behind_the_last(fleet: Portal, ada: Program, page: str) -> None:
    refused(ada.get(f"mode/hostkey/rehearsal?page={page}"), 404, "not_found")


@pytest.mark.parametrize(("slug", "status", "code"), [("nonsense", 404, "not_found"), ("tpm", 409, "cannot_switch")])
def test_only_another_mode_is_rehearsed_and_switched_to(
    fleet: Portal, ada: Program, slug: str, status: int, code: str
) -> None:
    refused(ada.get(f"mode/{slug}/rehearsal"), status, code)
    refused(ada.post(f"mode/{slug}/proposals", SWITCH), status, code)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"confirm": None}, 400, "malformed_request"),
        ({"confirm": "hostkey"}, 409, "not_confirmed"),
        ({"confirm": "TPM"}, 409, "not_confirmed"),
        ({"confirm": ""}, 400, "malformed_request"),
        ({"grace_hours": 169}, 400, "malformed_request"),
        ({"grace_hours": -1}, 400, "malformed_request"),
        ({"grace_hours": None}, 400, "malformed_request"),
        ({"grace_hours": "soon"}, 400, "malformed_request"),
        ({"grace_hours": 10**400}, 400, "malformed_request"),
        ({"reason": "short"}, 400, "malformed_request"),
        ({"reason": "r" * 2001}, 400, "malformed_request"),
        ({"reason": "\0" * 20}, 400, "malformed_request"),
        ({"reason": "\ud800" * 20}, 400, "malformed_request"),
        ({"mode": "hostkey"}, 400, "malformed_request"),
        ({"\ud800": 1}, 400, "malformed_request"),
        ({"by": "ben"}, 400, "malformed_request"),
    ],
)
def test_a_switch_that_is_not_meant_or_not_understood_is_refused(
    fleet: Portal, ada: Program, changes: dict[str, object], status: int, code: str
) -> None:
    before = ledger.leaves().count()
    refused(ada.post("mode/hostkey/proposals", {**SWITCH, **changes}), status, code)
    assert not Proposal.objects.filter(plan__isnull=False).exists()
    assert ledger.leaves().count() == before


@pytest.mark.parametrize("missing", sorted(SWITCH))
def test_nothing_about_a_switch_goes_without_saying(fleet: Portal, ada: Program, missing: str) -> None:
    body = {name: value for name, value in SWITCH.items() if name != missing}
    answer = ada.post("mode/hostkey/proposals", body)
    detail = refused(answer, *((409, "not_confirmed") if missing == "confirm" else (400, "malformed_request")))
    assert "Host key mode proves less" in detail or missing in detail


def test_a_whole_switch_goes_between_two_programs_and_back(
    fleet: Portal, ada: Program, ben: Program, healthy: Machine, browse: Browse, admin: User
) -> None:
    answer = ada.post("mode/hostkey/proposals", {**SWITCH, "grace_hours": 1})
    assert answer.status_code == 201
    put = answer.json()
    assert (put["kind"], put["state"], put["name"], put["proposed_by"]) == ("mode", "open", "Host key mode", "ada")
    assert put["plan"]["grace_seconds"] == 3600
    assert put["plan"]["weakens"] is True
    assert put["plan"]["then"] == put["plan"]["now"]["hosts"]
    assert (put["yours"], put["decisions"]) == (True, ["approve", "reject"])
    number = put["id"]
    assert ada.get("mode").json()["open_proposal"] == number
    assert "waits for a decision" in text(browse(admin).get("/mode/"))
    refused(ada.post("mode/kerberos/proposals", {**SWITCH, "confirm": "Kerberos"}), 409, "already_decided")
    refused(ada.post(f"proposals/{number}/decision", {"decision": "approve", "reason": REASON}), 403, "not_allowed")
    seen = ben.get(f"proposals/{number}").json()
    assert (seen["yours"], seen["page"]) == (False, f"/proposals/{number}/")
    done = ben.post(f"proposals/{number}/decision", {"decision": "approve", "reason": REASON}).json()
    assert (done["state"], done["decided_by"], done["decisions"]) == ("approved", "ben", [])
    assert done["plan"]["now"] is None
    mode = ada.get("mode").json()
    assert (mode["in_force"]["mode"], mode["stage"], mode["can_roll_back"]) == ("hostkey", "grace", True)
    assert mode["history"][0]["before_until"] == mode["grace_ends"]
    assert "Certificates of TPM mode go on counting until" in text(browse(admin).get("/mode/"))
    refused(ben.post("mode/rollback", {"reason": REASON, "confirm": "Host key"}), 409, "not_confirmed")
    back = ben.post("mode/rollback", {"reason": REASON, "confirm": "TPM"})
    assert (back.status_code, back.json()["in_force"]["mode"]) == (200, "tpm")
    assert service.mode_in_force() == "tpm"
    acts = [(leaf.actor, leaf.act) for leaf in ledger.leaves(act_prefix="mode.")]
    assert acts == [("user:ben", "mode.rolled_back"), ("user:ben", "mode.approved"), ("user:ada", "mode.proposed")]


def test_a_switch_that_a_program_put_forward_is_decided_on_its_page(
    fleet: Portal, ada: Program, browse: Browse, approver: User
) -> None:
    number = ada.post("mode/hostkey/proposals", SWITCH).json()["id"]
    sent = {"decision": "reject", "reason": REASON, "password": PASSWORD}
    assert browse(approver).post(f"/proposals/{number}/", sent).status_code == 302
    told = ada.get(f"proposals/{number}").json()
    assert (told["state"], told["decision_reason"]) == ("rejected", REASON)


def test_a_switch_to_more_needs_no_confirmation(fleet: Portal, ada: Program, admin: User) -> None:
    ModeSwitch.objects.create(mode="hostkey", since=timezone.now(), by="system", reason="a test")
    body = {"grace_hours": 0, "reason": REASON}
    assert ada.post("mode/tpm/proposals", body).json()["plan"]["weakens"] is False


def test_what_cannot_be_taken_back_says_so(fleet: Portal, ben: Program) -> None:
    detail = refused(ben.post("mode/rollback", {"reason": REASON, "confirm": "TPM"}), 409, "cannot_switch")
    assert "Put a switch forward" in detail


def test_a_host_that_is_ready_is_shown_so(fleet: Portal, ada: Program, ben: Program, healthy: Machine) -> None:
    host = KeyHost(fleet, healthy.name, ec.generate_private_key(ec.SECP256R1()))
    host.register()
    (row,) = ada.get(f"mode/hostkey/rehearsal?host={healthy.name}").json()["results"]
    assert "nobody has approved that" in row["why"]
    now = timezone.now()
    proposal = service.propose_host(UUID(host.attester), by=User.objects.get(username="ada"), reason=REASON, now=now)
    assert ben.post(f"proposals/{proposal.pk}/decision", {"decision": "approve", "reason": REASON}).status_code == 200
    host.attest()
    (row,) = ada.get("mode/hostkey/rehearsal?standing=ready").json()["results"]
    assert (row["host"], row["why"], row["remedy"], row["loses"]) == (healthy.name, "", "", False)


def test_the_ledger_names_the_token_that_an_act_came_by(
    fleet: Portal, ada: Program, ben: Program, admin: User, approver: User, session: Client, browse: Browse
) -> None:
    number = ada.post("mode/hostkey/proposals", SWITCH).json()["id"]
    ben.post(f"proposals/{number}/decision", {"decision": "reject", "reason": REASON})
    by_hand(session, "mode/hostkey/proposals", {**SWITCH, "password": PASSWORD})
    later, decided, put = ledger.leaves(act_prefix="mode.")
    assert put.detail["token"] == str(ApiToken.objects.get(user=admin).pk)
    assert decided.detail["token"] == str(ApiToken.objects.get(user=approver).pk)
    assert "token" not in later.detail
    assert f"by API token {put.detail['token']}" in text(browse(admin).get("/audit/"))


# --- proposals ---------------------------------------------------------------------------------------------------


def test_four_eyes_bind_a_program_of_somebody_with_both_roles(fleet: Portal, both: User) -> None:
    program = program_of(both)
    number = program.post("mode/hostkey/proposals", SWITCH).json()["id"]
    for decision in ("approve", "reject"):
        answer = program.post(f"proposals/{number}/decision", {"decision": decision, "reason": REASON})
        refused(answer, 403, "four_eyes")
    assert service.mode_in_force() == "tpm"


def test_a_proposal_is_decided_once(fleet: Portal, ada: Program, ben: Program) -> None:
    number = ada.post("mode/hostkey/proposals", SWITCH).json()["id"]
    body = {"decision": "reject", "reason": REASON}
    assert ben.post(f"proposals/{number}/decision", body).status_code == 200
    refused(ben.post(f"proposals/{number}/decision", {**body, "decision": "approve"}), 409, "already_decided")
    assert service.mode_in_force() == "tpm"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"decision": "approve"},
        {"reason": REASON},
        {"decision": "maybe", "reason": REASON},
        {"decision": ["approve"], "reason": REASON},
        {"decision": "approve", "reason": REASON, "approve": True},
        [],
        "approve",
        None,
    ],
)
def test_a_decision_that_is_none_decides_nothing(fleet: Portal, ada: Program, ben: Program, body: object) -> None:
    number = ada.post("mode/hostkey/proposals", SWITCH).json()["id"]
    refused(ben.ask("POST", f"proposals/{number}/decision", body), 400, "malformed_request")
    assert Proposal.objects.get(pk=number).state == "open"


def test_proposals_are_listed_by_state_and_kind(fleet: Portal, ada: Program, ben: Program) -> None:
    switch = ada.post("mode/hostkey/proposals", SWITCH).json()["id"]
    group = ada.post("directory-groups", GROUP).json()["id"]
    assert [row["id"] for row in ada.get("proposals?state=open").json()["results"]] == [group, switch]
    assert [row["id"] for row in ada.get("proposals?kind=mode").json()["results"]] == [switch]
    assert [row["id"] for row in ada.get("proposals?kind=kerberos&state=open").json()["results"]] == [group]
    assert ada.get("proposals?kind=kerberos&state=approved").json()["count"] == 0
    every = ada.get("proposals").json()
    kinds = {row["kind"] for row in every["results"]}
    assert every["count"] == Proposal.objects.count()
    assert kinds == {"mode", "kerberos", "host", "baseline"}
    for kind in kinds:
        assert {row["kind"] for row in ada.get(f"proposals?kind={kind}").json()["results"]} == {kind}


@pytest.mark.parametrize("number", ["0", "99999", "9" * 30])
def test_what_nobody_put_forward_is_not_found(fleet: Portal, ada: Program, ben: Program, number: str) -> None:
    refused(ada.get(f"proposals/{number}"), 404, "not_found")
    body = {"decision": "approve", "reason": REASON}
    refused(ben.post(f"proposals/{number}/decision", body), 404, "not_found")


def test_a_host_without_a_certificate_is_approved_only_by_saying_so(
    fleet: Portal, ada: Program, ben: Program, admin: User, foreign: Machine, browse: Browse, approver: User
) -> None:
    proposal = service.propose_host(UUID(foreign.attester), by=admin, reason=REASON, now=timezone.now())
    told = ben.get(f"proposals/{proposal.pk}").json()
    assert told["decisions"] == ["approve-without-certificate", "reject"]
    page = browse(approver).get(f"/proposals/{proposal.pk}/").content.decode()
    assert re.findall(r'name="decision"\s+value="([a-z-]+)"', page) == told["decisions"]
    path = f"proposals/{proposal.pk}/decision"
    refused(ben.post(path, {"decision": "approve", "reason": REASON}), 409, "not_offered")
    assert ben.post(path, {"decision": "approve-without-certificate", "reason": REASON}).status_code == 200


def test_what_has_a_certificate_is_not_approved_as_if_it_had_none(fleet: Portal, ada: Program, ben: Program) -> None:
    number = ada.post("mode/hostkey/proposals", SWITCH).json()["id"]
    answer = ben.post(f"proposals/{number}/decision", {"decision": "approve-without-certificate", "reason": REASON})
    assert "approve, reject" in refused(answer, 409, "not_offered")


# --- groups of the directory -------------------------------------------------------------------------------------


def test_a_group_of_the_directory_goes_its_whole_way(
    fleet: Portal, ada: Program, ben: Program, browse: Browse, admin: User
) -> None:
    put = ada.post("directory-groups", GROUP).json()
    assert (put["kind"], put["sid"], put["group"]) == ("kerberos", SID, "default")
    (row,) = ada.get("directory-groups").json()["results"]
    assert (row["state"], row["proposed_by"]) == ("proposed", "ada")
    retirement = {"reason": REASON, "confirm": "Guarded Hosts"}
    refused(ada.post(f"directory-groups/{row['id']}/retirement", retirement), 404, "not_found")
    ben.post(f"proposals/{put['id']}/decision", {"decision": "approve", "reason": REASON})
    assert "Approved" in text(browse(admin).get("/directory-groups/"))
    wrong = {**retirement, "confirm": "Other Hosts"}
    refused(ada.post(f"directory-groups/{row['id']}/retirement", wrong), 409, "not_confirmed")
    answer = ada.post(f"directory-groups/{row['id']}/retirement", retirement)
    assert (answer.status_code, answer.json()["state"]) == (200, "retired")
    refused(ada.post(f"directory-groups/{row['id']}/retirement", retirement), 404, "not_found")
    refused(ada.post(f"directory-groups/{uuid4()}/retirement", retirement), 404, "not_found")
    acts = [leaf.act for leaf in ledger.leaves(act_prefix="kerberos.")]
    assert acts == ["kerberos.retired", "kerberos.approved", "kerberos.proposed"]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"sid": "S-1-5-32-544"}, 409, "cannot_approve"),
        ({"sid": "S-1-5-21-1-2-3-515"}, 409, "cannot_approve"),
        ({"sid": ""}, 400, "malformed_request"),
        ({"sid": "S" * 191}, 400, "malformed_request"),
        ({"name": ""}, 400, "malformed_request"),
        ({"name": "\0"}, 400, "malformed_request"),
        ({"group": "nowhere"}, 404, "not_found"),
        ({"group": None}, 400, "malformed_request"),
    ],
)
def test_a_group_that_no_page_would_take_is_refused(
    fleet: Portal, ada: Program, changes: dict[str, object], status: int, code: str
) -> None:
    refused(ada.post("directory-groups", {**GROUP, **changes}), status, code)
    assert not KerberosGroup.objects.exists()


def test_one_group_waits_once(fleet: Portal, ada: Program) -> None:
    assert ada.post("directory-groups", GROUP).status_code == 201
    refused(ada.post("directory-groups", GROUP), 409, "already_decided")


# --- what is written about it ------------------------------------------------------------------------------------


def test_the_documentation_is_made_without_a_warning() -> None:
    out, err = StringIO(), StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out, stderr=err)
    assert err.getvalue() == ""
    for each in urlpatterns:
        path = f"/api/v1/{each.pattern}".replace("<slug:", "{").replace("<int:", "{").replace("<uuid:", "{")
        assert path.replace(">", "}") + ":" in out.getvalue()


def differences(told: Any, said: Any, components: Any, where: str = "") -> list[str]:
    """Say where an answer has other members than its documentation, however deep."""
    said = said["allOf"][0] if "allOf" in said else said
    if "$ref" in said:
        said = components[said["$ref"].rpartition("/")[2]]
    if isinstance(told, list):
        return [each for row in told for each in differences(row, said["items"], components, f"{where}[]")]
    if not isinstance(told, dict) or "properties" not in said:
        return []
    here = [f"{where}.{name}" for name in told.keys() ^ said["properties"].keys()]
    return here + [
        each
        for name, value in told.items()
        if name in said["properties"]
        for each in differences(value, said["properties"][name], components, f"{where}.{name}")
    ]


def test_what_is_told_is_what_the_documentation_says(addresses: dict[str, str], ada: Program, client: Client) -> None:
    schema = client.get("/api/schema/", headers={"accept": "application/json"}).json()
    told = {name for name, method in MAY_ASK if method == "GET"} - {"log-export"}
    for each in urlpatterns:
        if isinstance(each, URLPattern) and each.name in told:
            path = re.sub("<[a-z]+:([a-z_]+)>", r"{\1}", f"/api/v1/{each.pattern}")
            content = schema["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            answer = ada.get(addresses[each.name]).json()
            assert answer
            assert not differences(answer, content, schema["components"]["schemas"]), path


def test_the_documentation_says_how_to_be_somebody(client: Client, db: None) -> None:
    schema = client.get("/api/schema/", headers={"accept": "application/json"}).json()
    assert schema["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path, methods in schema["paths"].items():
        if path.startswith("/api/v1/"):
            assert all(each["security"] == [{"token": []}, {"session": []}] for each in methods.values()), path


STOP = {"scope": "group", "target": "default", "reason": REASON, "confirm": "Default"}


def test_a_stop_is_begun_at_once_and_lifted_by_two(fleet: Portal, ada: Program, ben: Program) -> None:
    begun = ada.post("stops", STOP)
    assert (begun.status_code, begun.json()["name"], begun.json()["lifted_at"]) == (201, "the group Default", None)
    refused(ada.post("stops", STOP), 409, "cannot_stop")
    lift = ada.post(f"stops/{begun.json()['id']}/lift", {"reason": REASON})
    assert (lift.status_code, lift.json()["kind"]) == (201, "lift")
    decision = {"reason": REASON, "decision": "approve"}
    assert ben.post(f"proposals/{lift.json()['id']}/decision", decision).status_code == 200
    (row,) = ada.get("stops").json()["results"]
    assert row["lifted_by"] == "ben"
    refused(ada.post(f"stops/{row['id']}/lift", {"reason": REASON}), 404, "not_found")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"confirm": "default"}, 409, "not_confirmed"),
        ({"scope": "host", "target": "x"}, 404, "not_found"),
        ({"scope": "host"}, 404, "not_found"),
        ({"scope": "group", "target": "nowhere"}, 404, "not_found"),
        ({"scope": "planet"}, 400, "malformed_request"),
        ({"reason": "short"}, 400, "malformed_request"),
    ],
)
def test_a_stop_that_is_none_stops_nothing(
    fleet: Portal, ada: Program, changes: dict[str, str], status: int, code: str
) -> None:
    refused(ada.post("stops", {**STOP, **changes}), status, code)
    assert ada.get("stops").json()["count"] == 0
