"""The owner's chain: what the owner says stands, and a guardian adds its own successor where it may, nothing else."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.owner_file import new_keys
from kps import errors
from kps.core import jose
from kps.core.chain import (
    MOST_GUARDIANS,
    MOST_SUCCESSIONS,
    VerifiedChain,
    parse_chain,
    sign_statement,
    succeed,
    verify_chain,
)
from kps.core.guardian import GuardianKeys
from kps.core.protector import create_protector, open_protector, roll_protector, verify_protector
from kps.core.release_policy import ReleasePolicy
from tests.kps.parties import (
    FABRIC,
    ID,
    KEY,
    NOW,
    OTHER_FABRIC,
    OWNER,
    STRANGER,
    changed,
    protector,
    signed,
    succession,
)

ALLOWED = ReleasePolicy(successors=True)
GENUINE = protector(FABRIC, OTHER_FABRIC, policy=ALLOWED)
CHAIN: VerifiedChain = verify_chain(GENUINE["chain"])
NEW = replace(new_keys("fabric"))
NEWER = new_keys("fabric")


def test_an_owner_s_word_says_all_at_once() -> None:
    statement = CHAIN.statement
    assert (statement.id, statement.serial, statement.level) == (ID, 0, "shielded")
    assert statement.guardians == CHAIN.guardians == (FABRIC.guardian, OTHER_FABRIC.guardian)
    assert statement.policy == ALLOWED


def test_a_change_is_the_next_serial_and_needs_no_key() -> None:
    following = changed(GENUINE, guardians=(OTHER_FABRIC.guardian,), policy=ReleasePolicy(minimum_mode="tpm"))
    assert verify_chain(following.links).statement == following.statement
    assert following.statement.serial == 1
    assert following.subject == CHAIN.subject


def test_a_chain_travels_as_a_file() -> None:
    links = parse_chain(json.dumps(CHAIN.document))
    assert tuple(link.token for link in links) == CHAIN.links


def test_nobody_signs_for_another_owner() -> None:
    with pytest.raises(ValueError, match="its own"):
        sign_statement(CHAIN.statement, STRANGER)


def test_the_largest_statement_fits() -> None:
    guardians = [new_keys("\U0001f3f0" * 64).guardian for _ in range(MOST_GUARDIANS)]
    policy = ReleasePolicy(host_groups=tuple(f"{number:0>40}" for number in range(32)), minimum_mode="tpm")
    document = create_protector(OWNER, guardians, protector_id=ID, level="shielded", key=KEY, policy=policy, now=NOW)
    assert verify_protector(json.dumps(document)).chain.statement.policy == policy


# --- successions -------------------------------------------------------------------------------------------------


def test_a_guardian_takes_its_own_place_with_new_keys() -> None:
    following = succeed(succeed(CHAIN, FABRIC, NEW.guardian), NEW, NEWER.guardian)
    assert following.guardians == (NEWER.guardian, OTHER_FABRIC.guardian)
    assert following.statement_sha256 == CHAIN.statement_sha256
    rolled = verify_protector(roll_protector(verify_protector(GENUINE), following, key=KEY, signer=NEWER.signing))
    assert open_protector(rolled, NEWER.encryption) == KEY
    for gone in (FABRIC, NEW):
        with pytest.raises(errors.ProtectorUnopened):
            open_protector(rolled, gone.encryption)


def linked(payload: dict[str, Any], signer: GuardianKeys, document: dict[str, Any] = GENUINE) -> list[str]:
    return [*document["chain"], signed(payload, signer)]


def by_fabric(**changes: Any) -> dict[str, Any]:
    return succession(GENUINE["chain"], FABRIC, NEW.guardian, **changes)


def renamed(name: str) -> dict[str, Any]:
    return NEW.guardian.card | {"name": name}


def not_allowed() -> list[str]:
    document = protector(FABRIC)
    return linked(succession(document["chain"], FABRIC, NEW.guardian), FABRIC, document)


def carried_over() -> list[str]:
    """A succession that a revoked guardian had made before, put behind the owner's newer word."""
    newer = changed(GENUINE, level="encryption-supported")
    return [*newer.links, signed(by_fabric(), FABRIC)]


def revoked() -> list[str]:
    newer = changed(GENUINE, guardians=(OTHER_FABRIC.guardian,))
    return linked(succession(list(newer.links), FABRIC, NEW.guardian), FABRIC, newer.document)


SUCCESSIONS: list[tuple[str, Callable[[], list[str]], type[errors.Refusal]]] = [
    ("the owner has not allowed it", not_allowed, errors.SuccessionNotAllowed),
    ("signed by a stranger", lambda: linked(by_fabric(), STRANGER), errors.ProtectorSignature),
    ("signed by another guardian", lambda: linked(by_fabric(), OTHER_FABRIC), errors.ProtectorSignature),
    ("signed by the new keys", lambda: linked(by_fabric(), NEW), errors.ProtectorSignature),
    (
        "by somebody the owner has not named",
        lambda: linked(succession(GENUINE["chain"], STRANGER, NEW.guardian), STRANGER),
        errors.ProtectorStranger,
    ),
    (
        "by the owner as a guardian",
        lambda: linked(succession(GENUINE["chain"], OWNER, NEW.guardian), OWNER),
        errors.ProtectorStranger,
    ),
    ("for an older word of the owner's", carried_over, errors.ProtectorSignature),
    ("by a guardian that was revoked", revoked, errors.ProtectorStranger),
    (
        "a stranger under its own name",
        lambda: linked(by_fabric(guardian=renamed("else")), FABRIC),
        errors.ProtectorStranger,
    ),
    ("to the same keys", lambda: linked(by_fabric(guardian=FABRIC.guardian.card), FABRIC), errors.ProtectorStranger),
    (
        "to another guardian's keys",
        lambda: linked(by_fabric(guardian=OTHER_FABRIC.guardian.card | {"name": "fabric"}), FABRIC),
        errors.ProtectorStranger,
    ),
    (
        "back to keys that were given up",
        lambda: [
            *(chain := succeed(CHAIN, FABRIC, NEW.guardian)).links,
            signed(succession(list(chain.links), NEW, FABRIC.guardian), NEW),
        ],
        errors.ProtectorStranger,
    ),
    (
        "twice by the same keys",
        lambda: [*linked(by_fabric(), FABRIC), signed(by_fabric(), FABRIC)],
        errors.ProtectorStranger,
    ),
    ("of another type", lambda: linked(by_fabric(type="guardhouse-grant/v1"), FABRIC), errors.MalformedProtector),
    ("with a member more", lambda: linked(by_fabric(note="x"), FABRIC), errors.MalformedProtector),
    ("without a card", lambda: linked(by_fabric(guardian=None), FABRIC), errors.MalformedProtector),
]


@pytest.mark.parametrize(("forge", "refusal"), [pytest.param(f, r, id=name) for name, f, r in SUCCESSIONS])
def test_a_forged_succession_is_refused(forge: Callable[[], list[str]], refusal: type[errors.Refusal]) -> None:
    with pytest.raises(refusal) as caught:
        verify_chain(forge())
    assert type(caught.value) is refusal


def test_successions_end_somewhere() -> None:
    chain, old = CHAIN, FABRIC
    for _ in range(MOST_SUCCESSIONS):
        new = new_keys("fabric")
        chain, old = succeed(chain, old, new.guardian), new
    with pytest.raises(errors.MalformedProtector, match="at most 16 successions"):
        succeed(chain, old, NEWER.guardian)


# --- what is no chain --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    ["", "[]", "{}", '{"chain": "x"}', '{"chain": []}', '{"chain": [1]}', '{"chain": ["a.b.c"]}', "{" * 70_000],
    ids=lambda text: text[:12],
)
def test_what_is_no_chain_is_malformed(document: str) -> None:
    with pytest.raises(errors.MalformedProtector):
        parse_chain(document)


@given(
    st.sampled_from(sorted(by_fabric())), st.none() | st.integers() | st.text() | st.dictionaries(st.text(), st.text())
)
def test_any_member_of_a_succession_that_is_something_else_is_refused(name: str, value: object) -> None:
    with pytest.raises(errors.Refusal):
        verify_chain(linked(by_fabric() | {name: value}, FABRIC))


def test_a_key_protector_in_the_place_of_a_chain_is_malformed() -> None:
    with pytest.raises(errors.MalformedProtector):
        parse_chain(jose.canonical(GENUINE))
