"""What an IMA list costs: parse, template hash, extension of PCR 10 and look-up in a runtime policy, for each entry.

The list is made up, the same in every run, with paths and digests as long as those of real lists. Lists seen before
are those whose lines the policy has accepted already. The floor is what no implementation can leave out: the extension
alone, and with it the hash of the template and of its listed digest.
"""

import hashlib
import tracemalloc
from collections.abc import Mapping
from random import Random
from statistics import median
from struct import pack

from attestation.core.ima import START, Extension, ima_records, ima_values, replay_list
from attestation.core.ima_templates import binary_from_text
from attestation.core.runtime import KnownLines, RuntimePolicy, appraise_runtime
from bench.figures import Figure, Item, measure
from tests.boot_logs import COLLECTION
from tests.ima_lists import fields, ng, record

ENTRIES = 500_000
RUNS = 3
BANK = "sha256"
PCRS: Mapping[int, bytes] = {pcr: bytes(32) for pcr in range(10)}
FOLDERS = (b"/usr/bin", b"/usr/sbin", b"/usr/lib/x86_64-linux-gnu", b"/usr/lib/modules/6.12.48/kernel/drivers", b"/etc")


def made_up_list(entries: int) -> bytes:
    """Make a binary ima-ng list that begins with the boot aggregate of blank PCRs."""
    aggregate = b"sha256:\0" + hashlib.sha256(bytes(320)).digest()
    records = [record(fields(aggregate, b"boot_aggregate\0"))]
    random = Random(1)  # noqa: S311  # the same list in every run
    for number in range(1, entries):
        name = bytes(random.choices(b"abcdefghijklmnopqrstuvwxyz-", k=random.randrange(4, 20)))
        records.append(ng(b"%s/%s.%d" % (random.choice(FOLDERS), name, number), pack("<I", number)))
    return b"".join(records)


class Subject:
    """One list with the policy that accepts all of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.quoted = ima_values(data, bank=BANK, extension=Extension.REHASHED)[10]
        self.lines = [line for _, _, line, _, _ in ima_records(data)]
        self.policy = RuntimePolicy.from_list(self.lines)
        self.known = KnownLines(self.policy, BANK, len(self.lines))
        self.appraise(self.known)

    def appraise(self, known: KnownLines | None) -> None:
        seen = known.digests if known is not None else {}
        replayed = replay_list(
            self.data, quoted=self.quoted, bank=BANK, extension=Extension.REHASHED, after=START, known=seen
        )
        findings = appraise_runtime(replayed, self.policy, pcrs=PCRS, known=known)
        assert all(finding.code == "ima_boot_aggregate" for finding in findings)

    def extend_only(self) -> None:
        value = bytes(32)
        for _ in self.lines:
            value = hashlib.sha256(value + value).digest()

    def hash_only(self) -> None:
        value = bytes(32)
        for line in self.lines:
            hashlib.sha1(line, usedforsecurity=False).digest()
            value = hashlib.sha256(value + hashlib.sha256(line).digest()).digest()

    def items(self, name: str) -> list[Item]:
        floor = f"{name}: only the extension"
        return [
            Item(floor, self.extend_only, floor),
            Item(f"{name}: only SHA-1, SHA-256 and the extension", self.hash_only, floor),
            Item(f"{name}: new, replayed and appraised", lambda: self.appraise(None), floor),
            Item(f"{name}: seen before, replayed and appraised", lambda: self.appraise(self.known), floor),
        ]

    def memory(self) -> float:
        """Return the most bytes per entry that a new list needs, with learning it, beyond the list and the policy."""
        known = KnownLines(self.policy, BANK, len(self.lines))
        tracemalloc.start()
        try:
            self.appraise(known)
            return tracemalloc.get_traced_memory()[1] / len(self.lines)
        finally:
            tracemalloc.stop()


def ima_figures() -> tuple[list[Figure], list[str]]:
    """Measure; figures are per 1,000 entries, so their milliseconds are microseconds per entry."""
    figures: list[Figure] = []
    for large in COLLECTION.glob("*keylime-perf-tests/ima_log.txt"):
        real = Subject(binary_from_text(large.read_bytes()))
        figures += _per_thousand(measure(real.items("780 real"), runs=RUNS * 5), len(real.lines))
    subject = Subject(made_up_list(ENTRIES))
    made_up = _per_thousand(measure(subject.items(f"{ENTRIES:,}"), runs=RUNS), ENTRIES)
    new, seen = (median(figure.runs) for figure in made_up[2:])
    notes = [
        f"{ENTRIES:,} entries in one go: {new:.2f} microseconds per new entry, {seen:.2f} per entry seen before",
        f"memory beside list and policy: at most {subject.memory():.0f} bytes per new entry",
    ]
    return figures + made_up, notes


def _per_thousand(figures: list[Figure], entries: int) -> list[Figure]:
    scale = 1000 / entries
    return [Figure(each.name, tuple(run * scale for run in each.runs), each.against) for each in figures]
