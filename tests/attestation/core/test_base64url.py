"""Binary fields are written one way only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.base64url import from_b64u, to_b64u


@given(st.binary(max_size=200))
def test_bytes_come_back(data: bytes) -> None:
    text = to_b64u(data)
    assert from_b64u(text) == data
    assert "=" not in text


@pytest.mark.parametrize(
    "text",
    ["A", "AB==", "AAA=", "AB", "AAB", "++//", "AA AA", "AA\nAA", "ÄÖÜß", "AAAA====", "A.AA", "\N{ZERO WIDTH SPACE}"],
    ids=repr,
)
def test_another_way_to_write_bytes_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (whoever calls says what was wrong)
        from_b64u(text)


@given(st.text(max_size=50) | st.text(alphabet="AB-_=+/", max_size=9))
def test_what_is_accepted_is_what_would_have_been_written(text: str) -> None:
    try:
        data = from_b64u(text)
    except ValueError:
        return
    assert to_b64u(data) == text
