"""Answers what a Windows boot log proves, from the SIPA records in PCRs 12 and 13.

The boot manager and the loader end their part with a "WBCL" separator; whatever was measured behind it, anybody with
rights in the running system may have measured. One event before it whose data are not proved, or not readable, could
hide any record: then that PCR answers nothing.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from attestation.core import sipa
from attestation.core.reader import Reader
from attestation.core.replay import VerifiedEvent
from attestation.errors import ParseError

END_OF_PHASE: Final = b"WBCL"
PCRS: Final = (12, 13)

WindowsValue = bool | int | str | tuple[str, ...] | tuple[int, ...] | Mapping[str, str]
Found = tuple[WindowsValue, int, int]
"""The value, its PCR, and the event's index in the log."""

_DEP_WORDS: Final = {0: "OptIn", 1: "OptOut", 2: "AlwaysOff", 3: "AlwaysOn"}
_ALWAYS_OFF: Final = 2
_COLD_BOOT: Final = 1
_HASH_NAMES: Final = {0x8004: "sha1", 0x800C: "sha256", 0x800D: "sha384", 0x800E: "sha512", 0xB: "sha256"}


@dataclass(frozen=True, slots=True)
class _Seen:
    record: sipa.Record
    pcr: int
    event: int


def windows_facts(events: Sequence[VerifiedEvent], *, bank: str) -> dict[str, Found | None]:
    """Return every fact about Windows that we know to ask for, None where these events do not prove it."""
    seen = [each for pcr in PCRS for each in _phase(events, pcr, hashlib.new(bank, END_OF_PHASE).digest())]
    facts: dict[str, Found | None] = {}
    for name, (question, kind) in _QUESTIONS.items():
        about = [each for each in seen if each.record.kind == kind]
        try:
            value = question(about, seen) if about else None
        except ParseError:  # a value of impossible size answers nothing
            value = None
        facts[name] = None if value is None else (value, about[0].pcr, about[0].event)
    return facts


def parse_si_policy(data: bytes) -> tuple[str, str]:
    """Return name and hash of a code integrity policy (wbcl.h, SIPAEVENT_SI_POLICY_PAYLOAD)."""
    reader = Reader(data, what="code integrity policy", order="little")
    reader.u64()
    name_size, algorithm, hash_size = reader.u16(), reader.u16(), reader.u32()
    name = reader.take(name_size).decode("utf-16-le", "replace").rstrip("\0")
    digest = reader.take(hash_size)
    reader.finish()
    return name, f"{_HASH_NAMES.get(algorithm, f'{algorithm:#x}')}:{digest.hex()}"


def _phase(events: Sequence[VerifiedEvent], pcr: int, end: bytes) -> list[_Seen]:
    """Every record measured into the PCR before its "WBCL"; none when one of its events cannot be read."""
    mine = [event for event in events if event.pcr == pcr]
    at = next((at for at, event in enumerate(mine) if event.digest == end), None)
    found: list[_Seen] = []
    for event in mine[:at] if at is not None else []:
        if event.data is None:
            return []
        try:
            records = sipa.parse_sipa(event.data)
        except ParseError:
            return []
        found.extend(_Seen(record, pcr, event.index) for outer in records for record in outer.walk())
    return found


Question = Callable[[Sequence[_Seen], Sequence[_Seen]], WindowsValue | None]


def _numbers(seen: Sequence[_Seen]) -> list[int]:
    return [sipa.integer(each.record) for each in seen]


def _ever(about: Sequence[_Seen], seen: Sequence[_Seen]) -> bool:
    """On when any stage of the boot had it on."""
    return any(_numbers(about))


def _always(about: Sequence[_Seen], seen: Sequence[_Seen]) -> bool:
    """On when every stage of the boot had it on."""
    return all(_numbers(about))


def _one(about: Sequence[_Seen], seen: Sequence[_Seen]) -> int | None:
    """The number, when there are not two of them."""
    numbers = set(_numbers(about))
    return numbers.pop() if len(numbers) == 1 else None


def _cold_boot(about: Sequence[_Seen], seen: Sequence[_Seen]) -> bool:
    """False when the boot manager resumed an earlier system instead of starting one."""
    return all(number == _COLD_BOOT for number in _numbers(about))


def _data_execution_prevention(about: Sequence[_Seen], seen: Sequence[_Seen]) -> bool:
    return _ALWAYS_OFF not in _numbers(about)


def _dep_policy(about: Sequence[_Seen], seen: Sequence[_Seen]) -> str | None:
    number = _one(about, seen)
    return None if number is None else _DEP_WORDS.get(number, str(number))


def _unlocks(about: Sequence[_Seen], seen: Sequence[_Seen]) -> tuple[int, ...]:
    """How each volume was unlocked (0: in clear); both PCRs say the same, so one is enough."""
    return tuple(_numbers([each for each in about if each.pcr == about[0].pcr]))


def _virtualisation(about: Sequence[_Seen], seen: Sequence[_Seen]) -> bool:
    """Virtual secure mode needs the hypervisor under it."""
    hypervisor = [each for each in seen if each.record.kind == sipa.HYPERVISOR_LAUNCH]
    return _always(about, seen) and bool(hypervisor) and _always(hypervisor, seen)


def _hvci(about: Sequence[_Seen], seen: Sequence[_Seen]) -> bool:
    launched = [each for each in seen if each.record.kind == sipa.VSM_LAUNCH]
    policy = [each for each in seen if each.record.kind == sipa.VBS_HVCI]
    return bool(launched) and _virtualisation(launched, seen) and bool(policy) and _always(policy, seen)


def _drivers(about: Sequence[_Seen], seen: Sequence[_Seen]) -> Mapping[str, str]:
    """Each early-launch anti-malware driver with what was measured of it."""
    drivers = {}
    for each in about:
        fields = {child.kind: child for child in each.record.children}
        name = sipa.text(fields[sipa.ELAM_KEY_NAME]) if sipa.ELAM_KEY_NAME in fields else ""
        kinds = (sipa.ELAM_MEASURED, sipa.ELAM_POLICY, sipa.ELAM_CONFIGURATION)
        if name:
            drivers[name] = next((fields[kind].value.hex() for kind in kinds if kind in fields), "")
    return drivers


def _policies(about: Sequence[_Seen], seen: Sequence[_Seen]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(" ".join(parse_si_policy(each.record.value)) for each in about))


def _key(about: Sequence[_Seen], seen: Sequence[_Seen]) -> str | None:
    """The SHA-256 of the key, when there are not two of them."""
    keys = {each.record.value for each in about}
    return hashlib.sha256(keys.pop()).hexdigest() if len(keys) == 1 else None


_QUESTIONS: Final[Mapping[str, tuple[Question, int]]] = {
    "boot_debugging": (_ever, sipa.BOOT_DEBUGGING),
    "kernel_debug": (_ever, sipa.KERNEL_DEBUG),
    "hypervisor_debug": (_ever, sipa.HYPERVISOR_DEBUG),
    "test_signing": (_ever, sipa.TEST_SIGNING),
    "flight_signing": (_ever, sipa.FLIGHT_SIGNING),
    "code_integrity": (_always, sipa.CODE_INTEGRITY),
    "code_integrity_policies": (_policies, sipa.SI_POLICY),
    "safe_mode": (_ever, sipa.SAFE_MODE),
    "winpe": (_ever, sipa.WINPE),
    "dep": (_data_execution_prevention, sipa.DATA_EXECUTION_PREVENTION),
    "dep_policy": (_dep_policy, sipa.DATA_EXECUTION_PREVENTION),
    "elam": (_drivers, sipa.ELAM),
    "hypervisor": (_always, sipa.HYPERVISOR_LAUNCH),
    "vsm": (_virtualisation, sipa.VSM_LAUNCH),
    "hvci": (_hvci, sipa.VSM_LAUNCH),
    "vbs_mandatory": (_always, sipa.VBS_MANDATORY),
    "vbs_secure_boot_required": (_always, sipa.VBS_SECURE_BOOT_REQUIRED),
    "iommu_required": (_always, sipa.VBS_IOMMU_REQUIRED),
    "hypervisor_iommu_policy": (_one, sipa.HYPERVISOR_IOMMU),
    "hypervisor_mmio_nx": (_always, sipa.HYPERVISOR_MMIO_NX),
    "hypervisor_msr_filter": (_always, sipa.HYPERVISOR_MSR_FILTER),
    "dma_protection": (_always, sipa.BOOT_DMA_PROTECTION),
    "identity_key": (_key, sipa.VSM_IDENTITY_KEY),
    "identity_signing_key": (_key, sipa.VSM_IDENTITY_SIGNING_KEY),
    "bitlocker_unlocks": (_unlocks, sipa.BITLOCKER_UNLOCK),
    "boot_count": (_one, sipa.BOOT_COUNTER),
    "event_counter": (_one, sipa.EVENT_COUNTER),
    "counter_id": (_one, sipa.COUNTER_ID),
    "cold_boot": (_cold_boot, sipa.TRANSFER_CONTROL),
    "hibernation_disabled": (_always, sipa.HIBERNATION_DISABLED),
    "dumps_disabled": (_always, sipa.DUMPS_DISABLED),
    "dump_encryption": (_always, sipa.DUMP_ENCRYPTION),
    "pagefile_encryption": (_always, sipa.PAGEFILE_ENCRYPTION),
}
