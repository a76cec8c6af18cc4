"""The owner's newest word binds this fabric, whatever a host presents, and nobody else's word does."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, transaction
from rest_framework.test import APIClient

from kps import errors, service
from kps.core.chain import VerifiedChain
from kps.core.guardian import Guardian
from kps.core.protector import open_protector, roll_protector, verify_protector, wrap_again
from kps.core.release_policy import ReleasePolicy
from kps.models import KeyProtectorRecord, OwnerStatement
from ledger import service as ledger
from tests.kps.conftest import Host
from tests.kps.parties import (
    FABRIC,
    ID,
    KEY,
    OTHER_FABRIC,
    OWNER,
    OWNERS,
    STRANGER,
    SUBJECT,
    changed,
    said,
    sealed,
    signed,
)
from tests.kps.parties import protector as made_by

Protect = Callable[..., dict[str, Any]]


def now() -> datetime:
    return datetime.now(UTC)


def brings(chain: VerifiedChain | dict[str, Any]) -> Any:
    """Bring a chain to the portal, as anybody may who has it."""
    body = chain.document if isinstance(chain, VerifiedChain) else chain
    return APIClient().post("/kps/v1/chains", body, format="json")


@pytest.fixture
def known(host: Host, protect: Protect) -> dict[str, Any]:
    """A protector that has been released once."""
    document = protect()
    assert host.posts(host.asks(document)).status_code == 200
    return document


# --- taken -------------------------------------------------------------------------------------------------------


def test_a_newer_chain_is_taken_and_binds_the_old_protector(host: Host, known: dict[str, Any]) -> None:
    answer = brings(changed(known, level="encryption-supported"))
    assert (answer.status_code, answer.json()) == (200, {"serial": 1})
    released = host.starts(known)
    assert host.opens(released["wrapped_keys"]).level == "encryption-supported"
    rolled = verify_protector(released["key_protector"])
    assert (rolled.level, rolled.chain.statement.serial) == ("encryption-supported", 1)
    row = service.releases()[0]
    assert (row.level, row.owner_serial, row.statement_sha256) == (
        "encryption-supported",
        1,
        rolled.chain.statement_sha256,
    )
    assert ledger.leaves(act_prefix="key.released")[0].detail["owner_serial"] == 1


def test_an_old_backup_is_bound_by_the_newest_word(host: Host, protect: Protect) -> None:
    """The rolled protector has the newer word; the one before it, from a backup, is bound all the same."""
    backup = protect()
    host.starts(backup)
    brings(changed(backup, policy=ReleasePolicy(host_groups=("elsewhere",))))
    assert host.starts(backup)["code"] == "host_group_not_allowed"


def test_a_grant_needs_no_outage_and_no_key(host: Host, known: dict[str, Any], guardian: Guardian) -> None:
    assert brings(changed(known, guardians=(guardian, OTHER_FABRIC.guardian))).status_code == 200
    released = host.starts(known)
    egress = host.opens(released["wrapped_keys"]).egress
    rolled = verify_protector(released["key_protector"])
    assert open_protector(rolled, OTHER_FABRIC.encryption) == egress


def test_a_revoked_fabric_gets_no_key(host: Host, known: dict[str, Any]) -> None:
    brings(changed(known, guardians=(FABRIC.guardian,)))
    assert host.starts(known)["code"] == "guardian_revoked"
    row = service.releases()[0]
    assert (row.released, row.owner_serial) == (False, 1)


def test_a_taken_chain_is_a_leaf(known: dict[str, Any]) -> None:
    chain = changed(known, policy=ReleasePolicy(minimum_mode="tpm"))
    brings(chain)
    leaf = ledger.leaves(act_prefix="chain.").get()
    assert (leaf.act, leaf.subject, leaf.actor) == ("chain.taken", SUBJECT, f"owner:{OWNERS}")
    assert leaf.detail["statement"] == chain.statement_sha256
    assert leaf.detail["release_policy"] == {"minimum_mode": "tpm"}
    assert (leaf.detail["before"], leaf.detail["serial"]) == (0, 1)


def test_every_word_of_the_owner_is_kept_as_it_was_signed(known: dict[str, Any]) -> None:
    chain = changed(known, serial=7, level="encryption-supported")
    brings(chain)
    kept = OwnerStatement.objects.filter(record__protector_id=ID)
    assert [each.serial for each in kept] == [7, 0]
    assert kept[0].token == chain.links[0]
    assert service.newest_chain(OWNERS, ID).statement == chain.statement
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        kept.update(token="x")


def test_a_newer_chain_that_a_host_presents_is_kept(host: Host, known: dict[str, Any], guardian: Guardian) -> None:
    newer = changed(known, serial=3, level="encryption-supported")
    document = wrap_again(newer, roll=1, key=KEY, signer=OWNER.signing)
    assert host.posts(host.asks(document)).status_code == 200
    assert KeyProtectorRecord.objects.get().serial == 3
    assert ledger.leaves(act_prefix="chain.taken").get().actor.startswith("host:")
    assert brings(changed(known, serial=2)).json()["code"] == "chain_not_newer"


def test_a_newer_chain_is_kept_even_where_it_refuses_the_release(host: Host, known: dict[str, Any]) -> None:
    """Or else a host could see what the owner wants next, and go back to what suits it better."""
    newer = changed(known, guardians=(FABRIC.guardian,))
    presented = wrap_again(newer, roll=1, key=KEY, signer=OWNER.signing)
    assert host.starts(presented)["code"] == "guardian_not_named"
    assert host.starts(known)["code"] == "guardian_revoked"


def test_what_was_granted_later_needs_a_key_that_is_wrapped_for_it(host: Host, guardian: Guardian, ada: User) -> None:
    """A protector that another fabric had, registered here, and granted to us by a newer chain."""
    document = made_by(FABRIC)
    service.know_protector(verify_protector(document).chain, by=ada, now=now())
    brings(changed(document, guardians=(FABRIC.guardian, guardian)))
    assert host.starts(document)["code"] == "protector_not_rewrapped"


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("adam")


# --- refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("serial", [0, 1, 4, 5])
def test_a_chain_that_is_not_newer_is_refused_and_changes_nothing(known: dict[str, Any], serial: int) -> None:
    brings(changed(known, serial=5))
    before = KeyProtectorRecord.objects.values().get()
    answer = brings(changed(known, serial=serial, level="encryption-supported"))
    assert (answer.status_code, answer.json()["code"]) == (409, "chain_not_newer")
    assert "5" in answer.json()["detail"]
    assert KeyProtectorRecord.objects.values().get() == before
    leaf = ledger.leaves(act_prefix="chain.refused").get()
    assert (leaf.detail["serial"], leaf.detail["in_force"]) == (serial, 5)


def test_a_replayed_chain_leaves_one_trace_however_often_it_comes(known: dict[str, Any]) -> None:
    chain = changed(known)
    assert [brings(chain).status_code for _ in range(4)] == [200, 409, 409, 409]
    assert brings({"chain": known["chain"]}).status_code == 409
    assert ledger.leaves(act_prefix="chain.refused").count() == 2


def test_a_chain_of_another_owner_changes_nothing_of_this_one_s(host: Host, known: dict[str, Any]) -> None:
    """The same id, signed by somebody else: another protector, which this fabric has never seen."""
    alien = changed(made_by(FABRIC, owner=STRANGER), STRANGER, serial=9, level="encryption-supported")
    answer = brings(alien)
    assert (answer.status_code, answer.json()["code"]) == (404, "chain_unknown")
    assert host.opens(host.starts(known)["wrapped_keys"]).level == "shielded"
    assert not ledger.leaves(act_prefix="chain.").exists()


def test_a_chain_that_names_the_owner_and_is_signed_by_a_stranger_is_refused(known: dict[str, Any]) -> None:
    lie = said(known["chain"][0]) | {"serial": 1, "level": "encryption-supported"}
    for token in (signed(lie, STRANGER), signed(lie, STRANGER, kid_of=OWNER)):
        answer = brings({"chain": [token]})
        assert (answer.status_code, answer.json()["code"]) == (422, "protector_signature")


def test_a_guardian_cannot_grant(host: Host, known: dict[str, Any], guardian: Guardian) -> None:
    """Neither may this fabric's own keys, whoever has stolen them, add anybody to what the owner has signed."""
    from kps.remembered import remembered

    mine = remembered(None).ours.keys(guardian)
    lie = said(known["chain"][0]) | {"serial": 1, "guardians": [guardian.card, STRANGER.guardian.card]}
    assert brings({"chain": [signed(lie, mine)]}).json()["code"] == "protector_signature"
    forged = sealed(known | {"chain": [signed(lie, mine)]}, mine, roll=1)
    assert host.starts(forged)["code"] == "protector_signature"


@pytest.mark.parametrize(
    "body", [{}, {"chain": []}, {"chain": "x"}, {"chain": [1]}, {"chain": ["a.b.c"]}, {"chain": ["x"] * 99}, []]
)
def test_what_is_no_chain_is_malformed(db: None, body: Any) -> None:
    answer = brings(body)
    assert answer.status_code == 400
    assert answer.json()["code"] in {"malformed_request", "malformed_protector"}


def test_a_chain_that_is_too_large_is_not_read(db: None) -> None:
    answer = brings({"chain": ["x" * 70_000]})
    assert (answer.status_code, answer.json()["code"]) == (400, "too_large")


def test_two_words_with_one_serial_and_the_first_that_came_stays(host: Host, known: dict[str, Any]) -> None:
    brings(changed(known, level="encryption-supported"))
    other = changed(known, policy=ReleasePolicy(approval="key"))
    assert brings(other).json()["code"] == "chain_not_newer"
    document = roll_protector(verify_protector(known), other, key=KEY, signer=OWNER.signing)
    assert host.opens(host.starts(document)["wrapped_keys"]).level == "encryption-supported"


# --- what an owner learns ----------------------------------------------------------------------------------------


def test_an_owner_is_told_its_newest_chain(known: dict[str, Any]) -> None:
    chain = changed(known)
    brings(chain)
    answer = asks()
    assert answer.status_code == 200
    assert answer.json() == {"chain": list(chain.links[:1]), "denied": False, "waiting": []}


def asks(keys: Any = OWNER, **changes: Any) -> Any:
    from kps.core.owner_message import Question, build_question

    fields: dict[str, Any] = {"owner": OWNER.guardian, "protector": ID, "at": int(now().timestamp())}
    token = build_question(Question(**(fields | changes)), keys)
    return APIClient().post("/kps/v1/protectors", {"question": token}, format="json")


def test_nobody_else_is_told(known: dict[str, Any]) -> None:
    for answer in (asks(STRANGER), asks(STRANGER, owner=STRANGER.guardian), asks(protector=FABRIC_ID)):
        assert (answer.status_code, answer.json()["code"]) == (401, "owner_message_refused")
    old = asks(at=int(now().timestamp()) - 400)
    assert (old.status_code, old.json()["code"]) == (401, "owner_message_stale")


FABRIC_ID = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("token", ["", "a.b.c", "x" * 9000, None, 3])
def test_what_is_no_question_is_malformed(db: None, token: object) -> None:
    answer = APIClient().post("/kps/v1/protectors", {"question": token}, format="json")
    assert answer.status_code in {400, 413}


def test_a_registered_protector_is_known_before_its_first_release(db: None, ada: User, guardian: Guardian) -> None:
    document = made_by(FABRIC)
    service.know_protector(verify_protector(document).chain, by=ada, now=now())
    record = KeyProtectorRecord.objects.get()
    assert (record.last_released, record.serial) == (None, 0)
    assert brings(changed(document)).status_code == 200
    with pytest.raises(errors.NotFound):
        service.newest_chain(OWNERS, ID.__class__(int=7))
