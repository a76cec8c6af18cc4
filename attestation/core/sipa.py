"""Reads what Windows measures: the SIPA records inside the tagged events of its boot log (WBCL).

Windows' boot manager and loader put many small records, nested, into one tagged event and measure the whole. So a
record inside a proved event is proved, and an unknown one may be skipped without losing what the digest covers. Names
and numbers are those of Microsoft's wbcl.h.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from attestation.core.reader import Reader

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
BOOT_DEBUGGING: Final = 0x00040001
BOOT_REVOCATION_LIST: Final = 0x00040002
KERNEL_DEBUG: Final = 0x00050001
CODE_INTEGRITY: Final = 0x00050002
TEST_SIGNING: Final = 0x00050003
DATA_EXECUTION_PREVENTION: Final = 0x00050004
SAFE_MODE: Final = 0x00050005
WINPE: Final = 0x00050006
HYPERVISOR_LAUNCH: Final = 0x0005000A
HYPERVISOR_IOMMU: Final = 0x0005000C
HYPERVISOR_DEBUG: Final = 0x0005000D
DRIVER_LOAD_POLICY: Final = 0x0005000E
SI_POLICY: Final = 0x0005000F
HYPERVISOR_MMIO_NX: Final = 0x00050010
HYPERVISOR_MSR_FILTER: Final = 0x00050011
VSM_LAUNCH: Final = 0x00050012
OS_REVOCATION_LIST: Final = 0x00050013
VSM_IDENTITY_KEY: Final = 0x00050020
FLIGHT_SIGNING: Final = 0x00050021
PAGEFILE_ENCRYPTION: Final = 0x00050022
VSM_IDENTITY_SIGNING_KEY: Final = 0x00050023
HIBERNATION_DISABLED: Final = 0x00050024
DUMPS_DISABLED: Final = 0x00050025
DUMP_ENCRYPTION: Final = 0x00050026
BOOT_DMA_PROTECTION: Final = 0x00050030
ELAM_KEY_NAME: Final = 0x00090001
ELAM_CONFIGURATION: Final = 0x00090002
ELAM_POLICY: Final = 0x00090003
ELAM_MEASURED: Final = 0x00090004
VBS_VSM_REQUIRED: Final = 0x000A0001
VBS_SECURE_BOOT_REQUIRED: Final = 0x000A0002
VBS_IOMMU_REQUIRED: Final = 0x000A0003
VBS_MANDATORY: Final = 0x000A0006
VBS_HVCI: Final = 0x000A0007

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
    budget = [_MOST_RECORDS]
    return _records(Reader(data, what="SIPA", order="little"), _DEEPEST, budget)


def integer(record: Record) -> int:
    """Return the value of a record that holds a boolean or a number: 1, 2, 4 or 8 bytes and nothing else."""
    reader = Reader(record.value, what=f"SIPA record {record.kind:#010x}", order="little")
    if len(record.value) not in (1, 2, 4, 8):
        raise reader.error(f"a number of {len(record.value)} bytes")
    return int.from_bytes(record.value, "little")


def text(record: Record) -> str:
    """Return the value of a record that holds UTF-16 text."""
    return record.value.decode("utf-16-le", "replace").rstrip("\0")


def _records(reader: Reader, depth: int, budget: list[int]) -> tuple[Record, ...]:
    records = []
    while reader.remaining:
        budget[0] -= 1
        if budget[0] < 0:
            raise reader.error("too many records")
        kind, size = reader.u32(), reader.u32()
        value = reader.take(size)
        if not kind & AGGREGATION:
            records.append(Record(kind, value))
        elif depth:
            inside = Reader(value, what=f"SIPA aggregation {kind:#010x}", order="little")
            records.append(Record(kind, b"", _records(inside, depth - 1, budget)))
        else:
            raise reader.error("nested too deeply")
    return tuple(records)
