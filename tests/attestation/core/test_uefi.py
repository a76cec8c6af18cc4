"""UEFI structures are bounded: what claims more than it has, or less, is refused, and nothing loops."""

import hashlib
from struct import pack
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.core.uefi import (
    GLOBAL_VARIABLE,
    IMAGE_SECURITY,
    certificate_subject,
    parse_authority,
    parse_device_path,
    parse_gpt,
    parse_image_load,
    parse_signature_lists,
    parse_variable,
)
from attestation.errors import ParseError
from tests.boot_logs import boot

X509 = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
SHA256 = UUID("c1c41626-504c-4092-aca9-41f936934328").bytes_le
OWNER = bytes(range(16))
EVENTS = boot("secureboot-on").events


def variable(name: str, value: bytes, *, guid: bytes = GLOBAL_VARIABLE.bytes_le) -> bytes:
    return guid + pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value


def signature_list(kind: bytes, *bodies: bytes, header: bytes = b"") -> bytes:
    each = 16 + len(bodies[0]) if bodies else 48
    body = header + b"".join(OWNER + body for body in bodies)
    return kind + pack("<III", 28 + len(body), len(header), each) + body


def node(kind: int, subtype: int, body: bytes = b"", *, size: int | None = None) -> bytes:
    return pack("<BBH", kind, subtype, 4 + len(body) if size is None else size) + body


def gpt(*entries: bytes, count: int | None = None) -> bytes:
    header = b"EFI PART".ljust(56, b"\0") + OWNER + bytes(20)
    return header + pack("<Q", len(entries) if count is None else count) + b"".join(entries)


def test_a_variable_is_split_into_guid_name_and_value() -> None:
    found = parse_variable(variable("SecureBoot", b"\1"))
    assert (found.guid, found.name, found.value) == (GLOBAL_VARIABLE, "SecureBoot", b"\1")


def test_half_a_letter_in_a_name_is_no_other_variable() -> None:
    """A high surrogate alone; two bytes short of a letter; and a name that only looks like another."""
    for half in (b"\0\xd8", b"\xff\xdf"):
        name = "SecureBoot".encode("utf-16-le") + half
        found = parse_variable(bytes(16) + pack("<QQ", len(name) // 2, 1) + name + b"\1")
        assert found.name != "SecureBoot"
        assert found.value == b"\1"
    with pytest.raises(ParseError):
        parse_variable(bytes(16) + pack("<QQ", 10, 1) + "SecureBoot".encode("utf-16-le")[:-1] + b"\1")


def test_a_captured_db_names_its_certificates() -> None:
    db = parse_variable(EVENTS[6].data or b"")
    assert (db.guid, db.name) == (IMAGE_SECURITY, "db")
    subjects = [certificate_subject(each.data) or "" for each in parse_signature_lists(db.value)]
    assert any("Microsoft" in subject for subject in subjects)


def test_a_captured_authority_names_who_signed_the_boot_program() -> None:
    authority = parse_authority(parse_variable(EVENTS[21].data or b"").value)
    assert "Microsoft Corporation UEFI CA" in (certificate_subject(authority.data) or "")


def test_a_dbx_is_a_list_of_hashes() -> None:
    banned = hashlib.sha256(b"bad program").digest()
    assert [each.data for each in parse_signature_lists(signature_list(SHA256, banned, banned))] == [banned, banned]


def test_an_empty_signature_database_has_no_entries() -> None:
    assert parse_signature_lists(b"") == ()


def test_an_authority_may_be_a_hash() -> None:
    assert parse_authority(OWNER + bytes(32)).kind == "sha256"


def test_a_partition_table_is_read() -> None:
    entry = SHA256 + OWNER + pack("<QQQ", 34, 2047, 0) + "ESP".encode("utf-16-le").ljust(72, b"\0")
    table = parse_gpt(gpt(entry))
    assert [(each.name, each.first, each.last) for each in table.partitions] == [("ESP", 34, 2047)]


def test_a_device_path_reads_like_a_path() -> None:
    path = node(1, 1, b"\0\3") + node(4, 4, "\\EFI\\BOOT\\X.EFI\0".encode("utf-16-le")) + node(0x7F, 0xFF)
    assert parse_device_path(path) == "Pci(0x3,0x0)/EFI\\BOOT\\X.EFI"


def test_an_image_load_event_says_where_the_program_came_from() -> None:
    path = node(4, 4, "\\a\0".encode("utf-16-le")) + node(0x7F, 0xFF)
    found = parse_image_load(pack("<QQQQ", 0x1000, 7, 0, len(path)) + path)
    assert (found.address, found.length, found.path) == (0x1000, 7, "a")


def test_a_device_path_of_endless_nodes_ends() -> None:
    assert parse_device_path(node(1, 9) * 5000).count("/") == 63


REFUSED = {
    "a variable shorter than its head": (parse_variable, bytes(31)),
    "a name that overflows": (parse_variable, bytes(16) + pack("<QQ", 1 << 63, 0)),
    "a value that overflows": (parse_variable, bytes(16) + pack("<QQ", 0, (1 << 64) - 1)),
    "a value longer than the data": (parse_variable, bytes(16) + pack("<QQ", 0, 2) + b"x"),
    "bytes behind the value": (parse_variable, variable("PK", b"x") + b"y"),
    "signatures of no size": (parse_signature_lists, X509 + pack("<III", 28, 0, 0)),
    "signatures smaller than their owner": (parse_signature_lists, X509 + pack("<III", 44, 0, 16) + bytes(16)),
    "a list smaller than its head": (parse_signature_lists, X509 + pack("<III", 27, 0, 17)),
    "a list longer than the data": (parse_signature_lists, X509 + pack("<III", 1 << 31, 0, 17)),
    "a header longer than the list": (parse_signature_lists, X509 + pack("<III", 28, 0xFFFFFFFF, 17)),
    "signatures that do not fill the list": (parse_signature_lists, X509 + pack("<III", 28 + 20, 0, 17) + bytes(20)),
    "a hash of a wrong size": (parse_signature_lists, signature_list(SHA256, bytes(31))),
    "an authority without a signature": (parse_authority, OWNER),
    "an authority of something else": (parse_authority, OWNER + b"not a certificate"),
    "no partition table": (parse_gpt, bytes(100)),
    "more partitions than there are": (parse_gpt, gpt(count=0xFFFFFFFFFFFFFFFF)),
    "a partition that is cut": (parse_gpt, gpt(bytes(64), count=1)),
    "a node of no size": (parse_device_path, node(1, 1, size=0)),
    "a node beyond the path": (parse_device_path, node(1, 1, size=500)),
    "a path that ends in a node": (parse_device_path, node(1, 9) + b"\1"),
    "an image path beyond the event": (parse_image_load, pack("<QQQQ", 0, 0, 0, 1 << 40)),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_malformed_structure_is_refused(case: object) -> None:
    assert isinstance(case, tuple)
    parse, data = case
    with pytest.raises(ParseError):
        parse(data)


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x80", b"\x30\x03\2\1\0", bytes(100)])
def test_what_is_no_certificate_has_no_subject(der: bytes) -> None:
    assert certificate_subject(der) is None


@given(st.binary(max_size=400))
def test_any_bytes_give_a_value_or_a_parse_error(data: bytes) -> None:
    for parse in (parse_variable, parse_signature_lists, parse_authority, parse_gpt, parse_device_path):
        try:
            parse(data)
            parse_image_load(pack("<QQQQ", 0, 0, 0, len(data)) + data)
        except ParseError:
            continue


@given(st.integers(0, 1600), st.binary(min_size=1, max_size=6))
def test_a_mutated_authority_gives_a_value_or_a_parse_error(at: int, change: bytes) -> None:
    data = EVENTS[21].data or b""
    try:
        authority = parse_authority(parse_variable(data[:at] + change + data[at + len(change) :]).value)
    except ParseError:
        return
    certificate_subject(authority.data)
