"""Guardian metadata: a card that signs itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.base64url import to_b64u
from kps import errors
from kps.core import jose
from kps.core.guardian import Guardian, GuardianKeys, build_metadata, parse_metadata
from tests.kps.parties import FABRIC, NOW, STRANGER, said, signed

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
        parse_metadata(TOKEN + "A" * 16 * 1024)


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
