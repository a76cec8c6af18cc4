"""Answers what a Windows boot log proves, from the SIPA records in PCRs 12 to 14.

The boot manager and the loader end their part with a "WBCL" separator; whatever was measured behind it, anybody with
rights in the running system may have measured. One event before it whose data are not proved, or not readable, could
hide any record: then that PCR answers nothing.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from attestation.core import sipa
from attestation.core.reader import Reader
from attestation.core.replay import VerifiedEvent
from attestation.errors import ParseError

END_OF_PHASE: Final = b"WBCL"
PCRS: Final = (12, 13, 14)

WindowsValue = bool | int | str | tuple[str, ...] | tuple[int, ...] | Mapping[str, str]
Found = tuple[WindowsValue, int, int]
"""The value, its PCR, and the event's index in the log."""

_DEP_WORDS: Final = {0: "OptIn", 1: "OptOut", 2: "AlwaysOff", 3: "AlwaysOn"}
_ALWAYS_OFF: Final = 2
# What the boot manager hands over to: the loader, or the hypervisor's loader on its way there; 2 resumes a system.
_LOADERS: Final = frozenset({1, 5})
_HASH_NAMES: Final = {
    0x4: "sha1",
    0xB: "sha256",
    0xC: "sha384",
    0xD: "sha512",
    0x8004: "sha1",
    0x800C: "sha256",
    0x800D: "sha384",
    0x800E: "sha512",
}
_FAILURES: Final = {
    sipa.FIRMWARE_FAILURE: "firmware",
    sipa.INTERNAL_FAILURE: "integrity services",
    sipa.HYPERVISOR_FAILURE: "hypervisor",
}
_FIRST_DAY: Final = datetime(1601, 1, 1, tzinfo=UTC)
_LAST_TICK: Final = (datetime(9999, 12, 31, tzinfo=UTC) - _FIRST_DAY) // timedelta(microseconds=1) * 10


@dataclass(frozen=True, slots=True)
class _Seen:
    record: sipa.Record
    pcr: int
    event: int


Records = Mapping[int, Sequence[_Seen]]
"""What was proved, by kind of record."""


def windows_facts(events: Sequence[VerifiedEvent], *, bank: str) -> dict[str, Found | None]:
    """Return every fact about Windows that we know to ask for, None where these events do not prove it."""
    end = hashlib.new(bank, END_OF_PHASE).digest()
    records: dict[int, list[_Seen]] = {}
    for pcr in PCRS:
        for seen in _phase([event for event in events if event.pcr == pcr], end):
            records.setdefault(seen.record.kind, []).append(seen)
    if not records:
        return dict.fromkeys(_QUESTIONS)
    return {name: _answer(question, kinds, records) for name, (question, kinds) in _QUESTIONS.items()}


def _answer(question: "Question", kinds: tuple[int, ...], records: Records) -> Found | None:
    about = [seen for kind in kinds for seen in records.get(kind, ())]
    try:
        value = question(about, records)
    except ParseError:  # a value of impossible size answers nothing
        value = None
    if value is None:
        return None
    leans_on = about[0] if about else next(iter(records.values()))[0]
    return value, leans_on.pcr, leans_on.event


def parse_si_policy(data: bytes) -> tuple[str, str]:
    """Return name and hash of a code integrity policy (wbcl.h, SIPAEVENT_SI_POLICY_PAYLOAD)."""
    reader = Reader(data, what="code integrity policy", order="little")
    reader.u64()
    name_size, algorithm, hash_size = reader.u16(), reader.u16(), reader.u32()
    name = reader.take(name_size).decode("utf-16-le", "replace").rstrip("\0")
    digest = reader.take(hash_size)
    reader.finish()
    return name, _hash_words(algorithm, digest)


def parse_revocation_list(data: bytes) -> tuple[str, str]:
    """Return hash and date of a list of revoked programs (wbcl.h, SIPAEVENT_REVOCATION_LIST_PAYLOAD)."""
    reader = Reader(data, what="revocation list", order="little")
    ticks, hash_size, algorithm = reader.u64(), reader.u32(), reader.u16()
    digest = reader.take(hash_size)
    if ticks > _LAST_TICK:
        raise reader.error(f"a date {ticks} ticks after 1601")
    reader.finish()
    return _hash_words(algorithm, digest), (_FIRST_DAY + timedelta(microseconds=ticks // 10)).date().isoformat()


def parse_secure_boot_policy(data: bytes) -> str:
    """Return the hash of a Secure Boot policy (wbcl.h, SIPAEVENT_SBCP_INFO_PAYLOAD_V1); its signers follow."""
    reader = Reader(data, what="Secure Boot policy", order="little")
    version, begin, algorithm, hash_size = reader.u32(), reader.u32(), reader.u16(), reader.u16()
    reader.u32(), reader.u32()
    if version != 1 or begin < reader.offset:
        raise reader.error(f"version {version}, with its hash at byte {begin}")
    reader.take(begin - reader.offset)
    return _hash_words(algorithm, reader.take(hash_size))


def _hash_words(algorithm: int, digest: bytes) -> str:
    return f"{_HASH_NAMES.get(algorithm, f'{algorithm:#x}')}:{digest.hex()}"


def _phase(measured: Sequence[VerifiedEvent], end: bytes) -> Iterator[_Seen]:
    """Every record measured into a PCR before its "WBCL"; none when one of its events cannot be read."""
    at = next((at for at, event in enumerate(measured) if event.digest == end), 0)
    if any(event.data is None for event in measured[:at]):
        return iter(())
    try:
        parsed = [(event, sipa.parse_sipa(event.data or b"")) for event in measured[:at]]
    except ParseError:
        return iter(())
    return (
        _Seen(record, event.pcr, event.index) for event, outer in parsed for each in outer for record in each.walk()
    )


Question = Callable[[Sequence[_Seen], Records], WindowsValue | None]


def _numbers(seen: Sequence[_Seen]) -> list[int]:
    return [sipa.integer(each.record) for each in seen]


def _ever(about: Sequence[_Seen], records: Records) -> bool | None:
    """On when any stage of the boot had it on."""
    return any(_numbers(about)) if about else None


def _always(about: Sequence[_Seen], records: Records) -> bool | None:
    """On when every stage of the boot had it on."""
    return all(_numbers(about)) if about else None


def _never(about: Sequence[_Seen], records: Records) -> bool | None:
    """True when the status was zero, which is success, in every stage."""
    return not any(_numbers(about)) if about else None


def _one(about: Sequence[_Seen], records: Records) -> int | None:
    """The number, when there are not two of them."""
    numbers = set(_numbers(about))
    return numbers.pop() if len(numbers) == 1 else None


def _least(about: Sequence[_Seen], records: Records) -> int | None:
    return min(_numbers(about), default=None)


def _text(about: Sequence[_Seen], records: Records) -> str | None:
    """The text, when there are not two of them and it can be shown."""
    texts = {sipa.text(each.record) for each in about}
    return texts.pop() if len(texts) == 1 and all(map(str.isprintable, texts)) else None


def _cold_boot(about: Sequence[_Seen], records: Records) -> bool | None:
    """False when the boot manager resumed an earlier system instead of starting one."""
    return _LOADERS.issuperset(_numbers(about)) if about else None


def _data_execution_prevention(about: Sequence[_Seen], records: Records) -> bool | None:
    return _ALWAYS_OFF not in _numbers(about) if about else None


def _dep_policy(about: Sequence[_Seen], records: Records) -> str | None:
    number = _one(about, records)
    return None if number is None else _DEP_WORDS.get(number, str(number))


def _unlocks(about: Sequence[_Seen], records: Records) -> tuple[int, ...] | None:
    """How each volume was unlocked (0: in clear); both PCRs say the same, so one is enough."""
    return tuple(_numbers([each for each in about if each.pcr == about[0].pcr])) if about else None


def _virtualisation(about: Sequence[_Seen], records: Records) -> bool | None:
    """Virtual secure mode needs the hypervisor under it."""
    launched = _always(about, records)
    return launched and bool(_always(records.get(sipa.HYPERVISOR_LAUNCH, ()), records))


def _hvci(about: Sequence[_Seen], records: Records) -> bool | None:
    launched = _virtualisation(about, records)
    return launched and bool(_always(records.get(sipa.VBS_HVCI, ()), records))


def _drivers(about: Sequence[_Seen], records: Records) -> Mapping[str, str] | None:
    """Each early-launch anti-malware driver with what was measured of it."""
    drivers = {}
    for each in about:
        fields = {child.kind: child for child in each.record.children}
        name = sipa.text(fields[sipa.ELAM_KEY_NAME]) if sipa.ELAM_KEY_NAME in fields else ""
        kinds = (sipa.ELAM_MEASURED, sipa.ELAM_POLICY, sipa.ELAM_CONFIGURATION)
        if name:
            drivers[name] = next((fields[kind].value.hex() for kind in kinds if kind in fields), "")
    return drivers if about else None


def _unvalidated(about: Sequence[_Seen], records: Records) -> tuple[str, ...] | None:
    """The loaded modules whose signature the loader did not accept; PCR 13 has path and verdict of each."""
    modules = [{child.kind: child for child in each.record.children} for each in about]
    judged = [fields for fields in modules if sipa.MODULE_VALIDATED in fields]
    bad = [fields for fields in judged if not sipa.integer(fields[sipa.MODULE_VALIDATED])]
    paths = (sipa.text(fields[sipa.MODULE_PATH]) if sipa.MODULE_PATH in fields else "unnamed" for fields in bad)
    return tuple(paths) if judged else None


def _policies(about: Sequence[_Seen], records: Records) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(" ".join(parse_si_policy(each.record.value)) for each in about)) or None


def _secure_boot_policies(about: Sequence[_Seen], records: Records) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(parse_secure_boot_policy(each.record.value) for each in about)) or None


def _revocations(about: Sequence[_Seen], records: Records) -> Mapping[str, str] | None:
    """Each list of revoked programs that was in force: its hash, and the day it was made."""
    return dict(parse_revocation_list(each.record.value) for each in about) or None


def _digests(about: Sequence[_Seen], records: Records) -> tuple[str, ...] | None:
    """The SHA-256 of what was measured, of each once."""
    return tuple(dict.fromkeys(hashlib.sha256(each.record.value).hexdigest() for each in about)) or None


def _key(about: Sequence[_Seen], records: Records) -> str | None:
    """The SHA-256 of the key, when there are not two of them."""
    digests = _digests(about, records) or ()
    return digests[0] if len(digests) == 1 else None


def _measured_digest(about: Sequence[_Seen], records: Records) -> str | None:
    """A digest that Windows made itself, when there are not two of them."""
    values = {each.record.value for each in about}
    return values.pop().hex() or None if len(values) == 1 else None


def _failures(about: Sequence[_Seen], records: Records) -> tuple[str, ...]:
    """What failed while Windows measured its boot; nothing when the records prove that nothing did."""
    return tuple(dict.fromkeys(_FAILURES[each.record.kind] for each in about))


_QUESTIONS: Final[Mapping[str, tuple[Question, tuple[int, ...]]]] = {
    "boot_debugging": (_ever, (sipa.BOOT_DEBUGGING,)),
    "kernel_debug": (_ever, (sipa.KERNEL_DEBUG,)),
    "hypervisor_debug": (_ever, (sipa.HYPERVISOR_DEBUG,)),
    "test_signing": (_ever, (sipa.TEST_SIGNING,)),
    "flight_signing": (_ever, (sipa.FLIGHT_SIGNING,)),
    "code_integrity": (_always, (sipa.CODE_INTEGRITY,)),
    "code_integrity_policies": (_policies, (sipa.SI_POLICY,)),
    "code_integrity_signers": (_digests, (sipa.SI_POLICY_SIGNER,)),
    "code_integrity_update_signers": (_digests, (sipa.SI_POLICY_UPDATE_SIGNER,)),
    "secure_boot_policies": (_secure_boot_policies, (sipa.SECURE_BOOT_POLICY,)),
    "revocation_lists": (_revocations, (sipa.BOOT_REVOCATION_LIST, sipa.OS_REVOCATION_LIST)),
    "unvalidated_modules": (_unvalidated, (sipa.LOADED_MODULE,)),
    "authority_keys": (_digests, (sipa.AUTHORITY_KEY,)),
    "boot_failures": (_failures, tuple(_FAILURES)),
    "safe_mode": (_ever, (sipa.SAFE_MODE,)),
    "winpe": (_ever, (sipa.WINPE,)),
    "system_root": (_text, (sipa.SYSTEM_ROOT,)),
    "driver_load_policy": (_one, (sipa.DRIVER_LOAD_POLICY,)),
    "dep": (_data_execution_prevention, (sipa.DATA_EXECUTION_PREVENTION,)),
    "dep_policy": (_dep_policy, (sipa.DATA_EXECUTION_PREVENTION,)),
    "elam": (_drivers, (sipa.ELAM,)),
    "hypervisor": (_always, (sipa.HYPERVISOR_LAUNCH,)),
    "hypervisor_path": (_text, (sipa.HYPERVISOR_PATH,)),
    "hypervisor_iommu_policy": (_one, (sipa.HYPERVISOR_IOMMU,)),
    "hypervisor_mmio_nx": (_always, (sipa.HYPERVISOR_MMIO_NX,)),
    "hypervisor_msr_filter": (_always, (sipa.HYPERVISOR_MSR_FILTER,)),
    "vsm": (_virtualisation, (sipa.VSM_LAUNCH,)),
    "hvci": (_hvci, (sipa.VSM_LAUNCH,)),
    "vbs_mandatory": (_always, (sipa.VBS_MANDATORY,)),
    "vbs_vsm_required": (_always, (sipa.VBS_VSM_REQUIRED,)),
    "vbs_secure_boot_required": (_always, (sipa.VBS_SECURE_BOOT_REQUIRED,)),
    "vbs_mmio_nx_required": (_always, (sipa.VBS_MMIO_NX_REQUIRED,)),
    "vbs_msr_filter_required": (_always, (sipa.VBS_MSR_FILTER_REQUIRED,)),
    "vbs_boot_chain_required": (_always, (sipa.VBS_BOOT_CHAIN_REQUIRED,)),
    "vbs_no_secrets": (_ever, (sipa.VBS_NO_SECRETS,)),
    "iommu_required": (_always, (sipa.VBS_IOMMU_REQUIRED,)),
    "dma_protection": (_always, (sipa.BOOT_DMA_PROTECTION,)),
    "smt_status": (_one, (sipa.SMT_STATUS,)),
    "lsa_iso_config": (_one, (sipa.LSA_ISO_CONFIG,)),
    "drtm_smm_level": (_one, (sipa.DRTM_SMM_LEVEL,)),
    "identity_key": (_key, (sipa.VSM_IDENTITY_KEY,)),
    "identity_signing_key": (_key, (sipa.VSM_IDENTITY_SIGNING_KEY,)),
    "identity_keys_made": (_never, (sipa.IDK_GENERATION_STATUS,)),
    "bitlocker_unlocks": (_unlocks, (sipa.BITLOCKER_UNLOCK,)),
    "boot_count": (_one, (sipa.BOOT_COUNTER,)),
    "event_counter": (_one, (sipa.EVENT_COUNTER,)),
    "counter_id": (_one, (sipa.COUNTER_ID,)),
    "application_svn": (_least, (sipa.APPLICATION_SVN,)),
    "svn_chain_intact": (_never, (sipa.SVN_CHAIN_STATUS,)),
    "memory_overwrite_request": (_never, (sipa.MOR_BIT_API_STATUS,)),
    "cold_boot": (_cold_boot, (sipa.TRANSFER_CONTROL,)),
    "hibernation_disabled": (_always, (sipa.HIBERNATION_DISABLED,)),
    "dumps_disabled": (_always, (sipa.DUMPS_DISABLED,)),
    "dump_encryption": (_always, (sipa.DUMP_ENCRYPTION,)),
    "dump_encryption_key": (_measured_digest, (sipa.DUMP_ENCRYPTION_KEY,)),
    "dump_uses_ame_root": (_ever, (sipa.VBS_DUMP_USES_AME_ROOT,)),
    "pagefile_encryption": (_always, (sipa.PAGEFILE_ENCRYPTION,)),
}
