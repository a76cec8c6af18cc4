"""Guardian metadata: a card that signs itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.base64url import to_b64u
from cli.owner_file import new_keys
from kps import errors
from kps.core import jose
from kps.core.guardian import (
    METADATA_LIMIT,
    Guardian,
    GuardianKeys,
    build_metadata,
    parse_metadata,
    sign_succession,
    verify_metadata,
)
from tests.kps.parties import FABRIC, NOW, OTHER_FABRIC, STRANGER, said, signed

TOKEN = build_metadata(FABRIC, now=NOW)


def test_metadata_gives_back_the_guardian_that_signed_it() -> None:
    guardian = parse_metadata(TOKEN)
    assert guardian == FABRIC.guardian
    assert len(bytes.fromhex(guardian.fingerprint)) == 32


def test_the_fingerprint_depends_on_both_keys_and_not_on_the_name() -> None:
    mine = FABRIC.guardian
    assert Guardian("renamed", mine.signing, mine.encryption).fingerprint == mine.fingerprint
    others = [
        Guardian("x", STRANGER.guardian.signing, mine.encryption),
        Guardian("x", mine.signing, STRANGER.guardian.encryption),
        Guardian("x", mine.encryption, mine.signing),
    ]
    assert mine.fingerprint not in {other.fingerprint for other in others}


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(signed(said(TOKEN), STRANGER), id="signed by a stranger"),
        pytest.param(signed(said(TOKEN), STRANGER, kid_of=FABRIC), id="signed by a stranger in its name"),
        pytest.param(
            signed(
                said(TOKEN) | {"card": FABRIC.guardian.card | {"encryption": STRANGER.guardian.card["encryption"]}},
                STRANGER,
                kid_of=FABRIC,
            ),
            id="encryption key swapped",
        ),
    ],
)
def test_metadata_of_another_signer_is_refused(token: str) -> None:
    with pytest.raises(errors.GuardianRefused):
        parse_metadata(token)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"type": "guardhouse-guardian/v2"}, id="another version"),
        pytest.param({"issued_at": "today"}, id="a time that is none"),
        pytest.param({"more": 1}, id="a member more"),
        pytest.param({"card": {}}, id="an empty card"),
        pytest.param({"card": FABRIC.guardian.card | {"name": "a\nb"}}, id="a name of two lines"),
        pytest.param({"card": FABRIC.guardian.card | {"name": "x" * 65}}, id="a long name"),
        pytest.param(
            {"card": FABRIC.guardian.card | {"encryption": FABRIC.guardian.card["signing"]}}, id="one key for both"
        ),
        pytest.param(
            {"card": FABRIC.guardian.card | {"encryption": jose.jwk(FABRIC.encryption.public_key()) | {"d": "AA"}}},
            id="a private member",
        ),
        pytest.param(
            {"card": FABRIC.guardian.card | {"encryption": jose.jwk(FABRIC.encryption.public_key()) | {"x": "A" * 43}}},
            id="a point off the curve",
        ),
    ],
)
def test_metadata_of_another_form_is_malformed(change: dict[str, object]) -> None:
    with pytest.raises(errors.MalformedDocument):
        parse_metadata(signed(said(TOKEN) | change, FABRIC))


def test_metadata_that_is_too_large_is_not_read() -> None:
    with pytest.raises(errors.MalformedDocument):
        parse_metadata(TOKEN + "A" * METADATA_LIMIT)


def test_private_keys_do_not_show_in_a_traceback() -> None:
    assert "signing" not in repr(GuardianKeys("x", FABRIC.signing, FABRIC.encryption))


@given(st.text(max_size=300) | st.from_regex(r"\A[\w-]{0,90}\.[\w-]{0,90}\.[\w-]{0,90}\Z"))
def test_any_text_gives_a_refusal(token: str) -> None:
    with pytest.raises(errors.Refusal):
        parse_metadata(token)


@given(st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "jwk"]), st.none() | st.text() | st.booleans()))
def test_any_header_gives_a_refusal(header: dict[str, object]) -> None:
    _, payload, signature = TOKEN.split(".")
    with pytest.raises(errors.Refusal):
        parse_metadata(f"{to_b64u(jose.canonical(header))}.{payload}.{signature}")


# --- successions -------------------------------------------------------------------------------------------------

SECOND, THIRD, FOURTH = map(new_keys, ("fabric, again", "fabric, a third time", "fabric, a fourth time"))
TO_SECOND = sign_succession(FABRIC, SECOND.guardian, now=NOW)
TO_THIRD = sign_succession(SECOND, THIRD.guardian, now=NOW)
TO_FOURTH = sign_succession(THIRD, FOURTH.guardian, now=NOW)
LINE = [TO_SECOND, TO_THIRD, TO_FOURTH]
FINGERPRINTS = [keys.guardian.fingerprint for keys in (FABRIC, SECOND, THIRD, FOURTH)]


def of_third(**changes: object) -> str:
    token = build_metadata(THIRD, now=NOW, others=[FABRIC.guardian, FOURTH.guardian], successions=LINE)
    return signed(said(token) | changes, THIRD)


@pytest.mark.parametrize(
    ("known", "followed"),
    [
        pytest.param(FINGERPRINTS[:1], 0, id="the first keys"),
        pytest.param(FINGERPRINTS[1:2], 1, id="the keys before"),
        pytest.param(FINGERPRINTS[:2], 1, id="both: the newer"),
    ],
)
def test_whoever_knows_a_predecessor_is_led_to_the_keys_in_use(known: list[str], followed: int) -> None:
    before = verify_metadata(of_third()).follows(known)
    assert before is not None
    assert before.fingerprint == FINGERPRINTS[followed]


@pytest.mark.parametrize(
    "known",
    [
        pytest.param([], id="nobody"),
        pytest.param([STRANGER.guardian.fingerprint], id="a stranger"),
        pytest.param([FINGERPRINTS[3]], id="keys that are only being prepared"),
        pytest.param([FINGERPRINTS[2]], id="the keys in use need no succession"),
    ],
)
def test_nobody_else_is_led_anywhere(known: list[str]) -> None:
    assert verify_metadata(of_third()).follows(known) is None


def test_other_keys_alone_lead_nowhere() -> None:
    metadata = verify_metadata(of_third(successions=[]))
    assert [each.fingerprint for each in metadata.others] == [FINGERPRINTS[0], FINGERPRINTS[3]]
    assert metadata.follows(FINGERPRINTS) is None


@pytest.mark.parametrize(
    "line",
    [
        pytest.param([signed(said(TO_SECOND), STRANGER), TO_THIRD], id="signed by a stranger"),
        pytest.param([signed(said(TO_SECOND), STRANGER, kid_of=FABRIC), TO_THIRD], id="by a stranger in its name"),
        pytest.param([signed(said(TO_SECOND), SECOND), TO_THIRD], id="signed by the successor"),
        pytest.param([TO_SECOND, signed(said(TO_THIRD), FABRIC)], id="signed by the one before the one before"),
        pytest.param([build_metadata(FABRIC, now=NOW), TO_THIRD], id="metadata in its place"),
        pytest.param([signed(said(TO_SECOND) | {"type": "x"}, FABRIC), TO_THIRD], id="another type"),
        pytest.param([signed(said(TO_SECOND) | {"signed_at": -1}, FABRIC), TO_THIRD], id="a time that is none"),
        pytest.param([TO_SECOND, TO_FOURTH], id="a gap"),
        pytest.param([TO_THIRD, TO_SECOND], id="the wrong order"),
        pytest.param([TO_SECOND], id="it ends before the keys in use"),
        pytest.param([sign_succession(STRANGER, OTHER_FABRIC.guardian, now=NOW)], id="of somebody else"),
        pytest.param([TO_THIRD] * 17, id="too many"),
        pytest.param({}, id="no list"),
        pytest.param([1], id="a number"),
    ],
)
def test_a_line_of_successions_that_does_not_hold_is_refused(line: object) -> None:
    with pytest.raises(errors.Refusal):
        verify_metadata(of_third(successions=line))


@pytest.mark.parametrize(
    "others",
    [
        pytest.param([THIRD.guardian.card], id="the keys in use again"),
        pytest.param([FABRIC.guardian.card] * 2, id="one twice"),
        pytest.param([{}], id="an empty card"),
        pytest.param([FABRIC.guardian.card] * 17, id="too many"),
        pytest.param("x", id="no list"),
    ],
)
def test_other_keys_that_cannot_be_are_malformed(others: object) -> None:
    with pytest.raises(errors.MalformedDocument):
        verify_metadata(of_third(others=others))


def test_a_fabric_that_changes_its_name_is_still_followed() -> None:
    renamed = GuardianKeys("another name", SECOND.signing, SECOND.encryption)
    line = [TO_SECOND, sign_succession(renamed, THIRD.guardian, now=NOW)]
    before = verify_metadata(of_third(others=[], successions=line)).follows(FINGERPRINTS[:1])
    assert before == FABRIC.guardian
