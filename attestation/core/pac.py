"""Reads who a Kerberos ticket is for, as the KDC of a domain wrote it: KERB_VALIDATION_INFO (MS-PAC 2.5).

The structure is what GSS-API hands out as `urn:mspac:logon-info`. It is NDR in type serialization version 1 (MS-RPCE
2.2.6): fixed fields first, then what they point at, in the order of the pointers, everything on four bytes. It is read
whole or not at all; what it says counts only when the library that opened the ticket calls it authenticated.
"""

from dataclasses import dataclass
from struct import iter_unpack
from typing import Final

from attestation.core.reader import Reader
from attestation.core.sid import parse_sid
from attestation.errors import TooLarge

PAC_LIMIT: Final = 1 << 16  # a Windows token holds 1,024 groups, and a ticket 64 KiB

SE_GROUP_ENABLED: Final = 0x4
# USER_WORKSTATION_TRUST_ACCOUNT and USER_SERVER_TRUST_ACCOUNT of MS-SAMR 2.2.1.12; LDAP's userAccountControl differs.
MACHINE_ACCOUNT: Final = 0x80 | 0x100
# LOGON_EXTRA_SIDS and LOGON_RESOURCE_GROUPS: without its flag a list is not there, whatever its pointer says.
EXTRA_SIDS: Final = 0x20
RESOURCE_GROUPS: Final = 0x200

_VERSION_AND_ORDER: Final = b"\x01\x10\x08\x00"  # version 1, little-endian, a header of eight bytes
_WHAT: Final = "KERB_VALIDATION_INFO"
_TIMES: Final = 6
_STRINGS: Final = 6
_SID_HEAD: Final = 8


@dataclass(frozen=True, slots=True)
class Membership:
    """One group of the account, by its whole SID, and the SE_GROUP bits that it is held with."""

    sid: str
    attributes: int

    @property
    def enabled(self) -> bool:
        return bool(self.attributes & SE_GROUP_ENABLED)


@dataclass(frozen=True, slots=True)
class LogonInfo:
    """An account and its groups at the moment of the logon, nested ones flattened by the KDC."""

    account: str
    logon_domain: str
    domain_sid: str
    user_rid: int
    primary_group_rid: int
    user_account_control: int
    groups: tuple[Membership, ...]
    extra_sids: tuple[Membership, ...]
    resource_groups: tuple[Membership, ...]

    @property
    def sid(self) -> str:
        return f"{self.domain_sid}-{self.user_rid}"

    @property
    def primary_group(self) -> str:
        return f"{self.domain_sid}-{self.primary_group_rid}"

    @property
    def is_machine(self) -> bool:
        return bool(self.user_account_control & MACHINE_ACCOUNT)

    @property
    def enabled_sids(self) -> frozenset[str]:
        """The groups that count, by SID and never by name: names can be had by anyone who may make a group."""
        held = (*self.groups, *self.extra_sids, *self.resource_groups)
        return frozenset(each.sid for each in held if each.enabled)


def parse_logon_info(data: bytes) -> LogonInfo:
    """Return the account and the groups that KERB_VALIDATION_INFO names."""
    if len(data) > PAC_LIMIT:
        raise TooLarge(f"KERB_VALIDATION_INFO has {len(data)} bytes; {PAC_LIMIT} is the limit.")
    reader = Reader(data, what=_WHAT, order="little")
    _headers(reader)
    reader.take(8 * _TIMES)  # LogonTime to PasswordMustChange
    names = [_String.read(reader) for _ in range(_STRINGS)]  # EffectiveName to HomeDirectoryDrive
    reader.take(4)  # LogonCount, BadPasswordCount
    user_rid, primary_group_rid = reader.u32(), reader.u32()
    groups = _Pointed.read(reader)
    flags = reader.u32()
    reader.take(16)  # UserSessionKey, zero in a ticket
    server, domain = _String.read(reader), _String.read(reader)
    domain_sid_follows = reader.u32()
    reader.take(8)  # Reserved1
    user_account_control = reader.u32()
    reader.take(28)  # SubAuthStatus to Reserved3
    extra = _Pointed.read(reader)
    resource_sid_follows = reader.u32()
    resource = _Pointed.read(reader)

    account, *_ = [each.text(reader) for each in names]
    group_rids = groups.elements(reader)
    server.text(reader)
    logon_domain = domain.text(reader)
    if not domain_sid_follows:
        raise reader.error("no domain has a SID here")
    domain_sid = _sid(reader)
    extra_sids = _sids(reader, extra)
    resource_sid = _sid(reader) if resource_sid_follows else ""
    resource_rids = resource.elements(reader)
    if resource_rids and not resource_sid:
        raise reader.error("resource groups of no domain")
    if reader.remaining >= 8:  # the buffer is padded to a multiple of eight
        raise reader.error(f"ends here, but {reader.remaining} bytes follow")
    return LogonInfo(
        account=account,
        logon_domain=logon_domain,
        domain_sid=domain_sid,
        user_rid=user_rid,
        primary_group_rid=primary_group_rid,
        user_account_control=user_account_control,
        groups=_memberships(domain_sid, group_rids),
        extra_sids=extra_sids if flags & EXTRA_SIDS else (),
        resource_groups=_memberships(resource_sid, resource_rids) if flags & RESOURCE_GROUPS else (),
    )


def _headers(reader: Reader) -> None:
    """Read the common and the private header of MS-RPCE 2.2.6, and the pointer to the structure behind them."""
    if reader.take(4) != _VERSION_AND_ORDER:
        raise reader.error("is not in little-endian NDR, version 1")
    reader.take(4)
    length = reader.u32()
    reader.take(4)
    if length != reader.remaining or length % 8:
        raise reader.error(f"claims {length} bytes, {reader.remaining} are there")
    if not reader.u32():
        raise reader.error("points at nothing")


@dataclass(frozen=True, slots=True)
class _String:
    """RPC_UNICODE_STRING (MS-DTYP 2.3.10): the lengths, in bytes, of a text that follows where it is pointed at."""

    length: int
    most: int
    follows: int

    @classmethod
    def read(cls, reader: Reader) -> "_String":
        return cls(reader.u16(), reader.u16(), reader.u32())

    def text(self, reader: Reader) -> str:
        if not self.follows:
            if self.length:
                raise reader.error(f"a text of {self.length} bytes is nowhere")
            return ""
        _align(reader)
        most, before, units = reader.u32(), reader.u32(), reader.u32()
        if before or 2 * units != self.length or 2 * most != self.most or units > most:
            raise reader.error(f"a text of {self.length} bytes has {units} of {most} characters behind {before}")
        try:
            return reader.take(self.length).decode("utf-16-le")
        except UnicodeDecodeError as error:
            raise reader.error("a text is no UTF-16") from error


@dataclass(frozen=True, slots=True)
class _Pointed:
    """How many elements a list has that follows where it is pointed at."""

    count: int
    follows: int

    @classmethod
    def read(cls, reader: Reader) -> "_Pointed":
        return cls(reader.u32(), reader.u32())

    def elements(self, reader: Reader) -> list[tuple[int, int]]:
        """Return pairs of 32-bit numbers: a RID or a pointer, and the attributes of the membership."""
        if not self.follows:
            if self.count:
                raise reader.error(f"a list of {self.count} elements is nowhere")
            return []
        _align(reader)
        count = reader.u32()
        if count != self.count:
            raise reader.error(f"a list of {self.count} elements has {count}")
        return list(iter_unpack("<II", reader.take(8 * count)))


def _memberships(domain: str, rids: list[tuple[int, int]]) -> tuple[Membership, ...]:
    """GROUP_MEMBERSHIP (MS-PAC 2.2.2): RIDs in a domain that the structure names once."""
    return tuple(Membership(f"{domain}-{rid}", attributes) for rid, attributes in rids)


def _sids(reader: Reader, pointed: _Pointed) -> tuple[Membership, ...]:
    """KERB_SID_AND_ATTRIBUTES (MS-PAC 2.2.1): all pointers first, then the SIDs."""
    elements = pointed.elements(reader)
    if not all(follows for follows, _ in elements):
        raise reader.error("an extra SID is nowhere")
    return tuple(Membership(_sid(reader), attributes) for _, attributes in elements)


def _sid(reader: Reader) -> str:
    """RPC_SID (MS-DTYP 2.4.2.3): the length of its conformant array stands in front of the whole structure."""
    _align(reader)
    return parse_sid(reader.take(_SID_HEAD + 4 * reader.u32()), what=_WHAT)


def _align(reader: Reader) -> None:
    reader.take(-reader.offset % 4)
