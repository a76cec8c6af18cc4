"""Real boots to read from, and a small forge for event logs that no firmware would write."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import pack

from attestation.core.eventlog import parse_event_log
from attestation.core.replay import LOG_PCRS, VerifiedEvent, replay

CAPTURES = Path(__file__).parent / "vectors" / "qemu-ovmf"
# A larger collection, which is not part of this repository, may lie beside it.
COLLECTION = Path(__file__).parents[2] / "shared" / "vectors"
SHA1, SHA256 = (0x4, 20), (0xB, 32)


@dataclass(frozen=True)
class Boot:
    """One captured boot."""

    log: bytes
    ima: bytes
    pcrs: Mapping[int, bytes]

    @property
    def pinned(self) -> dict[int, bytes]:
        return {pcr: self.pcrs[pcr] for pcr in sorted(LOG_PCRS)}

    @property
    def events(self) -> tuple[VerifiedEvent, ...]:
        return replay(parse_event_log(self.log), quoted=self.pinned, bank="sha256")


def boot(name: str) -> Boot:
    folder = CAPTURES / name
    lines = [line.split() for line in (folder / "pcrs.txt").read_text().splitlines()]
    pcrs = {int(pcr): bytes.fromhex(value) for pcr, value in lines}
    return Boot((folder / "eventlog.bin").read_bytes(), (folder / "ima.bin").read_bytes(), pcrs)


def sha1_record(pcr: int, kind: int, data: bytes, *, digest: bytes | None = None) -> bytes:
    digest = hashlib.sha1(data, usedforsecurity=False).digest() if digest is None else digest
    return pack("<II20sI", pcr, kind, digest, len(data)) + data


def spec_id(
    algorithms: Sequence[tuple[int, int]] = (SHA256,), *, vendor: bytes = b"", count: int | None = None
) -> bytes:
    """The header record of a crypto-agile log."""
    count = len(algorithms) if count is None else count
    body = pack("<16sIBBBBI", b"Spec ID Event03", 0, 0, 2, 0, 2, count)
    body += b"".join(pack("<HH", *algorithm) for algorithm in algorithms) + pack("<B", len(vendor)) + vendor
    return sha1_record(0, 3, body, digest=bytes(20))


def record(pcr: int, kind: int, data: bytes, *, digest: bytes | None = None) -> bytes:
    """A crypto-agile record with one SHA-256 digest."""
    digest = hashlib.sha256(data).digest() if digest is None else digest
    return pack("<IIIH32sI", pcr, kind, 1, 0xB, digest, len(data)) + data


def record_of_banks(pcr: int, kind: int, data: bytes, banks: Sequence[str] = ("sha1", "sha256")) -> bytes:
    """A crypto-agile record with the digests of these banks only."""
    identifiers = {"sha1": 0x4, "sha256": 0xB}
    digests = [pack("<H", identifiers[bank]) + hashlib.new(bank, data).digest() for bank in banks]
    return pack("<III", pcr, kind, len(digests)) + b"".join(digests) + pack("<I", len(data)) + data


def no_action(data: bytes, *, pcr: int = 0, digest: bytes = bytes(32)) -> bytes:
    return record(pcr, 3, data, digest=digest)


def locality(value: int, *, pcr: int = 0) -> bytes:
    return no_action(b"StartupLocality\0" + bytes((value,)), pcr=pcr)


def records_of(log: bytes) -> tuple[bytes, list[bytes]]:
    """Cut a SHA-256-only crypto-agile log into its header and its records."""
    cut = 32 + int.from_bytes(log[28:32], "little")
    head, rest, records = log[:cut], log[cut:], []
    while rest:
        size = 50 + int.from_bytes(rest[46:50], "little")
        records.append(rest[:size])
        rest = rest[size:]
    return head, records
