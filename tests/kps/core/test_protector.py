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
from kps.core.guardian import GuardianKeys
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
    changed,
    parties_of,
    protector,
    rewrapped,
    said,
    sealed,
    signed,
)

Document = dict[str, Any]
GENUINE = protector(FABRIC, OTHER_FABRIC)
CARDS = [keys.guardian.card for keys in (FABRIC, OTHER_FABRIC)]
STRANGE = [STRANGER.guardian.card]
MALFORMED = errors.MalformedProtector


def test_owner_and_guardians_open_what_the_owner_made() -> None:
    verified = verify_protector(json.dumps(GENUINE))
    assert (verified.id, verified.level, verified.roll) == (ID, "shielded", 0)
    assert parties_of(GENUINE) == ["owner", "fabric", "other fabric"]
    assert {open_protector(verified, keys.encryption) for keys in (OWNER, FABRIC, OTHER_FABRIC)} == {KEY}


def test_a_guardian_rolls_the_key_and_cannot_change_the_rest() -> None:
    first = verify_protector(GENUINE)
    second = verify_protector(roll_protector(first, first.chain, key=bytes(32), signer=FABRIC.signing))
    third = verify_protector(roll_protector(second, second.chain, key=KEY, signer=OTHER_FABRIC.signing))
    assert (second.roll, third.roll) == (1, 2)
    assert (third.id, third.level, third.chain) == (first.id, first.level, first.chain)
    assert open_protector(second, OWNER.encryption) == bytes(32)
    assert open_protector(third, FABRIC.encryption) == KEY


def test_a_roll_takes_the_protector_to_the_owner_s_newest_word() -> None:
    first = verify_protector(GENUINE)
    newest = changed(GENUINE, guardians=(OTHER_FABRIC.guardian,), level="encryption-supported")
    second = verify_protector(roll_protector(first, newest, key=KEY, signer=OTHER_FABRIC.signing))
    assert (second.level, second.chain.statement.serial, second.roll) == ("encryption-supported", 1, 1)
    with pytest.raises(errors.ProtectorUnopened):
        open_protector(second, FABRIC.encryption)


def test_no_protector_goes_on_under_another_owner_s_word() -> None:
    strange = verify_protector(protector(owner=STRANGER)).chain
    with pytest.raises(ValueError, match="own owner"):
        roll_protector(verify_protector(GENUINE), strange, key=KEY, signer=FABRIC.signing)


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


def stated(signer: GuardianKeys = OWNER, **changes: Any) -> Document:
    """The genuine protector with another statement, sealed by a guardian as if all were well."""
    return sealed(GENUINE | {"chain": [signed(said(GENUINE["chain"][0]) | changes, signer)]}, FABRIC, roll=1)


def relabelled(document: Document, identity: str) -> Document:
    return document | {"id": identity}


FORGERIES: list[tuple[str, Callable[[], Document], type[errors.Refusal]]] = [
    ("level altered in place", altered_level, errors.ProtectorSignature),
    ("level signed by a guardian", lambda: level_signed_by(FABRIC), errors.ProtectorSignature),
    ("level by a guardian as owner", lambda: level_signed_by(FABRIC, kid_of=OWNER), errors.ProtectorSignature),
    ("a guardian adds another", lambda: stated(FABRIC, guardians=CARDS), errors.ProtectorSignature),
    ("a stranger adds itself", lambda: stated(STRANGER, guardians=[*CARDS, *STRANGE]), errors.ProtectorSignature),
    ("a stranger lowers the serial", lambda: stated(STRANGER, serial=0), errors.ProtectorSignature),
    ("a guardian drops the policy", lambda: stated(FABRIC, policy={}), errors.ProtectorSignature),
    ("a guardian named twice", lambda: stated(guardians=[CARDS[0], CARDS[0]]), errors.ProtectorStranger),
    ("the owner as a guardian", lambda: stated(guardians=[OWNER.guardian.card]), errors.ProtectorStranger),
    (
        "a guardian with the owner's key",
        lambda: stated(guardians=[CARDS[0] | {"signing": OWNER.guardian.card["signing"]}]),
        errors.ProtectorStranger,
    ),
    ("seventeen guardians", lambda: stated(guardians=[new_keys("x").guardian.card for _ in range(17)]), MALFORMED),
    ("guardians that are no list", lambda: stated(guardians={}), MALFORMED),
    ("a negative serial", lambda: stated(serial=-1), MALFORMED),
    ("an enormous serial", lambda: stated(serial=2**31), MALFORMED),
    ("a policy that asks for the unknown", lambda: stated(policy={"moon": "full"}), MALFORMED),
    ("a policy that is none", lambda: stated(policy=None), MALFORMED),
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
        lambda: rewrapped(stated(FABRIC, guardians=CARDS[:1]), OWNER, FABRIC),
        errors.ProtectorSignature,
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
    ("no chain", lambda: GENUINE | {"chain": []}, errors.MalformedProtector),
    ("a member more", lambda: GENUINE | {"note": "x"}, errors.MalformedProtector),
    ("another version", lambda: GENUINE | {"version": 2}, errors.MalformedProtector),
    ("id in capitals", lambda: relabelled(GENUINE, str(ID).upper()), errors.MalformedProtector),
    ("negative roll", lambda: sealed(GENUINE, OWNER, roll=-1), errors.MalformedProtector),
    ("roll that is a boolean", lambda: sealed(GENUINE, OWNER, roll=True), errors.MalformedProtector),
    ("unknown level", lambda: stated(level="open"), MALFORMED),
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
    ("too many links", lambda: GENUINE | {"chain": GENUINE["chain"] * 18}, errors.MalformedProtector),
    ("a second statement", lambda: GENUINE | {"chain": GENUINE["chain"] * 2}, errors.MalformedProtector),
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


@given(st.sampled_from(sorted(said(GENUINE["chain"][0]))), VALUES)
def test_whatever_an_owner_signs_gives_a_protector_or_a_refusal(name: str, value: object) -> None:
    root = said(GENUINE["chain"][0]) | {name: value}
    document = sealed(GENUINE | {"chain": [signed(root, OWNER), *GENUINE["chain"][1:]]}, OWNER)
    try:
        verify_protector(document)
    except errors.Refusal:
        return
    assert (name, type(value)) in {("created", int), ("serial", int), ("policy", dict)}


def test_deep_nesting_is_refused_and_not_followed() -> None:
    for text in ("[" * 60_000, '{"version":' * 5_000):
        with pytest.raises(errors.MalformedProtector):
            parse_protector(text)


def test_the_date_is_the_owner_s() -> None:
    assert said(GENUINE["chain"][0])["created"] == int(NOW.timestamp())
