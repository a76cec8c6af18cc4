"""Reads what Windows measures: the SIPA records inside the tagged events of its boot log (WBCL).

Windows' boot manager and loader put many small records, nested, into one tagged event and measure the whole. So a
record inside a proved event is proved, and an unknown one may be skipped without losing what the digest covers. Names
and numbers are those of Microsoft's wbcl.h.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from attestation.errors import ParseError

AGGREGATION: Final = 0x40000000
NON_MEASURED: Final = 0x80000000

TRUST_BOUNDARY: Final = 0x40010001
ELAM: Final = 0x40010002
LOADED_MODULE: Final = 0x40010003
BOOT_COUNTER: Final = 0x00020002
TRANSFER_CONTROL: Final = 0x00020003
BITLOCKER_UNLOCK: Final = 0x00020005
EVENT_COUNTER: Final = 0x00020006
COUNTER_ID: Final = 0x00020007
APPLICATION_SVN: Final = 0x00020009
SVN_CHAIN_STATUS: Final = 0x0002000A
MOR_BIT_API_STATUS: Final = 0x0002000B
IDK_GENERATION_STATUS: Final = 0x0002000C
FIRMWARE_FAILURE: Final = 0x00030001
INTERNAL_FAILURE: Final = 0x00030003
HYPERVISOR_FAILURE: Final = 0x00030005
BOOT_DEBUGGING: Final = 0x00040001
BOOT_REVOCATION_LIST: Final = 0x00040002
KERNEL_DEBUG: Final = 0x00050001
CODE_INTEGRITY: Final = 0x00050002
TEST_SIGNING: Final = 0x00050003
DATA_EXECUTION_PREVENTION: Final = 0x00050004
SAFE_MODE: Final = 0x00050005
WINPE: Final = 0x00050006
SYSTEM_ROOT: Final = 0x00050009
HYPERVISOR_LAUNCH: Final = 0x0005000A
HYPERVISOR_PATH: Final = 0x0005000B
HYPERVISOR_IOMMU: Final = 0x0005000C
HYPERVISOR_DEBUG: Final = 0x0005000D
DRIVER_LOAD_POLICY: Final = 0x0005000E
SI_POLICY: Final = 0x0005000F
HYPERVISOR_MMIO_NX: Final = 0x00050010
HYPERVISOR_MSR_FILTER: Final = 0x00050011
VSM_LAUNCH: Final = 0x00050012
OS_REVOCATION_LIST: Final = 0x00050013
SMT_STATUS: Final = 0x00050014
VSM_IDENTITY_KEY: Final = 0x00050020
FLIGHT_SIGNING: Final = 0x00050021
PAGEFILE_ENCRYPTION: Final = 0x00050022
VSM_IDENTITY_SIGNING_KEY: Final = 0x00050023
HIBERNATION_DISABLED: Final = 0x00050024
DUMPS_DISABLED: Final = 0x00050025
DUMP_ENCRYPTION: Final = 0x00050026
DUMP_ENCRYPTION_KEY: Final = 0x00050027
LSA_ISO_CONFIG: Final = 0x00050028
SECURE_BOOT_POLICY: Final = 0x00050029
BOOT_DMA_PROTECTION: Final = 0x00050030
SI_POLICY_SIGNER: Final = 0x00050031
SI_POLICY_UPDATE_SIGNER: Final = 0x00050032
NO_AUTHORITY: Final = 0x00060001
AUTHORITY_KEY: Final = 0x00060002
MODULE_PATH: Final = 0x00070001
MODULE_VALIDATED: Final = 0x0007000A
ELAM_KEY_NAME: Final = 0x00090001
ELAM_CONFIGURATION: Final = 0x00090002
ELAM_POLICY: Final = 0x00090003
ELAM_MEASURED: Final = 0x00090004
VBS_VSM_REQUIRED: Final = 0x000A0001
VBS_SECURE_BOOT_REQUIRED: Final = 0x000A0002
VBS_IOMMU_REQUIRED: Final = 0x000A0003
VBS_MMIO_NX_REQUIRED: Final = 0x000A0004
VBS_MSR_FILTER_REQUIRED: Final = 0x000A0005
VBS_MANDATORY: Final = 0x000A0006
VBS_HVCI: Final = 0x000A0007
VBS_BOOT_CHAIN_REQUIRED: Final = 0x000A0008
VBS_DUMP_USES_AME_ROOT: Final = 0x000A0009
VBS_NO_SECRETS: Final = 0x000A000A
DRTM_STATE_AUTHORITY: Final = 0x000C0001
DRTM_SMM_LEVEL: Final = 0x000C0002

_HEAD: Final = Struct("<II")
_DEEPEST: Final = 8
_MOST_RECORDS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Record:
    """One tagged value; an aggregation's `children` are the records inside it, and its `value` is empty."""

    kind: int
    value: bytes
    children: tuple["Record", ...] = ()

    def walk(self) -> Iterator["Record"]:
        """Give this record and every one inside it, in their order."""
        yield self
        for child in self.children:
            yield from child.walk()


def parse_sipa(data: bytes) -> tuple[Record, ...]:
    """Return the records of one tagged event (EV_EVENT_TAG of PCRs 11 to 14; trust points in no PCR).

    Depth and number are bounded: 8 levels are more than Windows nests, and a megabyte of empty records is no boot.
    """
    return _records(data, 0, len(data), _DEEPEST, [_MOST_RECORDS])


def integer(record: Record) -> int:
    """Return the value of a record that holds a boolean or a number: 1, 2, 4 or 8 bytes and nothing else."""
    if len(record.value) not in (1, 2, 4, 8):
        raise ParseError(f"SIPA record {record.kind:#010x} at offset 0: a number of {len(record.value)} bytes.")
    return int.from_bytes(record.value, "little")


def text(record: Record) -> str:
    """Return the value of a record that holds UTF-16 text."""
    return record.value.decode("utf-16-le", "replace").rstrip("\0")


def _records(data: bytes, at: int, end: int, depth: int, budget: list[int]) -> tuple[Record, ...]:
    records = []
    while at < end:
        budget[0] -= 1
        if budget[0] < 0:
            raise ParseError(f"SIPA at offset {at}: too many records.")
        if end - at < _HEAD.size:
            raise ParseError(f"SIPA at offset {at}: needs {_HEAD.size} bytes, {end - at} are left.")
        kind, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if size > end - at:
            raise ParseError(f"SIPA at offset {at}: needs {size} bytes, {end - at} are left.")
        if not kind & AGGREGATION:
            records.append(Record(kind, data[at : at + size]))
        elif depth:
            records.append(Record(kind, b"", _records(data, at, at + size, depth - 1, budget)))
        else:
            raise ParseError(f"SIPA at offset {at}: nested too deeply.")
        at += size
    return tuple(records)
