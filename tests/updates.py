"""The same system after an update: captured logs in which the kernel, or anything else, has another digest."""

import hashlib

from attestation.core.eventlog import parse_event_log
from attestation.core.replay import VerifiedEvent
from tests.boot_logs import boot

KERNEL = "6b1bf35c"
"""How the digest of the kernel, as a boot program, begins in the captures."""

FILES = (b"/boot/vmlinuz", b"/boot/initrd")


def measured(capture: str, begins: str) -> VerifiedEvent:
    return next(event for event in boot(capture).events if event.digest.hex().startswith(begins))


def other_digest(digest: bytes, version: str) -> bytes:
    return hashlib.sha256(version.encode() + digest).digest()


def with_other(log: bytes, digests: list[bytes], version: str) -> bytes:
    """Put another digest wherever one of these is: a log that leads to other PCR values."""
    for digest in digests:
        assert digest in log
        log = log.replace(digest, other_digest(digest, version))
    parse_event_log(log)
    return log


def with_new_kernel(capture: str, version: str = "6.12.60") -> bytes:
    """The log of a system whose kernel and initial ramdisk were updated."""
    files = [
        event for event in boot(capture).events if event.untrusted_data.startswith((b"/boot/vmlinuz", b"/boot/initrd"))
    ]
    digests = {measured(capture, KERNEL).digest, *(event.digest for event in files if event.pcr == 9)}
    return with_other(boot(capture).log, sorted(digests), version)
