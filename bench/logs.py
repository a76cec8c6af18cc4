"""The boot logs that the benches run on: one as long as real servers write, and copies of it that nobody has seen."""

from struct import pack
from typing import Final

from attestation.core.eventlog import EV_NO_ACTION, parse_event_log
from tests.boot_logs import COLLECTION
from tests.machines import CAPTURES

_ALGORITHMS: Final = {"sha1": (0x4, 20), "sha256": (0xB, 32), "sha384": (0xC, 48), "sha512": (0xD, 64)}


def server_log() -> bytes:
    """Return a real server's log of 73 KB; where the collection is not at hand, the 13 KB of a virtual machine."""
    for large in COLLECTION.glob("*keylime-perf-tests/uefi_log.bin"):
        return large.read_bytes()
    return (CAPTURES / "secureboot-on" / "eventlog.bin").read_bytes()


def in_kilobytes(log: bytes) -> str:
    return f"{len(log) / 1000:.0f} KB"


def with_note(log: bytes, note: bytes) -> bytes:
    """Return a log that differs in every digest of it and leads to the same PCRs.

    The firmware's notes are not measured (PFP, "EV_NO_ACTION Event Types"): one more changes nothing that a TPM signs,
    while the verifier has to read and replay the whole log to learn that.
    """
    algorithms = [_ALGORITHMS[bank] for bank in parse_event_log(log).banks]
    digests = b"".join(pack("<H", algorithm) + bytes(size) for algorithm, size in algorithms)
    data = b"SP800-155 Event" + note
    return log + pack("<III", 0, EV_NO_ACTION, len(algorithms)) + digests + pack("<I", len(data)) + data
