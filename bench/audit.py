"""What it costs to verify a log: a hundred thousand entries that concern a thousand owners, as an auditor has it.

The log is made here as a fabric makes it, in batches that each count their owners' entries. That every verdict is come
to again by its own evidence is measured beside it: how often a log needs that is for its hosts to say.
"""

import hashlib
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.core.certificate import (
    HealthClaims,
    Signer,
    build_health_certificate,
    build_signer,
    serial_text,
)
from attestation.core.check import Counters
from attestation.core.claims import BANK
from attestation.core.document import BaselineEntry, PolicyDocument, to_json
from attestation.core.dossier import Dossier
from attestation.core.policy_record import PolicyRecord, baseline_content
from attestation.core.quote import BOOT_PCRS
from attestation.core.reference import by_value, rules_to_json
from attestation.core.second_look import SecondLook, Shelf, look_at_all, parse_signers
from bench.core import Sample, sample
from cli.export_file import Export, read_export
from ledger.core.audit import Known
from ledger.core.checkpoint import Checkpoint, sign_checkpoint
from ledger.core.counts import COUNTED, Count, CountTree, said
from ledger.core.export import Header, OwnerLine, entry_line, material_lines, seal_line
from ledger.core.leaf import Act, canonical, entry_hash
from ledger.core.note import Kind, verifier_key
from ledger.core.tree import GrowingTree
from tests.machines import Machine

_HOSTS = 16
_ENTRIES, _OWNERS, _BATCH = 100_000, 1_000, 10
_ORIGIN = "guardhouse/bench-00000000"
_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
_BEGAN = datetime(2026, 11, 26, tzinfo=UTC)
_RUNS = 3


def audit_figures(machine: Machine, folder: Path) -> Iterator[str]:
    path, half = _export(machine, folder / "log.jsonl")
    size = path.stat().st_size / 1e6
    known = Known(verifier_key(_ORIGIN, Kind.ED25519, _KEY), kept=half)
    hashing = _cpu(lambda: _hashed(path))
    yield f"{'SHA-256 of its lines alone':48} {hashing:6.2f} s"
    taken = _cpu(lambda: _verified(path, known))
    what = f"{_ENTRIES:,} entries verified, {size:.0f} MB"
    yield f"{what:48} {taken:6.2f} s of one processor ({taken / _ENTRIES * 1e6:.0f} µs each)"
    found = _verified(path, known)
    taken = _cpu(lambda: _judged(found))
    what = f"{len(found.found.grounds):,} releases held against their {_HOSTS} verdicts"
    yield f"{what:48} {taken:6.2f} s of one processor"
    one = SecondLook(_shelf(found))
    several = {each.evidence: each for each in found.found.grounds}.values()
    taken = _cpu(lambda: [one.at(each) for each in several]) / len(several)
    yield f"{'a verdict come to again, with its certificate':48} {taken * 1e3:6.2f} ms"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield f"{'the most memory that this process had':48} {most >> 10:6} MiB"


def _verified(path: Path, known: Known) -> Export:
    export = read_export(path, known)
    if export.found.problems or export.found.entries != _ENTRIES:
        raise AssertionError(export.found.problems)
    return export


def _judged(export: Export) -> None:
    tally = look_at_all(export.found.grounds, _shelf(export))
    if tally.problems or tally.judged != _HOSTS:
        raise AssertionError(tally)


def _shelf(export: Export) -> Shelf:
    return Shelf(export.load, export.parts, parse_signers([export.load(each) for each in export.signers]))


def _hashed(path: Path) -> None:
    with path.open("rb") as file:
        for line in file:
            hashlib.sha256(line).digest()


def _cpu(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_RUNS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return median(times)


# --- made --------------------------------------------------------------------------------------------------------


def _export(machine: Machine, path: Path) -> tuple[Path, Checkpoint]:
    """Write an export, and return the checkpoint that its reader has kept from when it was half as long."""
    material = _Material(sample(machine, machine.ak), machine.ak.public)
    owners = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(_OWNERS)]
    log = _Made(owners, [material.host(str(UUID(int=number))) for number in range(_HOSTS)])
    lines: list[bytes] = []
    half = None
    while log.tree.size < _ENTRIES:
        lines.append(log.counted() if log.tree.size % _BATCH == _BATCH - 1 else log.released())
        if log.tree.size == _ENTRIES // 2:
            half = log.checkpoint
    note = str(sign_checkpoint(log.checkpoint, _KEY))
    vkey = str(verifier_key(_ORIGIN, Kind.ED25519, _KEY))
    head = [Header(vkey, note, None, 0, (), (), (material.signer,)).line()]
    head += [OwnerLine(owner, position, log.start(owner), ()).line() for owner, position in log.positions.items()]
    content = b"".join([*head, *lines, *material.lines])
    path.write_bytes(content + seal_line(_ORIGIN, hashlib.sha256(content).digest(), _KEY))
    if half is None:
        raise AssertionError("a log that grew was half as long once")
    return path, half


@dataclass(frozen=True, slots=True)
class _Host:
    """A host of the log: its dossier and its certificate, as its releases name them."""

    id: str
    dossier: str
    policy: str
    certificate: str
    serial: str


class _Material:
    """What the log's digests stand for: one boot, one policy, and a dossier and a certificate for each host."""

    def __init__(self, sample: Sample, key: bytes) -> None:
        self.lines: list[bytes] = []
        self._sample, self._key, self._claims = sample, key, sample.verify()
        signing = ec.generate_private_key(ec.SECP256R1())
        der = build_signer(signing, number=1, fabric="bench", not_before=_BEGAN, not_after=_BEGAN + timedelta(days=30))
        self._signer = Signer(signing, x509.load_der_x509_certificate(der))
        self.signer, self._log = self._put(der), self._put(sample.log)
        self._policy = self._put(self._record().content())

    def _put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.lines += material_lines(digest, content)
        return digest

    def _record(self) -> PolicyRecord:
        values = {pcr: self._claims.pcrs[pcr] for pcr in BOOT_PCRS}
        baseline = baseline_content(
            name="trixie",
            bank=BANK,
            platform="linux",
            pcrs=rules_to_json(by_value(values)),
            event_log=self._log,
            explained={str(pcr): value.hex() for pcr, value in values.items()},
        )
        document = to_json(PolicyDocument(baselines=(BaselineEntry("1"),)))
        return PolicyRecord(1, document, {"1": self._put(baseline)}, "", {})

    def host(self, host: str) -> _Host:
        evidence = self._sample.evidence
        parts = ("quote", "signature", "transport_public", "transport_certify", "transport_signature")
        dossier = Dossier(
            host=host,
            mode="tpm",
            at=_BEGAN,
            approved=True,
            key=self._key,
            nonce=self._sample.nonce,
            evidence={part: getattr(evidence, part).hex() for part in parts},
            pcrs=evidence.pcr_values,
            event_log=self._log,
            ima_log="",
            ima_from=0,
            ima_end=None,
            before=Counters(),
            policy=self._policy,
            version=1,
            baseline="1",
            status="Passed",
            codes=(),
            excepted=(),
        )
        serial = UUID(host).int + (1 << 126)
        der = build_health_certificate(
            claims=HealthClaims(host, "nbg-a01", "tpm"),
            transport_spki=self._claims.transport.spki,
            serial=serial,
            not_before=_BEGAN,
            not_after=_BEGAN + timedelta(hours=8),
            signer=self._signer,
        )
        return _Host(host, self._put(dossier.content()), self._policy, self._put(der), serial_text(serial))


class _Made:
    """A log as a fabric makes it: releases to many owners, and after some of them an entry that counts."""

    def __init__(self, owners: list[str], hosts: list[_Host]) -> None:
        self.tree, self.positions = GrowingTree(), dict[str, int]()
        self._owners, self._hosts, self._counts = owners, hosts, CountTree()
        self._chains: dict[str, Count] = {}

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(_ORIGIN, self.tree.size, self.tree.head())

    def start(self, owner: str) -> bytes:
        return hashlib.sha256(owner.encode()).digest()

    def released(self) -> bytes:
        owner = self._owners[self._drawn("owner") % len(self._owners)]
        host = self._hosts[self._drawn("host") % len(self._hosts)]
        detail = {
            **{"release": self.tree.size, "vm": "payroll", "host": "nbg-a01", "group": "default", "mode": "tpm"},
            **{"certificate": host.serial, "attestation": 7, "policy": 1, "owner": owner, "owner_serial": 3},
            **{"statement": "5" * 64, "level": "shielded", "roll": 12, "approval": "", "code": "", "why": ""},
            **{"evidence": host.dossier, "policy_sha256": host.policy, "certificate_sha256": host.certificate},
        }
        line = self._line(f"host:{host.id}", "key.released", f"protector:{owner}/{host.id}", detail)
        position = self.positions.setdefault(owner, len(self.positions))
        before = self._chains.get(owner) or Count(owner, 0, self.start(owner))
        self._chains[owner] = before.and_one(self._hash)
        self._counts.put(position, self._chains[owner])
        return line

    def counted(self) -> bytes:
        detail = said(self.tree.size + 1, self._counts)
        return self._line("system", COUNTED, f"log:{_ORIGIN}", detail)

    def _drawn(self, word: str) -> int:
        """Return a large number, without order and yet the same in every run."""
        return int.from_bytes(hashlib.sha256(f"{word} {self.tree.size}".encode()).digest()[:16], "big")

    def _line(self, actor: str, act: str, subject: str, detail: dict[str, object]) -> bytes:
        at = _BEGAN + timedelta(milliseconds=self.tree.size)
        content = canonical(Act(at, actor, act, subject, detail, salt=f"{self._drawn('salt'):032x}"))
        index, self._hash = self.tree.size, entry_hash(content)
        self.tree.add(self._hash)
        return entry_line(content, hash_=self._hash.hex(), index=index, path=None)
