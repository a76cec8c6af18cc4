"""What anybody may ask of the log: heads, proofs of hashes, and a witness's signature; nothing about what was done."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection, transaction
from django.db.utils import DatabaseError
from rest_framework.test import APIClient

from ledger import service
from ledger.core.checkpoint import Checkpoint, verify_checkpoint, verify_receipt
from ledger.core.note import Kind, VerifierKey, cosigned_at, parse_note, parse_vkey, sign_cosignature, verifier_key
from ledger.core.proof import parse_growth, parse_leaf_proof, verify_growth, verify_leaf_proof
from ledger.errors import Inconsistent, NotIncluded, ParseError
from ledger.models import Cosignature, Leaf, Witness
from tests.ledger.conftest import NOW, OWNER, Acting

pytestmark = pytest.mark.django_db
WITNESS = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
WITNESS_KEY = verifier_key("witness.example/1", Kind.COSIGNATURE, WITNESS)
LOG = "/ledger/v1/"


@pytest.fixture
def client() -> APIClient:
    return APIClient()


@pytest.fixture
def log(acting: Acting) -> list[Leaf]:
    leaves = acting(9, owner=OWNER)
    service.sequence_all(now=NOW)
    return leaves


def key_of(client: APIClient) -> VerifierKey:
    return parse_vkey(client.get(f"{LOG}log").json()["vkey"])


def checkpoint(client: APIClient) -> Checkpoint:
    return verify_checkpoint(parse_note(client.get(f"{LOG}checkpoint").content.decode()), key_of(client))


def cosignature(head: Checkpoint, private: Ed25519PrivateKey = WITNESS, *, at: int | None = None) -> str:
    moment = int(NOW.timestamp()) if at is None else at
    return str(sign_cosignature(head.text, WITNESS_KEY.name, private, at=moment))


def test_a_log_says_who_it_is_and_what_its_head_is(client: APIClient, log: list[Leaf]) -> None:
    answer = client.get(f"{LOG}checkpoint")
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    head = checkpoint(client)
    assert head.origin == client.get(f"{LOG}log").json()["origin"]
    assert head.size == 12  # nine acts, the beginning of the log, and the end of each of two batches


@pytest.mark.parametrize("path", ["log", "checkpoint", f"proofs/{'0' * 64}", "consistency?from=1"])
def test_a_log_that_has_not_begun_has_nothing_to_show(client: APIClient, path: str) -> None:
    answer = client.get(LOG + path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_every_leaf_is_proved_to_whoever_knows_its_hash(client: APIClient, log: list[Leaf]) -> None:
    key = key_of(client)
    for place, leaf in enumerate(log):
        proof = parse_leaf_proof(client.get(f"{LOG}proofs/{leaf.hash}").content)
        assert verify_leaf_proof(proof, bytes.fromhex(leaf.hash), key) == checkpoint(client)
        assert proof.index == place


def test_a_proof_shows_nothing_of_what_was_done(client: APIClient, log: list[Leaf]) -> None:
    said = client.get(f"{LOG}proofs/{log[0].hash}").content.decode()
    assert not any(word in said for word in (OWNER, "ada", "host", log[0].salt))


def test_a_proof_of_one_leaf_is_none_of_another(client: APIClient, log: list[Leaf]) -> None:
    proof = parse_leaf_proof(client.get(f"{LOG}proofs/{log[0].hash}").content)
    with pytest.raises(NotIncluded, match="another leaf"):
        verify_leaf_proof(proof, bytes.fromhex(log[1].hash), key_of(client))
    other = bytes.fromhex(log[1].hash)
    with pytest.raises(NotIncluded):
        verify_leaf_proof(replace(proof, leaf=other), other, key_of(client))


@pytest.mark.parametrize("leaf", ["0" * 64, "0" * 63, "G" * 64, "A" * 64, "..", "%00"])
def test_a_leaf_that_the_log_does_not_have_is_not_found(client: APIClient, log: list[Leaf], leaf: str) -> None:
    answer = client.get(f"{LOG}proofs/{leaf}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_leaf_is_not_found_before_it_is_sequenced_and_found_afterwards(
    client: APIClient, log: list[Leaf], acting: Acting
) -> None:
    (leaf,) = acting()
    assert client.get(f"{LOG}proofs/{leaf.hash}").status_code == 404
    service.sequence_all(now=NOW)
    assert client.get(f"{LOG}proofs/{leaf.hash}").status_code == 200


def test_a_later_log_is_proved_to_go_on_from_an_earlier_one(client: APIClient, log: list[Leaf], acting: Acting) -> None:
    before = checkpoint(client)
    acting(20)
    service.sequence_all(now=NOW)
    after = checkpoint(client)
    growth = parse_growth(client.get(f"{LOG}consistency", {"from": before.size, "to": after.size}).content)
    verify_growth(growth, before, after)
    assert parse_growth(client.get(f"{LOG}consistency", {"from": before.size}).content) == growth
    with pytest.raises(Inconsistent):
        verify_growth(growth, replace(before, root=bytes(32)), after)
    with pytest.raises(Inconsistent, match="other checkpoints"):
        verify_growth(growth, replace(before, size=3), after)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 400, "malformed_request"),
        ("from=0", 400, "malformed_request"),
        ("from=x", 400, "malformed_request"),
        ("from=1&to=9999999999999999999999", 400, "malformed_request"),
        ("from=5&to=4", 404, "not_found"),
        ("from=1&to=13", 404, "not_found"),
        ("from=13", 404, "not_found"),
    ],
)
def test_growth_that_there_was_not_is_not_proved(
    client: APIClient, log: list[Leaf], query: str, status: int, code: str
) -> None:
    answer = client.get(f"{LOG}consistency?{query}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_receipt_promises_a_leaf_that_the_log_then_has(client: APIClient, log: list[Leaf], acting: Acting) -> None:
    (leaf,) = acting()
    promise = verify_receipt(parse_note(service.receipt(leaf, now=NOW)), key_of(client))
    assert promise.leaf.hex() == leaf.hash
    assert promise.due == int((NOW + timedelta(seconds=60)).timestamp())
    service.sequence_all(now=NOW)
    proof = parse_leaf_proof(client.get(f"{LOG}proofs/{promise.leaf.hex()}").content)
    verify_leaf_proof(proof, promise.leaf, key_of(client))


# --- witnesses


@pytest.fixture
def witness(log: list[Leaf]) -> Witness:
    return service.add_witness(str(WITNESS_KEY), by="user:ada", now=NOW)


def posts(client: APIClient, size: object, line: object) -> Any:
    return client.post(f"{LOG}cosignatures", {"size": size, "line": line}, format="json")


def test_a_cosignature_is_kept_and_shown_with_its_checkpoint(client: APIClient, witness: Witness) -> None:
    head = checkpoint(client)
    assert posts(client, head.size, cosignature(head)).status_code == 201
    note = parse_note(client.get(f"{LOG}checkpoint").content.decode())
    assert verify_checkpoint(note, key_of(client)) == head
    assert cosigned_at(note, WITNESS_KEY) == int(NOW.timestamp())
    assert client.get(f"{LOG}log").json()["witnesses"] == [{"name": WITNESS_KEY.name, "vkey": str(WITNESS_KEY)}]


def test_the_first_cosignature_of_a_witness_stays(client: APIClient, witness: Witness) -> None:
    head = checkpoint(client)
    for later in (0, 5):
        assert posts(client, head.size, cosignature(head, at=int(NOW.timestamp()) + later)).status_code == 201
    assert Cosignature.objects.get().signed_at == NOW


def test_a_cosignature_of_nobody_known_is_refused(client: APIClient, log: list[Leaf]) -> None:
    head = checkpoint(client)
    answer = posts(client, head.size, cosignature(head))
    assert (answer.status_code, answer.json()["code"]) == (403, "unknown_witness")
    assert not Cosignature.objects.exists()


def test_what_is_no_cosignature_of_this_checkpoint_is_refused(client: APIClient, witness: Witness) -> None:
    head = checkpoint(client)
    other = Ed25519PrivateKey.generate()
    future = int(NOW.timestamp()) + 10**9
    for size, line, code in [
        (head.size, cosignature(replace(head, root=bytes(32))), "note_signature"),
        (head.size, cosignature(replace(head, size=3)), "note_signature"),
        (head.size, cosignature(head, other), "note_signature"),
        (head.size, cosignature(head, at=future), "malformed"),
        (head.size, cosignature(head)[:-1], "malformed"),
        (head.size, "no line", "malformed"),
        (head.size + 1, cosignature(head), "not_found"),
        (0, cosignature(head), "malformed_request"),
        (head.size, "x" * 2000, "malformed_request"),
        (head.size, None, "malformed_request"),
    ]:
        assert posts(client, size, line).json()["code"] == code
    assert not Cosignature.objects.exists()


def test_a_witness_that_was_removed_is_believed_no_more(client: APIClient, witness: Witness) -> None:
    head = checkpoint(client)
    posts(client, head.size, cosignature(head))
    service.remove_witness(witness.name, by="user:ada", now=NOW)
    assert posts(client, head.size, cosignature(head)).json()["code"] == "unknown_witness"
    assert cosigned_at(parse_note(client.get(f"{LOG}checkpoint").content.decode()), WITNESS_KEY) is None
    assert client.get(f"{LOG}log").json()["witnesses"] == []
    with pytest.raises(ParseError, match="already"):
        service.add_witness(str(WITNESS_KEY), by="user:ada", now=NOW)


def test_a_logs_key_does_not_make_a_witness(log: list[Leaf]) -> None:
    with pytest.raises(ParseError, match="key of a log"):
        service.add_witness(str(service.log_verifier()), by="user:ada", now=NOW)
    assert not Witness.objects.exists()


def test_who_lets_a_witness_in_is_recorded(witness: Witness) -> None:
    leaf = Leaf.objects.get(act="witness.added")
    assert (leaf.actor, leaf.detail) == ("user:ada", {"name": WITNESS_KEY.name, "key": str(WITNESS_KEY)})


@pytest.mark.parametrize("statement", ["UPDATE ledger_cosignature SET line = 'x'", "DELETE FROM ledger_cosignature"])
def test_the_database_refuses_to_change_a_cosignature(client: APIClient, witness: Witness, statement: str) -> None:
    head = checkpoint(client)
    posts(client, head.size, cosignature(head))
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


def test_answers_are_read_strictly() -> None:
    good = {"from": 1, "to": 2, "path": []}
    assert parse_growth(json.dumps(good)).new == 2
    bad: list[dict[str, object]] = [
        {"from": True},
        {"to": -1},
        {"path": ["x"]},
        {"path": [""] * 55},
        {"path": "x"},
        {"more": 1},
    ]
    for change in bad:
        with pytest.raises(ParseError):
            parse_growth(json.dumps(good | change))
    with pytest.raises(ParseError):
        parse_growth('{"from":1,"from":1,"to":2,"path":[]}')
    with pytest.raises(ParseError):
        parse_growth("[" * 100_000)
