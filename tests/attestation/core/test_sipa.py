"""Windows' records nest; depth, number and sizes are bounded, and a number is a number."""

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.sipa import AGGREGATION, BOOT_DEBUGGING, TRUST_BOUNDARY, Record, integer, parse_sipa, text
from attestation.core.windows import parse_revocation_list, parse_secure_boot_policy, parse_si_policy
from attestation.errors import ParseError


def sipa(kind: int, value: bytes = b"") -> bytes:
    return pack("<II", kind, len(value)) + value


def nested(depth: int) -> bytes:
    data = sipa(BOOT_DEBUGGING, b"\1")
    for _ in range(depth):
        data = sipa(TRUST_BOUNDARY, data)
    return data


def test_records_inside_an_aggregation_are_its_children() -> None:
    (outer,) = parse_sipa(sipa(TRUST_BOUNDARY, sipa(BOOT_DEBUGGING, b"\0") + sipa(0x00050002, b"\1")))
    assert [(each.kind, each.value) for each in outer.walk()] == [
        (TRUST_BOUNDARY, b""),
        (BOOT_DEBUGGING, b"\0"),
        (0x00050002, b"\1"),
    ]


def test_an_unknown_record_is_read_over() -> None:
    assert [each.kind for each in parse_sipa(sipa(0x0005FFFF, b"whatever") + sipa(BOOT_DEBUGGING, b"\1"))] == [
        0x0005FFFF,
        BOOT_DEBUGGING,
    ]


@pytest.mark.parametrize("value", [b"\1", b"\1\0", b"\1\0\0\0", b"\1" + bytes(7)])
def test_a_number_has_one_two_four_or_eight_bytes(value: bytes) -> None:
    assert integer(Record(BOOT_DEBUGGING, value)) == 1


@pytest.mark.parametrize("value", [b"", bytes(3), bytes(5), bytes(9), bytes(1000)])
def test_a_number_of_another_size_is_refused(value: bytes) -> None:
    with pytest.raises(ParseError):
        integer(Record(BOOT_DEBUGGING, value))


def test_text_ends_before_its_final_zeros() -> None:
    assert text(Record(0x00090001, "Windows Defender\0".encode("utf-16-le"))) == "Windows Defender"


def test_windows_own_depth_is_read() -> None:
    assert len(list(parse_sipa(nested(8))[0].walk())) == 9


def _too_deep() -> bytes:
    data = b""
    for _ in range(9):
        data = sipa(TRUST_BOUNDARY, data)
    return data


REFUSED = {
    "nested nine levels deep": nested(9),
    "nested a hundred levels deep": nested(100),
    "a size of a gibibyte": pack("<II", BOOT_DEBUGGING, 1 << 30),
    "a gibibyte inside an aggregation": sipa(TRUST_BOUNDARY, pack("<II", BOOT_DEBUGGING, 1 << 30)),
    "a child longer than its parent": sipa(TRUST_BOUNDARY, pack("<II", BOOT_DEBUGGING, 9) + b"x") + bytes(8),
    "half a head": b"\1\0\4\0\1",
    "an empty aggregation too deep": _too_deep(),
    "an aggregation of half a head": sipa(AGGREGATION, b"\1"),
    "records without end": sipa(BOOT_DEBUGGING) * 50_001,
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_a_malformed_record_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError):
        parse_sipa(data)


def test_a_code_integrity_policy_is_its_name_and_hash() -> None:
    name = "Policy\0".encode("utf-16-le")
    data = pack("<QHHI", 1, len(name), 0x800C, 32) + name + bytes(32)
    assert parse_si_policy(data) == ("Policy", "sha256:" + "00" * 32)


@pytest.mark.parametrize(
    ("number", "algorithm"),
    [(0x4, "sha1"), (0xB, "sha256"), (0xC, "sha384"), (0xD, "sha512"), (0x800C, "sha256"), (0x99, "0x99")],
)
def test_the_hash_of_a_code_integrity_policy_says_its_algorithm(number: int, algorithm: str) -> None:
    assert parse_si_policy(pack("<QHHI", 1, 0, number, 2) + b"\1\2") == ("", f"{algorithm}:0102")


@pytest.mark.parametrize(
    "data", [b"", bytes(15), pack("<QHHI", 1, 0xFFFF, 0x800C, 32), pack("<QHHI", 1, 0, 0x800C, 0xFFFFFFFF), bytes(17)]
)
def test_a_malformed_code_integrity_policy_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError):
        parse_si_policy(data)


def test_a_revocation_list_is_its_hash_and_its_day() -> None:
    data = pack("<QIH", 131_575_104_000_000_000, 32, 0xB) + bytes(32)
    assert parse_revocation_list(data) == ("sha256:" + "00" * 32, "2017-12-12")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(pack("<QIH", 1, 33, 0xB) + bytes(32), id="a hash longer than the record"),
        pytest.param(pack("<QIH", 1, 31, 0xB) + bytes(32), id="a byte too many"),
        pytest.param(pack("<QIH", (1 << 64) - 1, 32, 0xB) + bytes(32), id="a date that no calendar has"),
    ],
)
def test_a_malformed_revocation_list_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError):
        parse_revocation_list(data)


def test_a_secure_boot_policy_is_its_hash() -> None:
    data = pack("<IIHHII", 1, 24, 0xB, 32, 0, 1) + bytes(4) + bytes(range(32)) + b"a signer"
    assert parse_secure_boot_policy(data) == "sha256:" + bytes(range(32)).hex()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(pack("<IIHHII", 2, 20, 0xB, 32, 0, 0) + bytes(32), id="another version"),
        pytest.param(pack("<IIHHII", 1, 19, 0xB, 32, 0, 0) + bytes(32), id="a hash inside the head"),
        pytest.param(pack("<IIHHII", 1, 1 << 31, 0xB, 32, 0, 0) + bytes(32), id="a hash far away"),
        pytest.param(pack("<IIHHII", 1, 20, 0xB, 33, 0, 0) + bytes(32), id="a hash longer than the record"),
    ],
)
def test_a_malformed_secure_boot_policy_is_refused(data: bytes) -> None:
    with pytest.raises(ParseError):
        parse_secure_boot_policy(data)


@given(st.binary(max_size=300))
def test_any_bytes_give_records_or_a_parse_error(data: bytes) -> None:
    for parse in (parse_sipa, parse_si_policy, parse_revocation_list, parse_secure_boot_policy):
        try:
            parse(data)
        except ParseError:
            continue
