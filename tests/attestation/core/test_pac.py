"""What a KDC says of an account is read whole and bounded; only enabled groups count, by their whole SID."""

from pathlib import Path
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.core.pac import PAC_LIMIT, LogonInfo, Membership, parse_logon_info
from attestation.errors import ParseError, TooLarge

CAPTURES = Path(__file__).resolve().parents[2] / "vectors" / "pac"
NTDEV = "S-1-5-21-397955417-626881126-188441444"
USER = "S-1-5-21-2284869408-3503417140-1141177250"
RESOURCE = "S-1-5-21-3062750306-1230139592-1973306805"
TEST = "S-1-5-21-3167651404-3865080224-2280184895"
ENABLED = 7


def captured(name: str) -> bytes:
    return (CAPTURES / f"{name}.bin").read_bytes()


def sid(*parts: int, revision: int = 1, authority: int = 5, count: int | None = None) -> bytes:
    number = len(parts) if count is None else count
    head = pack("<IBB", len(parts), revision, number) + authority.to_bytes(6, "big")
    return head + pack(f"<{len(parts)}I", *parts)


def text(value: str, *, before: int = 0, units: int | None = None) -> bytes:
    body = value.encode("utf-16-le")
    known = len(body) // 2
    return pack("<III", known, before, known if units is None else units) + body + bytes(-len(body) % 4)


def listed(*elements: tuple[int, int], count: int | None = None) -> bytes:
    return pack("<I", len(elements) if count is None else count) + b"".join(pack("<II", *each) for each in elements)


def made(
    *,
    account: str = "host1$",
    control: int = 0x80,
    flags: int = 0x220,
    domain: bytes | None = sid(21, 7, 8, 9),
    groups: tuple[tuple[int, int], ...] = ((515, ENABLED),),
    extra: tuple[bytes, ...] = (),
    resource: bytes | None = None,
    resource_rids: tuple[tuple[int, int], ...] = (),
    account_body: bytes | None = None,
    group_body: bytes | None = None,
    extra_body: bytes | None = None,
    behind: bytes = b"",
) -> bytes:
    """A KERB_VALIDATION_INFO as a KDC could write it, with one thing wrong where a test asks for it."""
    size = 2 * len(account)
    fixed = pack("<I48xHHI", 1, size, size, 1) + bytes(5 * 8 + 4)
    fixed += pack("<IIIII16x", 1103, 515, len(groups), bool(groups), flags)
    fixed += bytes(8) + pack("<HHI", 2, 2, 1)  # no LogonServer; LogonDomainName is one character
    fixed += pack("<I8xI28x", domain is not None, control)
    fixed += pack("<II", len(extra), bool(extra) or extra_body is not None)
    fixed += pack("<III", resource is not None, len(resource_rids), bool(resource_rids))
    bodies = text(account) if account_body is None else account_body
    if groups:
        bodies += listed(*groups) if group_body is None else group_body
    bodies += text("F") + (domain or b"")
    if extra_body is not None:
        bodies += extra_body
    elif extra:
        bodies += listed(*((1, ENABLED) for _ in extra)) + b"".join(extra)
    bodies += (resource or b"") + (listed(*resource_rids) if resource_rids else b"")
    return enveloped(fixed + bodies + behind)


def enveloped(body: bytes, *, head: bytes = b"\1\x10\x08\0\xcc\xcc\xcc\xcc", length: int | None = None) -> bytes:
    body += bytes(-len(body) % 8)
    return head + pack("<I4x", len(body) if length is None else length) + body


def unpadded(data: bytes) -> bytes:
    return data[:8] + pack("<I4x", len(data) - 20) + data[16:-4]


def test_microsofts_own_sample_is_read() -> None:
    info = parse_logon_info(captured("ms-pac-sample"))
    assert (info.account, info.logon_domain, info.sid) == ("lzhu", "NTDEV", f"{NTDEV}-2914711")
    assert info.primary_group == f"{NTDEV}-513"
    assert (info.user_account_control, info.is_machine) == (0x10, False)
    assert [len(each) for each in (info.groups, info.extra_sids, info.resource_groups)] == [26, 13, 0]
    assert info.groups[0] == Membership(f"{NTDEV}-3392609", 7)
    assert info.extra_sids[0] == Membership("S-1-5-21-773533881-1816936887-355810188-513", 7)
    assert info.extra_sids[1] == Membership(f"{NTDEV}-3101812", 0x20000007)
    assert len(info.enabled_sids) == 39


def test_a_users_groups_in_a_windows_domain_are_read() -> None:
    info = parse_logon_info(captured("windows-user"))
    assert (info.account, info.logon_domain, info.sid, info.is_machine) == ("testuser1", "TEST", f"{TEST}-1105", False)
    assert info.enabled_sids == {f"{TEST}-{rid}" for rid in (513, 1108, 1109, 1115, 1116, 1114, 1111)}


def test_resource_groups_are_those_of_their_own_domain() -> None:
    info = parse_logon_info(captured("windows-trust"))
    assert info.logon_domain == "USER"
    assert info.enabled_sids == {
        *(f"{USER}-{rid}" for rid in (1110, 513, 1109)),
        *(f"{RESOURCE}-{rid}" for rid in (1107, 1108)),
        "S-1-18-1",
    }


def test_a_machine_in_a_samba_domain_is_read() -> None:
    info = parse_logon_info(captured("samba-machine"))
    assert (info.account, info.logon_domain, info.is_machine) == ("member$", "FABRIC", True)
    assert info.enabled_sids == {f"{info.domain_sid}-515", f"{info.domain_sid}-1102", "S-1-18-1"}


@pytest.mark.parametrize(
    ("control", "machine"),
    [
        pytest.param(0x80, True, id="a workstation or member server"),
        pytest.param(0x100, True, id="a domain controller"),
        pytest.param(0x10, False, id="a user"),
        pytest.param(0x210, False, id="a user whose password stays"),
        pytest.param(0x40, False, id="a trusted domain"),
        pytest.param(0x1000, False, id="LDAP's bit for a workstation"),
        pytest.param(0, False, id="nothing"),
    ],
)
def test_a_machine_is_known_by_samrs_bits(control: int, machine: bool) -> None:
    assert parse_logon_info(made(control=control)).is_machine is machine


def test_a_group_that_is_not_enabled_does_not_count() -> None:
    info = parse_logon_info(made(groups=((515, 7), (1103, 3), (1104, 0x10), (1105, 4))))
    assert len(info.groups) == 4
    assert info.enabled_sids == {"S-1-5-21-7-8-9-515", "S-1-5-21-7-8-9-1105"}


@pytest.mark.parametrize(
    ("flags", "counted"),
    [
        pytest.param(0, set(), id="neither"),
        pytest.param(0x20, {"S-1-5-32-544"}, id="extra SIDs"),
        pytest.param(0x200, {"S-1-5-21-1-1103"}, id="resource groups"),
        pytest.param(0x220, {"S-1-5-32-544", "S-1-5-21-1-1103"}, id="both"),
    ],
)
def test_a_list_whose_flag_is_not_set_is_not_there(flags: int, counted: set[str]) -> None:
    data = made(flags=flags, groups=(), extra=(sid(32, 544),), resource=sid(21, 1), resource_rids=((1103, 7),))
    assert parse_logon_info(data).enabled_sids == counted


@pytest.mark.parametrize(
    ("raw", "written"),
    [
        pytest.param(sid(32, 544), "S-1-5-32-544", id="Administrators"),
        pytest.param(sid(1, authority=18), "S-1-18-1", id="asserted by an authority"),
        pytest.param(sid(7, authority=1 << 32), "S-1-0x000100000000-7", id="an authority above 32 bits"),
        pytest.param(sid(*range(15)), "S-1-5-0-1-2-3-4-5-6-7-8-9-10-11-12-13-14", id="the most parts"),
        pytest.param(sid(0xFFFFFFFF), "S-1-5-4294967295", id="the largest part"),
        pytest.param(sid(), "S-1-5", id="no parts"),
    ],
)
def test_a_sid_is_written_one_way(raw: bytes, written: str) -> None:
    assert parse_logon_info(made(extra=(raw,))).extra_sids == (Membership(written, 7),)


def test_texts_of_odd_length_are_followed_by_padding() -> None:
    assert parse_logon_info(made(account="abc", extra=(sid(32, 544),))).account == "abc"
    assert parse_logon_info(made(account="")).account == ""


GOOD = made()
REFUSED = {
    "nothing": b"",
    "big-endian": enveloped(GOOD[16:], head=b"\1\0\x08\0\xcc\xcc\xcc\xcc"),
    "another version": enveloped(GOOD[16:], head=b"\2\x10\x08\0\xcc\xcc\xcc\xcc"),
    "a longer header": enveloped(GOOD[16:], head=b"\1\x10\x10\0\xcc\xcc\xcc\xcc"),
    "a length past the end": enveloped(GOOD[16:], length=len(GOOD)),
    "a length before the end": enveloped(GOOD[16:], length=len(GOOD) - 24),
    "a length that is no multiple of eight": unpadded(GOOD),
    "no structure": enveloped(bytes(4) + GOOD[20:]),
    "no domain": made(domain=None),
    "bytes behind": made(behind=bytes(8)),
    "half a character": made(account_body=text("host1$", units=5)),
    "more characters than its length": made(account_body=text("host1$$")),
    "characters behind others": made(account_body=text("host1$", before=1)),
    "a lone surrogate": made(account_body=pack("<III", 6, 0, 6) + b"\0\xd8" * 6),
    "more groups than counted": made(group_body=listed((515, 7), (516, 7))),
    "a gibibyte of groups": made(group_body=listed((515, 7), count=1 << 27)),
    "a SID of revision 2": made(domain=sid(21, 7, revision=2)),
    "a SID of sixteen parts": made(domain=sid(*range(16))),
    "a SID of another length": made(domain=sid(21, 7, 8, count=2)),
    "an extra SID that is nowhere": made(extra=(b"",), extra_body=listed((0, 7))),
    "extra SIDs that end early": made(extra=(b"",) * 2, extra_body=listed((1, 7), (1, 7)) + sid(32, 544)),
    "extra SIDs nobody counted": made(extra_body=listed((1, 7)) + sid(32, 544)),
    "resource groups without a domain": made(resource_rids=((1103, 7),)),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_has_another_form_is_refused(data: bytes) -> None:
    assert parse_logon_info(GOOD).account == "host1$"
    with pytest.raises(ParseError, match="KERB_VALIDATION_INFO"):
        parse_logon_info(data)


def test_a_structure_above_its_bound_is_not_looked_at() -> None:
    with pytest.raises(TooLarge):
        parse_logon_info(bytes(PAC_LIMIT + 1))


@pytest.mark.parametrize("name", ["ms-pac-sample", "windows-user", "windows-trust", "samba-machine"])
def test_every_truncation_is_refused(name: str) -> None:
    data = captured(name)
    for end in range(len(data)):
        with pytest.raises(ParseError):
            parse_logon_info(data[:end])
        with pytest.raises(ParseError):  # and where the length agrees with what is left
            parse_logon_info(data[:8] + pack("<I", max(0, end - 16)) + data[12:end])


@pytest.mark.parametrize("name", ["ms-pac-sample", "windows-user", "windows-trust", "samba-machine"])
def test_a_changed_byte_gives_a_value_or_a_refusal(name: str) -> None:
    data = captured(name)
    read = 0
    for at in range(len(data)):
        for value in {0, 1, data[at] ^ 0x80, 0xFF} - {data[at]}:
            try:
                read += isinstance(parse_logon_info(data[:at] + bytes((value,)) + data[at + 1 :]), LogonInfo)
            except ParseError:
                continue
    assert read  # a changed RID is another RID: only the KDC's signature says which is true


@settings(max_examples=200, deadline=None, database=None)
@given(
    account=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    groups=st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=20),
    extra=st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=15), max_size=10),
)
def test_what_a_kdc_writes_is_what_is_read(account: str, groups: list[tuple[int, int]], extra: list[list[int]]) -> None:
    account = "".join(each for each in account if ord(each) < 0x10000)
    info = parse_logon_info(made(account=account, groups=tuple(groups), extra=tuple(sid(*parts) for parts in extra)))
    assert info.account == account
    assert [(int(each.sid.rpartition("-")[2]), each.attributes) for each in info.groups] == groups
    assert [each.sid for each in info.extra_sids] == ["-".join(("S-1-5", *map(str, parts))) for parts in extra]
