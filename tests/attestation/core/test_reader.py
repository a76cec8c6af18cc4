"""Nothing is read past the end, and nothing is left unread unnoticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.reader import Reader
from attestation.errors import ParseError


def test_integers_have_the_byte_order_that_was_asked_for() -> None:
    assert Reader(b"\1\2", what="x").u16() == 0x0102
    assert Reader(b"\1\2", what="x", order="little").u16() == 0x0201
    assert Reader(bytes(7) + b"\5", what="x").u64() == 5


def test_a_short_buffer_names_the_structure_and_the_offset() -> None:
    reader = Reader(b"\0\0\0", what="TPMS_THING")
    reader.u16()
    with pytest.raises(ParseError, match=r"TPMS_THING at offset 2: needs 4 bytes, 1 are left"):
        reader.u32()


def test_trailing_bytes_are_refused() -> None:
    reader = Reader(b"\0\0", what="x")
    reader.u8()
    with pytest.raises(ParseError, match="1 bytes follow"):
        reader.finish()


def test_a_length_above_its_bound_is_refused_before_it_is_read() -> None:
    with pytest.raises(ParseError, match="at most 4"):
        Reader(b"\0\5hello", what="x").sized(4)


def test_a_length_that_points_past_the_end_is_refused() -> None:
    with pytest.raises(ParseError, match="needs 5 bytes"):
        Reader(b"\0\5hell", what="x").sized(64)


@given(st.binary(), st.integers(min_value=-10, max_value=200))
def test_a_run_is_whole_or_refused(data: bytes, count: int) -> None:
    reader = Reader(data, what="x")
    try:
        taken = reader.take(count)
    except ParseError:
        assert count < 0 or count > len(data)
    else:
        assert taken == data[:count]
        assert reader.remaining == len(data) - count
