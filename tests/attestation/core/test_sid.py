"""A SID is read whole, and written in the one way that tickets and pages have it."""

import pytest

from attestation.core.sid import parse_sid
from attestation.errors import ParseError

HOST = bytes.fromhex("0105000000000005150000000700000008000000090000004f040000")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(HOST, "S-1-5-21-7-8-9-1103", id="an account"),
        pytest.param(bytes.fromhex("010100000000000100000000"), "S-1-1-0", id="everyone"),
        pytest.param(bytes.fromhex("0100000000000005"), "S-1-5", id="an authority alone"),
        pytest.param(bytes.fromhex("0101000100000000ffffffff"), "S-1-0x000100000000-4294967295", id="large numbers"),
    ],
)
def test_a_sid_is_read(data: bytes, text: str) -> None:
    assert parse_sid(data) == text


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HOST + b"\0", id="a byte behind"),
        pytest.param(b"\2" + HOST[1:], id="another revision"),
        pytest.param(HOST[:1] + b"\4" + HOST[2:], id="fewer parts than are there"),
        pytest.param(HOST[:1] + b"\6" + HOST[2:], id="more parts than are there"),
        pytest.param(b"\1\x10" + HOST[2:8] + bytes(64), id="sixteen parts"),
        pytest.param(b"S-1-5-21-7-8-9-1103", id="text"),
    ],
)
def test_what_has_another_form_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError, match="SID"):
        parse_sid(data)


def test_every_truncation_is_refused() -> None:
    for end in range(len(HOST)):
        with pytest.raises(ParseError):
            parse_sid(HOST[:end])
