"""Key protectors: what the owner has signed stands, and nothing else does."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.base64url import to_b64u
from cli.owner_file import new_keys
from kps import errors
from kps.core import jose
from kps.core.protector import open_protector, parse_protector, roll_protector, verify_protector
from tests.kps.parties import (
    FABRIC,
    ID,
    KEY,
    NOW,
    OTHER_FABRIC,
    OTHER_ID,
    OWNER,
    STRANGER,
    grant,
    parties_of,
    protector,
    rewrapped,
    said,
    sealed,
    signed,
)

Document = dict[str, Any]
GENUINE = protector(FABRIC, OTHER_FABRIC)


def test_owner_and_guardians_open_what_the_owner_made() -> None:
    verified = verify_protector(json.dumps(GENUINE))
    assert (verified.id, verified.level, verified.roll) == (ID, "shielded", 0)
    assert parties_of(GENUINE) == ["owner", "fabric", "other fabric"]
    assert {open_protector(verified, keys.encryption) for keys in (OWNER, FABRIC, OTHER_FABRIC)} == {KEY}


def test_a_guardian_rolls_the_key_and_cannot_change_the_rest() -> None:
    first = verify_protector(GENUINE)
    second = verify_protector(roll_protector(first, key=bytes(32), signer=FABRIC.signing))
    third = verify_protector(roll_protector(second, key=KEY, signer=OTHER_FABRIC.signing))
    assert (second.roll, third.roll) == (1, 2)
    assert (third.id, third.level, third.chain) == (first.id, first.level, first.chain)
    assert open_protector(second, OWNER.encryption) == bytes(32)
    assert open_protector(third, FABRIC.encryption) == KEY


def test_a_guardian_may_grant_another_when_it_wraps_the_key_for_it() -> None:
    chain = [*protector()["chain"], signed(grant(OTHER_FABRIC.guardian, FABRIC), FABRIC)]
    document = sealed(rewrapped(protector() | {"chain": chain}, OWNER, FABRIC, OTHER_FABRIC), FABRIC, roll=1)
    assert parties_of(document) == ["owner", "fabric", "other fabric"]


def test_sixteen_guardians_fit() -> None:
    guardians = [new_keys(f"fabric {number}") for number in range(16)]
    document = protector(*guardians)
    assert open_protector(verify_protector(json.dumps(document)), guardians[-1].encryption) == KEY


def altered_level() -> Document:
    """Level changed in place, signature kept."""
    head, payload, signature = GENUINE["chain"][0].split(".")
    lie = to_b64u(jose.from_b64u(payload).replace(b'"shielded"', b'"encryption-supported"'))
    return sealed(GENUINE | {"chain": [f"{head}.{lie}.{signature}", *GENUINE["chain"][1:]]}, FABRIC, roll=1)


def level_signed_by(signer: Any, *, kid_of: Any = None) -> Document:
    root = signed(said(GENUINE["chain"][0]) | {"level": "encryption-supported"}, signer, kid_of=kid_of)
    return sealed(GENUINE | {"chain": [root, *GENUINE["chain"][1:]]}, FABRIC, roll=1)


def with_link(payload: Document, signer: Any) -> Document:
    document = protector()
    document = document | {"chain": [*document["chain"], signed(payload, signer)]}
    return sealed(rewrapped(document, OWNER, FABRIC, STRANGER), FABRIC, roll=1)


def relabelled(document: Document, identity: str) -> Document:
    return document | {"id": identity}


FORGERIES: list[tuple[str, Callable[[], Document], type[errors.Refusal]]] = [
    ("level altered in place", altered_level, errors.ProtectorSignature),
    ("level signed by a guardian", lambda: level_signed_by(FABRIC), errors.ProtectorSignature),
    ("level by a guardian as owner", lambda: level_signed_by(FABRIC, kid_of=OWNER), errors.ProtectorSignature),
    (
        "grant by a stranger as parent",
        lambda: with_link(grant(STRANGER.guardian, STRANGER), STRANGER),
        errors.ProtectorStranger,
    ),
    (
        "grant by a stranger in the owner's name",
        lambda: with_link(grant(STRANGER.guardian, OWNER), STRANGER),
        errors.ProtectorSignature,
    ),
    (
        "grant for another protector",
        lambda: with_link(grant(STRANGER.guardian, OWNER, id=str(OTHER_ID)), OWNER),
        errors.ProtectorSignature,
    ),
    ("guardian granted twice", lambda: with_link(grant(FABRIC.guardian, OWNER), OWNER), errors.ProtectorStranger),
    (
        "a guardian with the owner's key",
        lambda: with_link(
            grant(STRANGER.guardian, OWNER)
            | {"guardian": STRANGER.guardian.card | {"signing": OWNER.guardian.card["signing"]}},
            OWNER,
        ),
        errors.ProtectorStranger,
    ),
    (
        "extra recipient",
        lambda: sealed(rewrapped(protector(), OWNER, FABRIC, STRANGER), FABRIC, roll=1),
        errors.ProtectorRecipients,
    ),
    (
        "recipient missing",
        lambda: sealed(rewrapped(protector(), FABRIC), FABRIC, roll=1),
        errors.ProtectorRecipients,
    ),
    (
        "recipient twice, owner missing",
        lambda: sealed(rewrapped(protector(), FABRIC, FABRIC), FABRIC, roll=1),
        errors.ProtectorRecipients,
    ),
    (
        "grant removed",
        lambda: rewrapped(GENUINE | {"chain": GENUINE["chain"][:2]}, OWNER, FABRIC),
        errors.ProtectorSeal,
    ),
    ("sealed by a stranger", lambda: sealed(GENUINE, STRANGER, roll=1), errors.ProtectorSeal),
    ("first roll sealed by a guardian", lambda: sealed(GENUINE, FABRIC), errors.ProtectorSeal),
    (
        "seal in the owner's name",
        lambda: GENUINE | {"seal": signed(said(GENUINE["seal"]), STRANGER, kid_of=OWNER)},
        errors.ProtectorSeal,
    ),
    ("key swapped", lambda: rewrapped(GENUINE, OWNER, FABRIC, OTHER_FABRIC), errors.ProtectorSeal),
    ("seal of another id", lambda: sealed(GENUINE, OWNER, id=str(OTHER_ID)), errors.ProtectorSeal),
    ("relabelled", lambda: relabelled(GENUINE, str(OTHER_ID)), errors.ProtectorSignature),
    ("chain without a root", lambda: GENUINE | {"chain": GENUINE["chain"][1:]}, errors.MalformedProtector),
    ("no chain", lambda: GENUINE | {"chain": []}, errors.MalformedProtector),
    ("a member more", lambda: GENUINE | {"note": "x"}, errors.MalformedProtector),
    ("another version", lambda: GENUINE | {"version": 2}, errors.MalformedProtector),
    ("id in capitals", lambda: relabelled(GENUINE, str(ID).upper()), errors.MalformedProtector),
    ("negative roll", lambda: sealed(GENUINE, OWNER, roll=-1), errors.MalformedProtector),
    ("roll that is a boolean", lambda: sealed(GENUINE, OWNER, roll=True), errors.MalformedProtector),
    (
        "unknown level",
        lambda: (
            GENUINE | {"chain": [signed(said(GENUINE["chain"][0]) | {"level": "open"}, OWNER), *GENUINE["chain"][1:]]}
        ),
        errors.MalformedProtector,
    ),
    (
        "unsigned",
        lambda: GENUINE | {"seal": GENUINE["seal"].rsplit(".", 1)[0] + "."},
        errors.MalformedProtector,
    ),
    (
        "an unprotected header",
        lambda: GENUINE | {"wrapped": GENUINE["wrapped"] | {"unprotected": {"zip": "DEF"}}},
        errors.MalformedProtector,
    ),
    (
        "another content algorithm",
        lambda: GENUINE | {"wrapped": GENUINE["wrapped"] | {"protected": to_b64u(b'{"enc":"A128GCM"}')}},
        errors.MalformedProtector,
    ),
    ("too many links", lambda: GENUINE | {"chain": GENUINE["chain"] * 6}, errors.MalformedProtector),
]


@pytest.mark.parametrize(("forge", "refusal"), [pytest.param(f, r, id=name) for name, f, r in FORGERIES])
def test_a_forged_protector_is_refused(forge: Callable[[], Document], refusal: type[errors.Refusal]) -> None:
    with pytest.raises(refusal) as caught:
        verify_protector(forge())
    assert type(caught.value) is refusal


def test_a_signature_by_shared_secret_is_no_signature() -> None:
    """Algorithm confusion: the public key, known to all, taken as an HMAC secret (RFC 8725, 2.1)."""
    root = said(GENUINE["chain"][0]) | {"level": "encryption-supported"}
    secret = jose.canonical(OWNER.guardian.card["signing"])
    lie = jose.sign(root, secret, kid=jose.thumbprint(OWNER.signing.public_key()))
    with pytest.raises(errors.ProtectorSignature):
        verify_protector(sealed(GENUINE | {"chain": [lie, *GENUINE["chain"][1:]]}, FABRIC, roll=1))


def test_a_protector_that_is_too_large_is_not_read() -> None:
    with pytest.raises(errors.MalformedProtector, match="larger"):
        verify_protector(json.dumps(GENUINE).ljust(64 * 1024 + 1))


def test_a_repeated_member_is_refused() -> None:
    with pytest.raises(errors.MalformedProtector):
        verify_protector(json.dumps(GENUINE).replace('{"version": 1', '{"version": 1, "version": 1', 1))


def test_a_stranger_cannot_open_it() -> None:
    with pytest.raises(errors.ProtectorUnopened):
        open_protector(verify_protector(GENUINE), STRANGER.encryption)


def test_a_part_wrapped_for_somebody_else_does_not_open() -> None:
    """An owner who names a guardian and gives it another's part has made a protector that is of no use to it."""
    document = protector()
    parts = document["wrapped"]["recipients"]
    parts[0]["encrypted_key"], parts[1]["encrypted_key"] = parts[1]["encrypted_key"], parts[0]["encrypted_key"]
    verified = verify_protector(sealed(document, OWNER))
    with pytest.raises(errors.ProtectorUnopened):
        open_protector(verified, FABRIC.encryption)


@given(st.binary(max_size=400) | st.text(max_size=400))
def test_whatever_is_read_gives_a_protector_or_a_refusal(data: bytes | str) -> None:
    with pytest.raises(errors.MalformedProtector):
        parse_protector(data)


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.sampled_from(["EC", "P-256", "ES256"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
)


@given(st.sampled_from(sorted(GENUINE)), VALUES)
def test_any_member_that_is_something_else_is_refused(name: str, value: object) -> None:
    with pytest.raises(errors.Refusal):
        verify_protector(GENUINE | {name: value} if value != GENUINE[name] else {})


@given(st.sampled_from(sorted(GENUINE["wrapped"])), VALUES)
def test_any_part_of_the_wrapped_key_that_is_something_else_is_refused(name: str, value: object) -> None:
    with pytest.raises(errors.Refusal):
        verify_protector(GENUINE | {"wrapped": GENUINE["wrapped"] | {name: value}})


@given(st.sampled_from(["type", "id", "level", "owner", "created"]), VALUES)
def test_whatever_an_owner_signs_gives_a_protector_or_a_refusal(name: str, value: object) -> None:
    root = said(GENUINE["chain"][0]) | {name: value}
    document = sealed(GENUINE | {"chain": [signed(root, OWNER), *GENUINE["chain"][1:]]}, OWNER)
    try:
        verify_protector(document)
    except errors.Refusal:
        return
    assert name == "created"
    assert isinstance(value, int)


def test_deep_nesting_is_refused_and_not_followed() -> None:
    for text in ("[" * 60_000, '{"version":' * 5_000):
        with pytest.raises(errors.MalformedProtector):
            parse_protector(text)


def test_the_date_is_the_owner_s() -> None:
    assert said(GENUINE["chain"][0])["created"] == int(NOW.timestamp())
