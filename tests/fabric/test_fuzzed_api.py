"""Whatever a stranger sends to a machine endpoint, the answer is problem details with a code, and never a 500."""

import json
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attestation.core.base64url import to_b64u
from attestation.models import Challenge
from fabric.parsing import MOST_MEMBERS, SMALL_BODY
from fabric.tokens import make_token
from tests.attestation.conftest import Portal
from tests.fabric.conftest import REASON
from tests.machines import Machine
from tests.tpm_forge import SoftKey, sized

pytestmark = pytest.mark.django_db
NOBODY = UUID("00000000-0000-4000-8000-000000000000")
ENROLMENTS, CHALLENGES, RELEASES = "/attestation/v1/enrolments", "/attestation/v1/challenges", "/kps/v1/releases"
ACTIVATION, EVIDENCE = f"{ENROLMENTS}/{NOBODY}/activation", f"{CHALLENGES}/{NOBODY}/evidence"
FIELDS = {
    ENROLMENTS: ("name", "ek_public", "ek_certificate", "ak_public"),
    ACTIVATION: ("secret",),
    CHALLENGES: ("attester", "event_log_sha256"),
    EVIDENCE: (
        *("quote", "signature", "pcr_values", "event_log", "ima_log"),
        *("transport_public", "transport_certify", "transport_signature"),
    ),
    RELEASES: ("request",),
    "/ledger/v1/cosignatures": ("size", "line"),
    "/kps/v1/returns": ("message",),
    "/kps/v1/offline-starts": ("message",),
    "/kps/v1/chains": ("chain",),
    "/kps/v1/protectors": ("question",),
    "/kps/v1/approvals": ("approval",),
}
ACTS = {
    "/api/v1/mode/hostkey/proposals": ("grace_hours", "reason", "confirm", "password"),
    "/api/v1/mode/rollback": ("reason", "confirm", "password"),
    "/api/v1/proposals/1/decision": ("decision", "reason", "password"),
    "/api/v1/directory-groups": ("sid", "name", "group", "reason", "password"),
    f"/api/v1/directory-groups/{NOBODY}/retirement": ("reason", "confirm", "password"),
    "/api/v1/guardian-keys/1/changes": ("change", "reason", "confirm", "password"),
    "/api/v1/certificates/denial": ("before", "reason", "confirm", "password"),
    "/api/v1/protectors/1/denial": ("reason", "confirm", "with_machines", "password"),
}
QUESTIONS = (
    *("/api/v1/mode/hostkey/rehearsal", "/api/v1/proposals", "/api/v1/directory-groups"),
    "/api/v1/guardian-keys/1/protectors",
    *("/api/v1/protectors", "/api/v1/stops/impact", "/api/v1/certificates/denial"),
)
PARAMETERS = ("page", "page_size", "standing", "host", "state", "kind", "q", "denied", "scope", "target", "before")
FEW = settings(
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def dotted(*parts: Any) -> str:
    """Return a compact JWS of parts that may be anything."""
    return ".".join(to_b64u(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in parts)


# Lone surrogates are in JSON as \ud800; NUL breaks PostgreSQL; huge numbers break int().
TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", "\0", "a\0b", "\ud800", "A" * 99, "1" * 5000, "..", "host", str(NOBODY), to_b64u(bytes(64)), "0" * 64]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.just(10**400)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
HEADERS = st.fixed_dictionaries(
    {"alg": st.sampled_from(["HS256", "ES256", "none"]) | JSON, "kid": st.just("a" * 32) | JSON}
)
TOKENS = st.builds(dotted, HEADERS | JSON, JSON, st.binary(min_size=32, max_size=64))
PCRS = st.dictionaries(st.sampled_from(["0", "7", "23", "24", "-1", "1" * 5000, "٣"]), TEXTS | JSON, max_size=3)


def bodies(path: str) -> st.SearchStrategy[Any]:
    values = JSON | TOKENS | PCRS | st.builds(to_b64u, st.binary(max_size=80))
    return JSON | st.fixed_dictionaries({}, optional=dict.fromkeys((FIELDS | ACTS)[path], values))


def checked(answer: Any) -> Any:
    assert answer.status_code < 500, answer.content
    if answer.status_code >= 400:
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["code"]
    return answer


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


@pytest.fixture
def challenge(portal: Portal, healthy: Machine) -> str:
    """A live challenge, so that Evidence is read and not refused before."""
    portal.enrol(healthy)
    return f"{CHALLENGES}/{portal.challenge(healthy).json()['id']}/evidence"


@pytest.mark.parametrize("path", FIELDS)
@FEW
@given(data=st.data())
def test_any_json_gets_an_answer_with_a_code(client: Client, path: str, data: st.DataObject) -> None:
    body = json.dumps(data.draw(bodies(path)))
    checked(client.post(path, body, content_type="application/json"))


@pytest.fixture
def program(client: Client, approver: User, admin: User) -> Client:
    """A program of somebody who may do everything."""
    approver.groups.add(*admin.groups.all())
    _, secret = make_token("ci", lifetime=timedelta(days=1), by=approver, reason=REASON, now=timezone.now())
    return Client(raise_request_exception=False, headers={"authorization": f"Bearer {secret}"})


@pytest.mark.parametrize("path", ACTS)
@FEW
@given(data=st.data())
def test_any_act_of_a_person_gets_an_answer_with_a_code(program: Client, path: str, data: st.DataObject) -> None:
    body = json.dumps(data.draw(bodies(path)))
    assert checked(program.post(path, body, content_type="application/json")).status_code not in {401, 403}


@pytest.mark.parametrize("path", QUESTIONS)
@FEW
@given(asked=st.dictionaries(st.sampled_from(PARAMETERS), TEXTS))
def test_any_question_gets_an_answer_with_a_code(program: Client, path: str, asked: dict[str, str]) -> None:
    sent = urlencode({name: value.encode(errors="surrogatepass") for name, value in asked.items()})
    assert checked(program.get(f"{path}?{sent}")).status_code not in {401, 403}


@FEW
@given(header=TEXTS | TOKENS | st.text(max_size=99).map("guard_".__add__))
def test_any_token_gets_an_answer_with_a_code(client: Client, header: str) -> None:
    sent = f"Bearer {header}".encode(errors="replace").decode("latin-1")
    answer = checked(client.get("/api/v1/mode", headers={"authorization": sent}))
    assert answer.status_code == 401


@FEW
@given(data=st.data())
def test_any_evidence_under_a_live_challenge_gets_an_answer_with_a_code(
    client: Client, challenge: str, data: st.DataObject
) -> None:
    Challenge.objects.update(spent_at=None)
    body = json.dumps(data.draw(bodies(EVIDENCE)))
    checked(client.post(challenge, body, content_type="application/json"))


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        pytest.param(b"", "application/json", 400, id="empty"),
        pytest.param(b"\xff\xfe\x00", "application/json", 400, id="not UTF-8"),
        pytest.param('{"name": "ü"}'.encode("utf-16"), "application/json; charset=utf-16", 400, id="another charset"),
        pytest.param(b"x\x9c\x03\x00\x00\x00\x00\x01", "application/json; charset=zlib", 400, id="compressed charset"),
        pytest.param(b"[" * 100_000, "application/json", 400, id="nested deeply"),
        pytest.param(b"[" * MOST_MEMBERS, "application/json", 400, id="nested as deeply as is read"),
        pytest.param(b"[{},{},{}" + b",{}" * MOST_MEMBERS + b"]", "application/json", 400, id="many members"),
        pytest.param(b'{"name": "a", "name": "b"}', "application/json", 400, id="a member twice"),
        pytest.param(b'{"name": NaN}', "application/json", 400, id="not a number"),
        pytest.param(b"1" * 5000, "application/json", 400, id="a long number"),
        pytest.param(b"{}", "text/plain", 415, id="another type"),
        pytest.param(b"{}", ";;;", 415, id="no type"),
    ],
)
def test_a_body_that_is_no_message_is_refused(
    client: Client, path: str, body: bytes, content_type: str, status: int
) -> None:
    answer = checked(client.generic("POST", path, body, content_type=content_type))
    assert answer.status_code == status


@pytest.mark.parametrize("path", [path for path in FIELDS if path != EVIDENCE])
def test_a_body_larger_than_any_message_is_refused_before_it_is_parsed(client: Client, path: str) -> None:
    answer = checked(client.post(path, b" " * (SMALL_BODY + 1), content_type="application/json"))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_evidence_without_a_challenge_is_refused_unread(client: Client) -> None:
    answer = checked(client.post(EVIDENCE, b" " * (SMALL_BODY + 1), content_type="application/json"))
    assert (answer.status_code, answer.json()["code"]) == (409, "challenge_spent")


def test_an_endorsement_key_that_nothing_can_be_encrypted_to_is_refused(client: Client) -> None:
    """OpenSSL makes a key of an even modulus, and fails when it is used."""
    modulus = sized((1 << 2047).to_bytes(256, "big"))
    head = bytes.fromhex("0001 000b 000300b2") + sized(bytes(32)) + bytes.fromhex("0006 0080 0043 0010 0800 00000000")
    ak = SoftKey(ec.generate_private_key(ec.SECP256R1()))
    body = {"name": "nbg-a09", "ek_public": to_b64u(sized(head + modulus)), "ak_public": to_b64u(ak.public)}
    answer = checked(client.post(ENROLMENTS, json.dumps(body), content_type="application/json"))
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


@pytest.mark.parametrize("alg", [[], {}, None, True, "none", "HS512"])
def test_a_release_request_with_another_algorithm_is_refused(client: Client, alg: object) -> None:
    token = dotted({"alg": alg, "kid": "a" * 32}, {}, bytes(32))
    answer = checked(client.post(RELEASES, json.dumps({"request": token}), content_type="application/json"))
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


@pytest.mark.parametrize("pcr", ["1" * 5000, "24", "-1", "07", "٣", ""])
def test_evidence_about_something_that_is_no_pcr_is_refused(client: Client, challenge: str, pcr: str) -> None:
    answer = checked(client.post(challenge, json.dumps({"pcr_values": {pcr: "AA"}}), content_type="application/json"))
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
