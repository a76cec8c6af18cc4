"""Releases against real certificates of a software TPM: who gets a key, who does not, and what is written down."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from django.contrib.auth.models import Permission, User
from django.core import serializers
from django.db import DatabaseError, IntegrityError, connection, transaction

from attestation import service as attestation
from kps import errors, service
from kps.core.guardian import GuardianKeys
from kps.core.protector import open_protector, verify_protector
from kps.models import KeyProtectorRecord, KeyRelease, ServiceKey
from ledger import service as ledger
from ledger.core.checkpoint import verify_receipt
from ledger.core.leaf import Act
from ledger.core.note import parse_note, parse_vkey
from ledger.core.proof import parse_leaf_proof, verify_leaf_proof
from tests.attestation.conftest import Portal
from tests.kps.conftest import Host, lifted
from tests.kps.parties import (
    FABRIC,
    ID,
    KEY,
    OWNER,
    OWNERS,
    STRANGER,
    STRANGERS,
    SUBJECT,
    TWIN_SUBJECT,
    rewrapped,
    said,
    sealed,
    signed,
    succession,
)
from tests.kps.parties import protector as made_by

Protect = Callable[..., dict[str, Any]]


def now() -> datetime:
    return datetime.now(UTC)


def refused_rows() -> list[tuple[str, str]]:
    """The codes of refusals, as rows and as leaves say them."""
    rows = [row.code for row in service.releases() if not row.released]
    leaves = [str(leaf.detail["code"]) for leaf in ledger.leaves(act_prefix="key.refused")]
    return list(zip(rows, leaves, strict=True))


# --- released ----------------------------------------------------------------------------------------------------


def test_a_healthy_host_gets_the_key_and_the_next_one(host: Host, protect: Protect) -> None:
    answer = host.posts(host.asks(protect()))
    assert answer.status_code == 200
    keys = host.opens(answer.json()["wrapped_keys"])
    assert (keys.ingress, keys.level, keys.protector, keys.roll) == (KEY, "shielded", ID, 1)
    rolled = verify_protector(answer.json()["key_protector"])
    assert rolled.roll == 1
    assert open_protector(rolled, OWNER.encryption) == keys.egress != KEY


def test_the_rolled_protector_starts_the_vm_again_and_so_does_the_old_one(host: Host, protect: Protect) -> None:
    """A host that died after the release still has only the old one."""
    first = protect()
    rolled = host.posts(host.asks(first)).json()
    again = host.opens(host.posts(host.asks(first)).json()["wrapped_keys"])
    following = host.opens(host.posts(host.asks(rolled["key_protector"])).json()["wrapped_keys"])
    assert again.ingress == KEY
    assert following.ingress == host.opens(rolled["wrapped_keys"]).egress
    assert following.roll == 2
    assert KeyProtectorRecord.objects.get().last_roll == 2


def test_a_release_is_a_row_and_a_leaf(host: Host, protect: Protect) -> None:
    host.posts(host.asks(protect(level="encryption-supported")))
    row = service.releases(owner_fingerprint=OWNER.guardian.fingerprint).get()
    assert row.released
    assert (row.vm, row.host, row.serial) == ("payroll", "nbg-a01", host.serial)
    assert (row.level, row.roll, row.mode, row.protector_id) == ("encryption-supported", 0, "tpm", ID)
    assert row.attestation_id == attestation.certificate(host.serial).attestation.id
    leaf = ledger.leaves(act_prefix="key.").get()
    assert (leaf.act, leaf.subject) == ("key.released", SUBJECT)
    assert leaf.actor == f"host:{row.attester_id}"
    assert leaf.detail["release"] == row.pk


def test_a_release_comes_with_the_logs_promise_which_it_keeps(host: Host, protect: Protect) -> None:
    answer = host.posts(host.asks(protect())).json()
    leaf = ledger.leaves(act_prefix="key.").get()
    key = parse_vkey(host.client.get("/ledger/v1/log").json()["vkey"])
    promise = verify_receipt(parse_note(answer["receipt"]), key)
    assert promise.leaf.hex() == leaf.hash
    assert 0 < promise.due - now().timestamp() <= 61
    ledger.sequence_all(now=now())
    proof = parse_leaf_proof(host.client.get(f"/ledger/v1/proofs/{leaf.hash}").content)
    verify_leaf_proof(proof, promise.leaf, key)


def test_a_refusal_is_a_leaf_of_its_owner_too(host: Host, protect: Protect) -> None:
    host.posts(host.asks(protect(STRANGER.guardian)))
    ledger.sequence_all(now=now())
    leaf = ledger.leaves(act_prefix="key.refused").get()
    assert ledger.entries_of([leaf])[leaf.pk].owner == OWNER.guardian.fingerprint


def test_a_row_cannot_be_changed_or_removed(host: Host, protect: Protect) -> None:
    host.posts(host.asks(protect()))
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        service.releases().update(vm="other")
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        service.releases().delete()


def test_no_plain_key_is_ever_in_the_database(host: Host, protect: Protect) -> None:
    answer = host.posts(host.asks(protect())).json()
    egress = host.opens(answer["wrapped_keys"]).egress
    models = (ServiceKey, KeyProtectorRecord, KeyRelease, type(ledger.leaves().model()))
    content = "".join(serializers.serialize("json", model._default_manager.all()) for model in models)
    raw = b"".join(bytes(key.sealed) for key in ServiceKey.objects.all())
    for key in (KEY, egress, host.secret):
        assert key not in raw
        assert key.hex() not in content
    assert service.metadata(now=now())
    if connection.vendor == "sqlite":
        with open(str(connection.settings_dict["NAME"]), "rb") as file:
            stored = file.read()
        assert not any(key in stored for key in (KEY, egress, host.secret))


# --- no row, no key ----------------------------------------------------------------------------------------------


class Broken(Exception):
    """What a full disk would be."""


def test_without_a_leaf_there_is_no_row_and_no_key(host: Host, protect: Protect) -> None:
    def break_down(act: Act, **_: object) -> None:
        if act.act == "key.released":
            raise Broken

    ledger.recorded.connect(break_down)
    try:
        with pytest.raises(Broken):
            service.release(host.asks(protect()), now=now())
    finally:
        ledger.recorded.disconnect(break_down)
    assert not service.releases().exists()
    assert not KeyProtectorRecord.objects.exists()


def test_without_a_row_there_is_no_leaf_and_no_key(host: Host, protect: Protect) -> None:
    def break_down(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if 'INSERT INTO "kps_keyrelease"' in sql:
            raise IntegrityError("the table is gone")
        return execute(sql, *rest)

    with connection.execute_wrapper(break_down), pytest.raises(IntegrityError):
        service.release(host.asks(protect()), now=now())
    assert not ledger.leaves(act_prefix="key.").exists()


# --- not authenticated: no row -----------------------------------------------------------------------------------


def test_a_thief_of_certificate_and_protector_gets_nothing_and_writes_nothing(host: Host, protect: Protect) -> None:
    answer = host.posts(host.asks(protect(), secret=b"guessed!" * 4))
    assert (answer.status_code, answer.json()["code"]) == (401, "release_request_refused")
    assert not service.releases().exists()
    assert not ledger.leaves(act_prefix="key.").exists()


def test_an_altered_request_is_refused(host: Host, protect: Protect) -> None:
    head, _, mac = host.asks(protect()).split(".")
    other = host.asks(protect(), vm="other").split(".")[1]
    assert host.posts(f"{head}.{other}.{mac}").json()["code"] == "release_request_refused"
    assert not service.releases().exists()


def test_a_serial_that_was_never_issued_is_refused_with_the_same_words(host: Host, protect: Protect) -> None:
    known = host.posts(host.asks(protect(), secret=b"x" * 32))
    unknown = host.posts(host.asks(protect(), serial="ab" * 16))
    # Even with the secret that custody would derive for it.
    derived = host.posts(host.asks(protect(), serial="ab" * 16, secret=attestation.release_secret("ab" * 16)))
    assert known.json() == unknown.json() == derived.json()


@pytest.mark.parametrize("token", ["", "a.b.c", "x" * 200_000, None, 7, {"a": 1}, "ü.ü.ü"], ids=lambda t: str(t)[:8])
def test_what_is_no_request_is_malformed(db: None, token: object) -> None:
    from rest_framework.test import APIClient

    answer = APIClient().post("/kps/v1/releases", {"request": token}, format="json")
    assert answer.status_code in {400, 413}
    assert answer.json()["code"] in {"malformed_request", "too_large"}


# --- authenticated and refused: a row, a leaf, no key ------------------------------------------------------------


def test_a_request_answers_once(host: Host, protect: Protect) -> None:
    token = host.asks(protect())
    first, second = host.posts(token), host.posts(token)
    assert (first.status_code, second.status_code) == (200, 409)
    assert second.json()["code"] == "release_replayed"
    assert service.releases().count() == 1


def test_a_nonce_answers_once_whatever_is_asked_with_it(host: Host, protect: Protect) -> None:
    host.posts(host.asks(protect(), nonce=b"n" * 32))
    assert host.posts(host.asks(protect(), nonce=b"n" * 32, vm="other")).json()["code"] == "release_replayed"


def test_a_refusal_spends_the_nonce_too(host: Host) -> None:
    token = host.asks(made_by(FABRIC))
    assert host.posts(token).json()["code"] == "guardian_not_named"
    assert host.posts(token).json()["code"] == "release_replayed"
    assert service.releases().count() == 1


def test_two_nodes_cannot_both_answer_one_nonce(host: Host, protect: Protect) -> None:
    """What both saw as new, the database takes once."""
    host.posts(host.asks(protect()))
    twin = service.releases().get()
    twin.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        twin.save(force_insert=True)


@pytest.mark.parametrize("seconds", [-90, 90])
def test_a_stale_request_is_refused_with_a_word_about_the_clock(host: Host, protect: Protect, seconds: int) -> None:
    answer = host.posts(host.asks(protect(), at=int(now().timestamp()) + seconds))
    assert (answer.status_code, answer.json()["code"]) == (401, "release_stale")
    assert "clock" in answer.json()["detail"]
    assert refused_rows() == [("release_stale", "release_stale")]


def test_an_expired_certificate_gets_no_key(host: Host, protect: Protect) -> None:
    later = x509.load_der_x509_certificate(host.certificate).not_valid_after_utc + timedelta(seconds=1)
    with pytest.raises(attestation_error("CertificateExpired")):
        service.release(host.asks(protect(), at=int(later.timestamp())), now=later)
    assert refused_rows() == [("certificate_expired", "certificate_expired")]


def test_a_certificate_that_lapsed_long_ago_does_not_even_leave_a_row(host: Host, protect: Protect) -> None:
    later = now() + timedelta(days=2)
    with pytest.raises(errors.ReleaseRequestRefused):
        service.release(host.asks(protect(), at=int(later.timestamp())), now=later)
    assert refused_rows() == []


def attestation_error(name: str) -> type[Exception]:
    from attestation import errors as of_attestation

    return getattr(of_attestation, name)  # type: ignore[no-any-return]  # one of its classes


def test_a_revoked_certificate_gets_no_key(host: Host, protect: Protect, admin: User) -> None:
    attestation.revoke_certificate(host.serial, by=admin, reason="lost", now=now())
    assert host.posts(host.asks(protect())).json()["code"] == "certificate_revoked"
    assert refused_rows() == [("certificate_revoked", "certificate_revoked")]


def test_a_revoked_host_gets_no_key_and_the_owner_sees_that_it_asked(host: Host, protect: Protect, admin: User) -> None:
    attestation.revoke_host(UUID(host.machine.attester), by=admin, reason="stolen", now=now())
    answer = host.posts(host.asks(protect()))
    assert answer.status_code == 403
    row = service.releases(owner_fingerprint=OWNER.guardian.fingerprint).get()
    assert (row.released, row.host, row.code) == (False, "nbg-a01", answer.json()["code"])


def test_certificates_denied_by_date_get_no_key(host: Host, protect: Protect, admin: User) -> None:
    attestation.deny_issued_before(now(), by=admin, reason="breach", now=now())
    assert host.posts(host.asks(protect())).status_code == 403
    assert len(refused_rows()) == 1


def test_the_certificate_of_another_attestation_is_refused(host: Host, fabric: Portal, protect: Protect) -> None:
    """The secret of one certificate does not speak for another, even of the same host."""
    from tests.machines import decoded

    other = decoded(fabric.attest(host.machine).json(), "certificate")
    assert host.posts(host.asks(protect(), certificate=other)).json()["code"] == "release_request_refused"
    assert len(refused_rows()) == 1


def test_a_certificate_of_our_own_making_is_refused(host: Host, protect: Protect) -> None:
    altered = bytearray(host.certificate)
    altered[-1] ^= 1
    assert host.posts(host.asks(protect(), certificate=bytes(altered))).status_code == 403
    assert len(refused_rows()) == 1


def test_a_fabric_that_the_owner_has_not_named_gets_no_key(host: Host) -> None:
    assert host.posts(host.asks(made_by(FABRIC))).json()["code"] == "guardian_not_named"
    assert refused_rows() == [("guardian_not_named", "guardian_not_named")]
    assert not KeyProtectorRecord.objects.exists()


def test_an_altered_level_gets_no_key(host: Host, protect: Protect) -> None:
    document = protect()
    root = signed(said(document["chain"][0]) | {"level": "encryption-supported"}, STRANGER, kid_of=OWNER)
    forged = document | {"chain": [root, *document["chain"][1:]]}
    answer = host.posts(host.asks(forged))
    assert (answer.status_code, answer.json()["code"]) == (422, "protector_signature")
    row = service.releases().get()
    assert (row.owner_fingerprint, row.protector_id, row.level) == ("", None, "")
    assert ledger.leaves(act_prefix="key.refused").get().subject == f"certificate:{host.serial}"


def test_a_fabric_that_adds_itself_gets_no_key(host: Host, guardian: Any) -> None:
    """The chain of another fabric's VM, with a succession to us by somebody whom the owner has not named."""
    document = made_by(FABRIC)
    link = signed(succession(document["chain"], STRANGER, guardian), STRANGER)
    forged = rewrapped(document | {"chain": [*document["chain"], link]}, OWNER, FABRIC, STRANGER)
    assert host.posts(host.asks(sealed(forged, STRANGER, roll=1))).json()["code"] == "protector_stranger"


def test_a_malformed_protector_of_an_authentic_host_is_a_row(host: Host) -> None:
    assert host.posts(host.asks({"version": 1})).json()["code"] == "malformed_protector"
    assert refused_rows() == [("malformed_protector", "malformed_protector")]


def test_rows_without_an_owner_belong_to_nobody(host: Host) -> None:
    host.posts(host.asks({"version": 1}))
    assert not service.releases(owner_fingerprint="").exists()


# --- the same id, signed by two owners ---------------------------------------------------------------------------

ALIEN = bytes(reversed(KEY))


@pytest.mark.parametrize("order", [(STRANGER, OWNER), (OWNER, STRANGER)], ids=["stranger first", "owner first"])
def test_an_id_that_another_owner_has_signed_too_blocks_nobody(
    host: Host, protect: Protect, order: tuple[GuardianKeys, GuardianKeys]
) -> None:
    keys = {OWNER.name: KEY, STRANGER.name: ALIEN}
    for owner in order:
        answer = host.posts(host.asks(protect(owner=owner, key=keys[owner.name])))
        assert answer.status_code == 200
        assert host.opens(answer.json()["wrapped_keys"]).ingress == keys[owner.name]
    for fingerprint in (OWNERS, STRANGERS):
        assert service.protectors(owner_fingerprint=fingerprint).get().protector_id == ID
        assert service.releases(owner_fingerprint=fingerprint).get().owner_fingerprint == fingerprint
    assert [leaf.subject for leaf in ledger.leaves(act_prefix="key.released", subject=SUBJECT)] == [SUBJECT]
    assert ledger.leaves(subject=TWIN_SUBJECT).get().detail["owner"] == STRANGERS


def test_each_owner_s_starts_and_rolls_are_its_own(host: Host, protect: Protect) -> None:
    host.posts(host.asks(protect(owner=STRANGER)))
    first = host.posts(host.asks(protect())).json()
    host.posts(host.asks(first["key_protector"]))
    given = service.starts([(OWNERS, ID)])
    assert {key: (count, row.owner_fingerprint) for key, (count, row) in given.items()} == {(OWNERS, ID): (2, OWNERS)}
    assert service.starts([(STRANGERS, ID)])[STRANGERS, ID][0] == 1
    rolls = {row.owner_fingerprint: row.last_roll for row in service.protectors()}
    assert rolls == {OWNERS: 2, STRANGERS: 1}


def test_one_owner_s_id_is_one_row(host: Host, protect: Protect) -> None:
    host.posts(host.asks(protect()))
    twin = service.protectors().get()
    twin.pk = None
    with pytest.raises(IntegrityError), transaction.atomic():
        twin.save(force_insert=True)


# --- people decide -----------------------------------------------------------------------------------------------


@pytest.fixture
def warden(db: None) -> User:
    user = User.objects.create_user("wanda")
    user.user_permissions.add(Permission.objects.get(content_type__app_label="kps", codename="deny"))
    return User.objects.get(pk=user.pk)


def test_a_denied_protector_gets_no_key_until_it_is_allowed(host: Host, protect: Protect, warden: User) -> None:
    assert host.posts(host.asks(protect())).status_code == 200
    service.deny_protector(OWNERS, ID, by=warden, reason="court order", now=now())
    assert host.posts(host.asks(protect())).json()["code"] == "protector_denied"
    lifted(OWNERS, ID, by=warden)
    assert host.posts(host.asks(protect())).status_code == 200
    acts = [leaf.act for leaf in ledger.leaves(subject=SUBJECT)]
    assert acts == [
        *("key.released", "protector.allowed", "protector.lift_proposed"),
        *("key.refused", "protector.denied", "key.released"),
    ]


def test_a_denial_holds_until_a_second_person_has_decided_that_it_ends(
    host: Host, protect: Protect, warden: User
) -> None:
    host.posts(host.asks(protect()))
    service.deny_protector(OWNERS, ID, by=warden, reason="court order", now=now())
    first = service.propose_lift(OWNERS, ID, by=warden, reason="over", now=now())
    with pytest.raises(errors.AlreadyDecided):
        service.propose_lift(OWNERS, ID, by=warden, reason="over", now=now())
    with pytest.raises(errors.NotAllowed):
        service.decide_lift(first.pk, by=warden, approve=True, reason="over", now=now())
    warden.user_permissions.add(Permission.objects.get(content_type__app_label="kps", codename="decide_lift"))
    both = User.objects.get(pk=warden.pk)
    with pytest.raises(errors.FourEyes):
        service.decide_lift(first.pk, by=both, approve=True, reason="over", now=now())
    second = User.objects.create_superuser("sue")
    service.decide_lift(first.pk, by=second, approve=False, reason="it is not over", now=now())
    assert host.posts(host.asks(protect())).json()["code"] == "protector_denied"
    with pytest.raises(errors.AlreadyDecided):
        service.decide_lift(first.pk, by=second, approve=True, reason="it is", now=now())
    with pytest.raises(errors.NotFound):
        service.decide_lift(first.pk + 9, by=second, approve=True, reason="it is", now=now())
    assert ledger.leaves(act_prefix="protector.")[0].act == "protector.lift_rejected"
    lifted(OWNERS, ID, by=both)
    assert host.posts(host.asks(protect())).status_code == 200


def test_with_four_eyes_off_one_person_lifts_a_denial(
    host: Host, protect: Protect, warden: User, settings: Any
) -> None:
    settings.FOUR_EYES = False
    host.posts(host.asks(protect()))
    service.deny_protector(OWNERS, ID, by=warden, reason="court order", now=now())
    alone = User.objects.create_superuser("sue")
    proposal = service.propose_lift(OWNERS, ID, by=alone, reason="over", now=now())
    assert service.decide_lift(proposal.pk, by=alone, approve=True, reason="over", now=now()).state == "approved"
    assert host.posts(host.asks(protect())).status_code == 200


def test_denying_one_owner_s_protector_leaves_the_other_s_alone(host: Host, protect: Protect, warden: User) -> None:
    host.posts(host.asks(protect(owner=STRANGER)))
    host.posts(host.asks(protect()))
    service.deny_protector(STRANGERS, ID, by=warden, reason="court order", now=now())
    assert host.posts(host.asks(protect(owner=STRANGER))).json()["code"] == "protector_denied"
    assert host.posts(host.asks(protect())).status_code == 200
    with pytest.raises(errors.NotFound):
        service.propose_lift(OWNERS, ID, by=warden, reason="not denied", now=now())
    assert ledger.leaves(act_prefix="protector.").get().subject == TWIN_SUBJECT


def test_who_may_not_decide_does_not(host: Host, protect: Protect, admin: User, warden: User) -> None:
    host.posts(host.asks(protect()))
    for act in (service.deny_protector, service.propose_lift):
        with pytest.raises(errors.NotAllowed):
            act(OWNERS, ID, by=admin, reason="x", now=now())
    for owner, protector in ((OWNERS, UUID(int=9)), (STRANGERS, ID)):
        with pytest.raises(errors.NotFound):
            service.deny_protector(owner, protector, by=warden, reason="x", now=now())
    with pytest.raises(errors.NotFound):
        service.propose_lift(OWNERS, ID, by=warden, reason="x", now=now())


# --- the fabric's guardian ---------------------------------------------------------------------------------------


def test_metadata_names_one_guardian_for_good(client: Any, db: None) -> None:
    from kps.core.guardian import parse_metadata

    first, second = (parse_metadata(client.get("/kps/v1/metadata").json()["metadata"]) for _ in range(2))
    assert first == second
    assert first.fingerprint == service.guardian_fingerprint(now=now())
    assert ServiceKey.objects.count() == 2


def test_a_node_that_loses_the_race_uses_the_winner_s_key(db: None) -> None:
    from django.db.models.signals import post_init

    def other_node(**_: object) -> None:
        post_init.disconnect(other_node, sender=ServiceKey)
        service.guardian_fingerprint(now=now())

    post_init.connect(other_node, sender=ServiceKey)
    mine = service.guardian_fingerprint(now=now())
    assert mine == service.guardian_fingerprint(now=now())
    assert ServiceKey.objects.count() == 2


def test_the_messages_are_in_the_schema(client: Any, db: None) -> None:
    schema = client.get("/api/schema/", headers={"accept": "application/json"}).json()
    assert {"/kps/v1/metadata", "/kps/v1/releases"} <= set(schema["paths"])
    assert "key_protector" in json.dumps(schema["components"])
