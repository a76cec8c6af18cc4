"""Machines made from shielding data: under the owner's statement, by its guardians, with ids that nobody chooses."""

from dataclasses import replace
from typing import Any

import pytest

from cli.owner_file import new_keys
from kps import errors
from kps.core.chain import VerifiedChain, statement_digest, subject_of, succeed, verify_chain
from kps.core.protector import open_protector, roll_protector, verify_protector, wrap_again
from kps.core.release_policy import ReleasePolicy
from tests.kps.parties import FABRIC, ID, KEY, NOW, OTHER_FABRIC, OWNER, OWNERS, STRANGER, protector, said, signed
from tests.kps.shielding import FILE_ID, class_chain, made

POLICY = ReleasePolicy(minimum_mode="tpm", successors=True)
CHAIN = class_chain(FABRIC, OTHER_FABRIC, policy=POLICY)
MACHINE = made(CHAIN)


def test_a_machine_has_the_statement_of_its_file_and_an_id_of_its_own() -> None:
    statement = MACHINE.statement
    assert (MACHINE.made_from, statement.makes_machines) == (FILE_ID, False)
    assert replace(statement, id=FILE_ID, makes_machines=True) == CHAIN.statement
    assert MACHINE.guardians == (FABRIC.guardian, OTHER_FABRIC.guardian)
    assert MACHINE.subject == subject_of(OWNERS, statement.id)


def test_every_machine_has_another_id() -> None:
    machines = [MACHINE, made(CHAIN, nonce=bytes(15) + b"1"), made(CHAIN, OTHER_FABRIC), made(class_chain(serial=1))]
    assert len({each.statement.id for each in machines}) == 4
    assert {each.statement.id.version for each in machines} == {8}
    assert {each.statement.id.variant for each in machines} == {"specified in RFC 4122"}
    assert len({each.statement_sha256 for each in machines}) == 4


def test_the_file_itself_is_no_machine() -> None:
    assert verify_chain(CHAIN.links).made_from is None
    assert verify_chain(CHAIN.links).statement.makes_machines


def _link(maker: Any = FABRIC, *, of: VerifiedChain = CHAIN, **changes: Any) -> str:
    return signed(said(MACHINE.links[1]) | {"statement": statement_digest(of.links[0])} | changes, maker)


@pytest.mark.parametrize(
    ("link", "error"),
    [
        (_link(STRANGER), errors.ProtectorSignature),
        (_link(STRANGER, guardian=STRANGER.guardian.fingerprint), errors.ProtectorStranger),
        (_link(OWNER, guardian=OWNERS), errors.ProtectorStranger),
        (_link(OTHER_FABRIC), errors.ProtectorSignature),
        (_link(of=class_chain(FABRIC, OTHER_FABRIC, serial=1)), errors.ProtectorSignature),
        (_link(id=str(ID)), errors.MalformedProtector),
        (_link(nonce="AAAA"), errors.MalformedProtector),
        (_link(nonce=7), errors.MalformedProtector),
        (_link(made=-1), errors.MalformedProtector),
        (_link(type="guardhouse-replacement/v1"), errors.MalformedProtector),
        (CHAIN.links[0], errors.MalformedProtector),
    ],
)
def test_a_machine_that_nobody_may_have_made_is_refused(link: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        verify_chain([CHAIN.links[0], link])


def test_a_machine_is_not_made_twice_from_one_statement() -> None:
    with pytest.raises(errors.MalformedProtector):
        verify_chain([*MACHINE.links, _link(nonce="A" * 22)])


def test_no_machine_is_made_under_the_statement_of_another_machine() -> None:
    plain = verify_chain(protector(FABRIC)["chain"])
    with pytest.raises(errors.MalformedProtector):
        verify_chain([plain.links[0], _link(of=plain)])


def test_a_guardian_s_successor_takes_its_place_in_a_machine_and_not_in_the_file() -> None:
    newer = new_keys("fabric")
    following = succeed(MACHINE, FABRIC, newer.guardian)
    assert following.guardians == (newer.guardian, OTHER_FABRIC.guardian)
    assert following.statement_sha256 == MACHINE.statement_sha256
    with pytest.raises(errors.MalformedProtector):
        succeed(CHAIN, FABRIC, newer.guardian)


def test_a_succession_of_one_machine_is_none_of_another() -> None:
    succession = succeed(MACHINE, FABRIC, new_keys("fabric").guardian).links[2]
    other = made(CHAIN, nonce=b"another nonce...")
    with pytest.raises(errors.ProtectorSignature):
        verify_chain([*other.links, succession])


FILE = verify_protector(wrap_again(CHAIN, roll=0, key=KEY, signer=OWNER.signing))


def test_the_first_protector_of_a_machine_follows_that_of_its_file() -> None:
    first = verify_protector(roll_protector(FILE, MACHINE, key=bytes(32), signer=FABRIC.signing))
    assert (first.id, first.roll, first.owner) == (MACHINE.statement.id, 1, OWNER.guardian)
    assert open_protector(first, OWNER.encryption) == open_protector(first, OTHER_FABRIC.encryption) == bytes(32)
    second = verify_protector(roll_protector(first, first.chain, key=KEY, signer=OTHER_FABRIC.signing))
    assert (second.id, second.roll) == (first.id, 2)


def test_the_protector_of_a_file_is_followed_by_no_other_of_the_file() -> None:
    with pytest.raises(ValueError, match="stays as it is"):
        roll_protector(FILE, CHAIN, key=KEY, signer=FABRIC.signing)


def test_a_machine_s_protector_does_not_become_one_of_another_machine() -> None:
    first = verify_protector(roll_protector(FILE, MACHINE, key=KEY, signer=FABRIC.signing))
    other = made(CHAIN, nonce=b"another nonce...")
    with pytest.raises(ValueError, match="its own owner"):
        roll_protector(first, other, key=KEY, signer=FABRIC.signing)


def test_the_making_cannot_be_taken_off_a_protector() -> None:
    document = roll_protector(FILE, MACHINE, key=KEY, signer=FABRIC.signing)
    stripped = document | {"chain": document["chain"][:1], "id": str(FILE_ID)}
    with pytest.raises(errors.ProtectorSeal):
        verify_protector(stripped)


def test_the_time_of_a_machine_is_its_maker_s() -> None:
    assert said(MACHINE.links[1])["made"] == int(NOW.timestamp())
